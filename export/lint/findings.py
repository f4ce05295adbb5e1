"""What lint says, in one shape for all accelerators."""

from collections.abc import Iterable
from typing import Literal

from pydantic import BaseModel, ConfigDict

from edgekit.bundle import LeftOperator
from edgekit.export.lint.advice import advise

#: what will happen: nothing runs there; this runs on the CPU; it runs and answers wrongly; it runs slower than it could
Effect = Literal["refused", "falls back", "wrong", "slower"]


class Finding(BaseModel):
    """One thing that keeps a file from an accelerator: `operation` (or input) of a function, how many, first places.

    `effect` is what will happen, `why` the reason, `source` who says so, `advice` the change that would help.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rule: str
    effect: Effect
    function: str
    operation: str
    count: int
    where: tuple[str, ...]
    why: str
    advice: str
    source: str


class LintReport(BaseModel):
    """What is known of one file and one accelerator before any hardware; `judge` is who was asked.

    `operators_taken` of `operators` would run there, in so many `partitions`; None where the judge does not tell.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str
    accelerator: str
    judge: str
    findings: tuple[Finding, ...]
    operators: int | None = None
    operators_taken: int | None = None
    partitions: int | None = None

    @property
    def held_back(self) -> bool:
        """Whether anything would not run there, or would answer wrongly."""
        return any(finding.effect != "slower" for finding in self.findings)


def left_findings(left: Iterable[LeftOperator], accelerator: str, source: str) -> list[Finding]:
    """A finding for each kind of operator that a compiler or runtime left to the CPU."""
    return [
        Finding(
            rule="left-to-the-cpu",
            effect="falls back",
            function="main",
            operation=each.operator,
            count=each.count,
            where=each.where,
            why=each.reason,
            advice=advise(each.operator, each.reason, accelerator),
            source=source,
        )
        for each in left
    ]


def whole_file(rule: str, why: str, advice: str, source: str, operation: str = "the whole file") -> Finding:
    """The finding that an accelerator takes nothing of a file."""
    return Finding(
        rule=rule,
        effect="refused",
        function="main",
        operation=operation,
        count=1,
        where=(),
        why=why,
        advice=advice,
        source=source,
    )

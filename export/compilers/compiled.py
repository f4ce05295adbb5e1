"""What a compiler answers, whichever it is, and how it is started."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekit.bundle import LeftOperator, PartitionReport
from edgekit.errors import EdgekitError, ExportError, OutputError
from edgekit.processes import CompletedRun, run_process

_SHOWN = 3  # outputs of operators in a report


@dataclass(frozen=True, kw_only=True)
class Compiled:
    """The compiler and its version, its number for the device (None where it has none), and its report."""

    compiler: str
    version: str
    report: PartitionReport
    device_number: int | None = None


@dataclass(frozen=True, kw_only=True)
class LeftNode:
    """One operator that a compiler left to the CPU: its kind, the name of its output, and why."""

    operator: str
    output: str
    reason: str


def group_left(nodes: Iterable[LeftNode]) -> tuple[LeftOperator, ...]:
    """Operators of one kind and reason together, the most frequent first."""
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for node in nodes:
        groups[node.operator, node.reason].append(node.output)
    left = [
        LeftOperator(operator=operator, count=len(outputs), where=tuple(outputs[:_SHOWN]), reason=reason)
        for (operator, reason), outputs in groups.items()
    ]
    return tuple(sorted(left, key=lambda each: -each.count))


def run_compiler(
    argv: Sequence[str], name: str, *, log: Path, timeout_s: float, env: Mapping[str, str] | None = None
) -> CompletedRun:
    """Run a compiler in a process of its own; `log` takes all that it prints.

    Raises ExportError where it fails, crashes or hangs, OutputError where the disk is full.
    """
    try:
        run = run_process(argv, timeout_s=timeout_s, log=log, env=env, cwd=log.parent)
    except EdgekitError as error:
        raise ExportError(f"{name}: {error}", log=log) from error
    with log.open("a", encoding="utf-8") as stream:
        stream.write(run.stdout)
    if run.returncode == 0:
        return run
    text = run.stdout + run.stderr
    if "No space left on device" in text:
        raise OutputError(f"{name}: the disk is full; nothing was changed there")
    ended = f"died of signal {-run.returncode}" if run.returncode < 0 else f"ended with {run.returncode}"
    raise ExportError(f"{name}: the compiler {ended}{_why(text)}", returncode=run.returncode, log=log)


def _why(text: str) -> str:
    """The last line that tells of an error, else the last one that says anything."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower() or "could not" in line.lower()]
    return f": {(errors or lines)[-1][:300]}" if lines else ""

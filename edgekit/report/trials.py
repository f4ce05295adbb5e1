"""Trials: what came of each variant that the evidence of a measurement suggested."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from edgekit.measurement import Measurement
from edgekit.report.beside_cpu import speedup, speedup_text
from edgekit.report.numbers import ABSENT
from edgekit.report.sections import Cell, Table, Tone, text_cell
from edgekit.statistics import Ratio

Result = Literal["helped", "did not help", "wrong", "could not be tried"]
_TONES: dict[Result, Tone] = {"helped": "good", "did not help": "", "wrong": "bad", "could not be tried": "warn"}


class Gain(BaseModel):
    """A ratio of times, over 1 where the variant is faster, with its 95 % interval."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ratio: float
    low: float
    high: float


class Trial(BaseModel):
    """A variant of `bundle`, why it was tried, and what came of it.

    `over_bundle` compares it with the bundle on the same accelerator, `over_cpu` with the bundle on the CPU, each in
    the same run; None where there is nothing right to compare with. `helped` means: right outputs, and surely faster
    than the bundle on that accelerator, or right where the bundle was wrong, fell back or did not run.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    bundle: str
    device: str
    accelerator: str
    variant: str
    because: str
    result: Result
    note: str = ""
    over_bundle: Gain | None = None
    over_cpu: Gain | None = None
    measurement: Measurement | None = None


def judge_trial(
    *,
    variant: Measurement | None,
    bundle: Measurement | None,
    cpu: Measurement | None,
    note: str,
    names: Mapping[str, str],
) -> Trial:
    """Compare a variant with its bundle on the same accelerator and with the bundle on the CPU.

    `names` are the bundle, device, accelerator, variant and because of the trial; `note` says why there is no
    measurement of the variant, if so.
    """
    told: dict[str, Any] = dict(names)
    if variant is None or not variant.samples.latency_ms:
        return Trial(result="could not be tried", note=note or "nothing was measured", **told)
    over_bundle, over_cpu = _gain(bundle, variant), _gain(cpu, variant)
    wrong = variant.verdict in ("wrong-output", "fell-back") or variant.parity.verdict == "failed"
    rescued = bundle is None or not bundle.samples.latency_ms or bundle.verdict in ("wrong-output", "fell-back")
    faster = over_bundle is not None and over_bundle.low > 1
    result: Result = "wrong" if wrong else "helped" if rescued or faster else "did not help"
    return Trial(
        result=result,
        note=". ".join(variant.evidence) if wrong else "",
        over_bundle=over_bundle,
        over_cpu=over_cpu,
        measurement=variant,
        **told,
    )


def trials_table(trials: Sequence[Trial]) -> Table:
    """What was tried, why, and what came of it."""
    headers = ("variant", "on", "tried because", "result", "beside the bundle there", "beside the bundle on the CPU")
    return Table(
        title="Tried on advice",
        headers=(*headers, "outputs", "ran on"),
        rows=tuple(_row(trial) for trial in trials),
        note="In turns with the bundle itself, inputs written and outputs read, 95 % intervals; outputs beside the "
        "model as it was trained.",
    )


def _row(trial: Trial) -> tuple[Cell, ...]:
    made = trial.measurement
    outputs, ran = trial.note or ABSENT, ABSENT
    if made:
        covered, parity = made.coverage, made.parity
        nodes = f", {covered.nodes_on_accelerator} of {covered.nodes} nodes" if covered.nodes else ""
        ran = f"{covered.actual}{nodes}"
        if parity.max_abs_difference is not None:
            outputs = f"|Δ| {parity.max_abs_difference:.2g}, {parity.labels_changed} of {parity.steps} labels changed"
    return (
        *map(text_cell, (trial.variant, f"{trial.accelerator} · {trial.device}", trial.because)),
        text_cell(trial.result, _TONES[trial.result]),
        *(_gain_cell(gain) for gain in (trial.over_bundle, trial.over_cpu)),
        *map(text_cell, (outputs, ran)),
    )


def _gain_cell(gain: Gain | None) -> Cell:
    return Cell(text=speedup_text(gain.ratio, gain.low, gain.high), sort=gain.ratio) if gain else Cell(text=ABSENT)


def _gain(before: Measurement | None, after: Measurement) -> Gain | None:
    """How much faster `after` is; None where what it would be compared with is wrong, ran elsewhere or is not there."""
    if before is None or not before.samples.latency_ms or before.verdict in ("wrong-output", "fell-back"):
        return None
    ratio: Ratio = speedup(before.samples, after.samples)
    return Gain(ratio=ratio.ratio, low=ratio.low, high=ratio.high)

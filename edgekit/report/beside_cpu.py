"""Accelerators beside the CPU: what each gained over the same file there in the same run, and what moving data cost."""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from edgekit.measurement import Accelerator, Measurement, Samples, Verdict
from edgekit.report.numbers import ABSENT, interval, milliseconds, or_absent, percent, significant
from edgekit.report.sections import Cell, Table, Tone, text_cell
from edgekit.results import Run
from edgekit.statistics import Ratio, blocks, ratio_of_medians, summarize


class BesideCpu(BaseModel):
    """One measurement on an accelerator (`run`) beside the same file on the CPU (`cpu_run`) of the same device and run.

    `speedup` is the CPU's time over the accelerator's, inputs written and outputs read, with its 95 % interval `low` to
    `high`: over 1 the accelerator is faster. `moving_share` is the share of its time that writing and reading took, in
    [0, 1]; None where the runtime does both inside its run. `load_ms` is what loading and compiling the file took in a
    fresh process (median), `cached_load_ms` the same with the runtime's own cache of an earlier start.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str
    cpu_run: str
    bundle: str
    device: str
    accelerator: Accelerator
    actual: str
    nodes: int | None
    nodes_on_accelerator: int | None
    verdict: Verdict
    speedup: float
    low: float
    high: float
    in_turns: bool
    moving_share: float | None
    load_ms: float | None
    cached_load_ms: float | None
    cpu_load_ms: float | None

    @property
    def surely_faster(self) -> bool:
        """Whether it is faster than the CPU with 95 % confidence."""
        return self.low > 1

    @property
    def surely_slower(self) -> bool:
        """Whether it is slower than the CPU with 95 % confidence."""
        return self.high < 1


def beside_cpu(runs: Sequence[Run]) -> tuple[BesideCpu, ...]:
    """Every measurement on an accelerator that has one of the same file on the CPU in the same session."""
    found = []
    for run in runs:
        made = run.measurement
        cpu = next((other for other in runs if _is_cpu_of(other, run)), None)
        if made.accelerator != "cpu" and made.samples.latency_ms and cpu:
            found.append(_beside(made, cpu.measurement))
    return tuple(found)


def speedup(a: Samples, b: Samples) -> Ratio:
    """The time of `a` over that of `b`, each with inputs written and outputs read: over 1, `b` is faster."""
    return ratio_of_medians(blocks(_whole(a)), blocks(_whole(b)))


def moving_share(samples: Samples) -> float | None:
    """The share of the time that writing inputs and reading outputs takes; None where it can't be told apart."""
    if not any(samples.transfer_ms):
        return None
    moved = summarize(samples.transfer_ms).p50_ms
    return moved / (moved + summarize(samples.latency_ms).p50_ms)


def speedup_text(ratio: float, low: float, high: float) -> str:
    """A ratio of times as people say it: 2.10× faster (2.05–2.16), 3.02× slower (2.98–3.06)."""
    if low <= 1 <= high:
        return f"no sure difference ({interval(low, high)})"
    if ratio > 1:
        return f"{significant(ratio)}× faster ({interval(low, high)})"
    return f"{significant(1 / ratio)}× slower ({interval(1 / high, 1 / low)})"


def beside_cpu_table(found: Sequence[BesideCpu]) -> Table:
    """Asked for and actual, the gain, and what it costs; one row for each accelerator."""
    headers = ("bundle", "device", "asked for", "ran on", "nodes on it", "verdict", "beside the CPU")
    drifted = [each for each in found if not each.in_turns]
    return Table(
        title="Beside the CPU",
        headers=(*headers, "moving data", "load, cold", "load, cached", "CPU's load"),
        rows=tuple(_row(each) for each in found),
        note="The same file in the same run, inputs written and outputs read, 95 % intervals; load: with compilation, "
        "in fresh processes." + (" Not run in turns: --interleave takes drift out." if drifted else ""),
    )


def _row(each: BesideCpu) -> tuple[Cell, ...]:
    wrong = each.verdict in ("wrong-output", "fell-back")
    tone: Tone = "bad" if each.surely_slower else "good" if each.surely_faster and not wrong else ""
    nodes = ABSENT if each.nodes is None else f"{each.nodes_on_accelerator} of {each.nodes}"
    gained = speedup_text(each.speedup, each.low, each.high)
    return (
        *map(text_cell, (each.bundle, each.device, each.accelerator, each.actual, nodes)),
        text_cell(each.verdict, "bad" if wrong else ""),
        Cell(text=gained, sort=each.speedup, tone=tone),
        Cell(text=or_absent(each.moving_share, percent), sort=each.moving_share),
        *(
            Cell(text=or_absent(value, milliseconds), sort=value)
            for value in (each.load_ms, each.cached_load_ms, each.cpu_load_ms)
        ),
    )


def _is_cpu_of(other: Run, run: Run) -> bool:
    a, b = other.measurement, run.measurement
    return (
        a.accelerator == "cpu"
        and bool(a.samples.latency_ms)
        and other.session == run.session
        and (a.bundle_sha256, a.device.address, a.settings) == (b.bundle_sha256, b.device.address, b.settings)
    )


def _beside(made: Measurement, cpu: Measurement) -> BesideCpu:
    ratio = speedup(cpu.samples, made.samples)
    return BesideCpu(
        run=made.id,
        cpu_run=cpu.id,
        bundle=made.bundle,
        device=made.device.address,
        accelerator=made.accelerator,
        actual=made.coverage.actual,
        nodes=made.coverage.nodes,
        nodes_on_accelerator=made.coverage.nodes_on_accelerator,
        verdict=made.verdict,
        speedup=ratio.ratio,
        low=ratio.low,
        high=ratio.high,
        in_turns=bool(made.samples.rounds and cpu.samples.rounds),
        moving_share=moving_share(made.samples),
        load_ms=_median(made.samples.load_ms),
        cached_load_ms=_median(made.samples.cached_load_ms),
        cpu_load_ms=_median(cpu.samples.load_ms),
    )


def _whole(samples: Samples) -> Samples:
    if len(samples.transfer_ms) != len(samples.latency_ms):
        return samples
    whole = tuple(run + moved for run, moved in zip(samples.latency_ms, samples.transfer_ms, strict=True))
    return samples.model_copy(update={"latency_ms": whole})


def _median(values_ms: Sequence[float]) -> float | None:
    return summarize(values_ms).p50_ms if values_ms else None

"""A beside B: what changed between two measurements, with intervals from their raw samples, and limits on it."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

from edgekit.errors import RefusedError, UnknownNameError
from edgekit.measurement import Measurement, Samples
from edgekit.report.devices import measured_name, report_run
from edgekit.report.document import ReportedRun
from edgekit.results import Run
from edgekit.statistics import blocks, in_turns, ratio_of_medians

Unit = Literal["ms", "B", "points", "per second"]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Change(_Record):
    """One metric of A and of B, in `unit`; None where it was not measured.

    `relative` is B over A, minus 1; `low` and `high` bound it at 95 %, for medians, by a bootstrap of the raw samples
    (turns of A B A B … are drawn in pairs).
    """

    metric: str
    unit: Unit
    a: float | None
    b: float | None
    absolute: float | None = None
    relative: float | None = None
    low: float | None = None
    high: float | None = None


class Check(_Record):
    """One limit, and whether it holds; the message says by how much, or why it could not be checked."""

    limit: str
    passed: bool
    message: str


class Comparison(_Record):
    """What changed from A (the baseline) to B; `remarks` are what makes the two less comparable than they look."""

    a: str
    b: str
    a_name: str
    b_name: str
    changes: tuple[Change, ...]
    remarks: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Metric:
    """How a metric is read from a run; `series` gives raw samples whose medians it compares, in blocks of turns."""

    unit: Unit
    read: Callable[[ReportedRun], float | None]
    series: Callable[[Samples], Sequence[Sequence[float]]] | None = None


def _summary(kind: str, number: str = "p50_ms") -> Callable[[ReportedRun], float | None]:
    """Reads one number of one summary; None where the run has no samples of that kind."""
    return lambda run: getattr(getattr(run, kind), number, None)


def _percent_right(run: ReportedRun) -> float | None:
    accuracy = run.measurement.accuracy
    return None if accuracy is None else 100 * accuracy


def _writing(kind: str, number: str = "p50_ms") -> Callable[[ReportedRun], float | None]:
    """Reads one number of writing at the longest context; None where nothing is written."""
    return lambda run: getattr(getattr(run.writing[-1], kind), number) if run.writing else None


METRICS: dict[str, Metric] = {
    "p50": Metric(unit="ms", read=_summary("latency"), series=blocks),
    "p90": Metric(unit="ms", read=_summary("latency", "p90_ms")),
    "p99": Metric(unit="ms", read=_summary("latency", "p99_ms")),
    "mean": Metric(unit="ms", read=_summary("latency", "mean_ms")),
    "throughput": Metric(unit="per second", read=lambda run: run.per_second),
    "cold-start": Metric(unit="ms", read=_summary("cold_start"), series=lambda samples: [samples.cold_start_ms]),
    "load": Metric(unit="ms", read=_summary("load"), series=lambda samples: [samples.load_ms]),
    "first-inference": Metric(
        unit="ms", read=_summary("first_inference"), series=lambda samples: [samples.first_inference_ms]
    ),
    "first-token": Metric(
        unit="ms",
        read=_writing("first_token"),
        series=lambda samples: in_turns(samples.writing[-1].first_token_ms, samples.writing[-1].rounds),
    ),
    "decode": Metric(
        unit="ms",
        read=_writing("decode"),
        series=lambda samples: in_turns(samples.writing[-1].decode_ms, samples.writing[-1].decode_rounds),
    ),
    "cache": Metric(unit="B", read=lambda run: run.writing[-1].cache_bytes if run.writing else None),
    "memory": Metric(unit="B", read=lambda run: run.memory_bytes),
    "size": Metric(unit="B", read=lambda run: run.measurement.model_size_bytes),
    "accuracy": Metric(unit="points", read=_percent_right),
}
_LIMIT = re.compile(r"\s*([a-z0-9-]+)\s*([<>])\s*([+-]?\d+(?:\.\d+)?)\s*(%|[a-zA-Z]+)?\s*")
_SUFFIXES: dict[str, tuple[Unit, float]] = {
    "ms": ("ms", 1),
    "s": ("ms", 1000),
    "B": ("B", 1),
    "kB": ("B", 1e3),
    "MB": ("B", 1e6),
    "points": ("points", 1),
}


@dataclass(frozen=True, kw_only=True)
class Limit:
    """`p50>5%`: B fails where its change from A is over (or under) `bound`, a share of A's or in the metric's unit."""

    text: str
    metric: str
    over: bool
    bound: float
    relative: bool


def parse_limit(text: str) -> Limit:
    """One limit as `--fail-on` takes it: METRIC, > or <, and the change: in %, or in ms, B, kB, MB, points.

    Raises RefusedError where it is none, UnknownNameError for an unknown metric.
    """
    found = _LIMIT.fullmatch(text)
    if not found:
        raise RefusedError(f"{text!r} is no limit: write a metric, > or <, and a change, like p50>5% or accuracy<-0.2")
    metric, sign, number, suffix = found.groups()
    if metric not in METRICS:
        raise UnknownNameError("metric", metric, METRICS)
    bound, relative = float(number), suffix == "%"
    if suffix and not relative:
        unit, factor = _SUFFIXES.get(suffix, (None, 1.0))
        if unit != METRICS[metric].unit:
            raise RefusedError(f"{text!r}: {metric} changes by % or in {METRICS[metric].unit}, not in {suffix}")
        bound *= factor
    bound = bound / 100 if relative else bound
    return Limit(text=text.strip(), metric=metric, over=sign == ">", bound=bound, relative=relative)


def compare_runs(a: Run, b: Run, limits: Sequence[Limit] = ()) -> Comparison:
    """Compare two runs, A the baseline, and check the limits."""
    first, second = report_run(a), report_run(b)
    changes = {name: _change(name, metric, first, second) for name, metric in METRICS.items()}
    checks = [_check_verdict(b.measurement)] if limits else []
    return Comparison(
        a=a.measurement.id,
        b=b.measurement.id,
        a_name=measured_name(a.measurement),
        b_name=measured_name(b.measurement),
        changes=tuple(change for change in changes.values() if change.a is not None or change.b is not None),
        remarks=tuple(_remarks(a.measurement, b.measurement)),
        checks=(*checks, *(check_limit(limit, changes[limit.metric]) for limit in limits)),
    )


def _change(name: str, metric: Metric, a: ReportedRun, b: ReportedRun) -> Change:
    before, after = metric.read(a), metric.read(b)
    change = Change(metric=name, unit=metric.unit, a=before, b=after)
    if before is None or after is None:
        return change
    numbers = {"absolute": after - before, "relative": after / before - 1 if before else None}
    if metric.series:
        ratio = ratio_of_medians(metric.series(b.measurement.samples), metric.series(a.measurement.samples))
        numbers |= {"relative": ratio.ratio - 1, "low": ratio.low - 1, "high": ratio.high - 1}
    return change.model_copy(update=numbers)


def check_limit(limit: Limit, change: Change) -> Check:
    """A limit fails where the change is beyond it and, if the change has an interval, is surely a change at all.

    What was not measured can't be checked, and so fails.
    """
    value = change.relative if limit.relative else change.absolute
    if value is None:
        missing = "A" if change.a is None else "B"
        return Check(limit=limit.text, passed=False, message=f"{limit.metric} of {missing} was not measured")
    shown = f"{100 * value:+.2f} %" if limit.relative else f"{value:+.4g} {change.unit}"
    beyond = value > limit.bound if limit.over else value < limit.bound
    if not beyond:
        return Check(limit=limit.text, passed=True, message=f"{limit.metric} changed by {shown}")
    if change.low is not None and change.high is not None:
        bounds = f"{100 * change.low:+.2f} to {100 * change.high:+.2f} %"
        if change.low <= 0 <= change.high:
            message = f"{limit.metric} changed by {shown}, which may be chance (95 %: {bounds}): measure more to know"
            return Check(limit=limit.text, passed=True, message=message)
        shown = f"{shown} (95 %: {bounds})"
    return Check(limit=limit.text, passed=False, message=f"{limit.metric} changed by {shown}")


def _check_verdict(b: Measurement) -> Check:
    """Nothing that gives wrong outputs, or ran elsewhere than asked, passes for its speed."""
    wrong = b.verdict in ("wrong-output", "fell-back")
    message = f"B is {b.verdict}" + (f": {'. '.join(b.evidence)}" if wrong and b.evidence else "")
    return Check(limit="verdict", passed=not wrong, message=message)


def _remarks(a: Measurement, b: Measurement) -> list[str]:
    remarks = [
        f"{name} is {made.verdict}: {'. '.join(made.evidence) or 'no evidence was kept'}"
        for name, made in (("A", a), ("B", b))
        if made.verdict != "valid"
    ]
    if a.device.address != b.device.address:
        remarks.append(f"A ran on {a.device.address}, B on {b.device.address}")
    elif a.fingerprint != b.fingerprint:
        remarks.append(f"A and B differ in more than the file: {_what_differs(a, b)}")
    if a.settings != b.settings:
        mine, other = a.settings.model_dump(), b.settings.model_dump()
        names = ", ".join(name.replace("_", " ") for name in mine if mine[name] != other[name])
        remarks.append(f"A and B were measured with different settings: {names}")
    if not (a.samples.rounds and b.samples.rounds):
        remarks.append("A and B were not run in turns: drift of the device between them is in the change")
    return remarks


def _what_differs(a: Measurement, b: Measurement) -> str:
    """The parts of device and tools that two fingerprints were made of, where they differ."""
    pairs = {
        "runtime": (f"{a.runtime} {a.runtime_version}", f"{b.runtime} {b.runtime_version}"),
        "tool": (a.tool, b.tool),
        "accelerator": (a.accelerator, b.accelerator),
        **{
            name: (value, getattr(b.device, name))
            for name, value in a.device
            if name in ("model", "soc", "os", "cores")
        },
    }
    differing = [f"{name} {first}, {second}" for name, (first, second) in pairs.items() if first != second]
    return "; ".join(differing) or "the device or the settings (their fingerprints differ)"


def pair_runs(a: Sequence[Run], b: Sequence[Run]) -> tuple[list[tuple[Run, Run]], list[str]]:
    """Pair the runs of two labels, each newest first: one with one, or those alike in all but the file's content.

    Returns the pairs, and a sentence for each run that has no partner.
    """
    if len(a) == len(b) == 1:
        return [(a[0], b[0])], []
    first, second = _newest(a), _newest(b)
    pairs = [(run, second[key]) for key, run in first.items() if key in second]
    alone = [(run, "B") for key, run in first.items() if key not in second]
    alone += [(run, "A") for key, run in second.items() if key not in first]
    return pairs, [f"{measured_name(run.measurement)} has no partner in {side}: it was left out" for run, side in alone]


def _newest(runs: Sequence[Run]) -> dict[tuple[str, str, str, int], Run]:
    newest: dict[tuple[str, str, str, int], Run] = {}
    for run in runs:
        made = run.measurement
        newest.setdefault((made.bundle, made.device.address, made.accelerator, made.settings.num_threads), run)
    return newest

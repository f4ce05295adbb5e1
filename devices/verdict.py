"""The verdict of a measurement, with the sentences that it rests on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from edgekit.devices.accelerators import NNAPI_ADVICE, describe_coverage, fallen_back
from edgekit.devices.conditions import hottest
from edgekit.measurement import Accelerator, Conditions, Coverage, DeviceParity, Samples, Verdict
from edgekit.statistics import summarize, trend

#: what makes a measurement doubtful; shares, degrees and counts that a quiet device does not reach
TREND = 0.05
SPREAD = 0.30
INTERVAL = 0.05
HEATING_C = 10.0
CLOCK_DROP = 0.10
FEW_SAMPLES = 10
_THROTTLE_BITS = {0: "under-voltage", 1: "frequency capped", 2: "throttled", 3: "soft temperature limit"}
_STATUS = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")

Finding = tuple[Verdict, str]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a verdict is made of; `groups` tells which samples did the same work (the same signature)."""

    accelerator: Accelerator
    coverage: Coverage
    parity: DeviceParity
    samples: Samples
    before: Conditions
    after: Conditions
    groups: Sequence[int] = ()
    cores: int | None = None
    warm: bool = True
    fault: str = ""


def judge(facts: Facts) -> tuple[Verdict, tuple[str, ...]]:
    """The verdict and its evidence: the gravest finding decides, all of them are told.

    From the gravest: wrong-output, fell-back, unproven, throttled, noisy; valid where there is no finding.
    """
    findings = [*_parity(facts), *_coverage(facts), *_proof(facts), *_throttling(facts), *_noise(facts)]
    if findings:
        return findings[0][0], (*(sentence for _, sentence in findings), *_taken(facts))
    return "valid", (*_confirmation(facts), *_taken(facts))


def relative(latency_ms: Sequence[float], groups: Sequence[int]) -> list[float]:
    """Each sample over the median of its group: what is left is not the length of the text."""
    values = np.asarray(latency_ms, dtype=np.float64)
    if len(groups) != len(values):
        return list(values / np.median(values)) if len(values) else []
    marks = np.asarray(groups)
    for mark in np.unique(marks):
        values[marks == mark] /= np.median(values[marks == mark])
    return list(values)


def _parity(facts: Facts) -> Iterator[Finding]:
    parity = facts.parity
    if parity.verdict != "failed":
        return
    if parity.max_abs_difference is None:
        yield "wrong-output", f"outputs on this device are wrong: {parity.note or 'they can not be compared'}"
        return
    difference = f"|Δ| {parity.max_abs_difference:.2g} with a tolerance of {parity.tolerance:.2g}"
    labels = f", {parity.labels_changed} of {parity.steps} labels changed"
    yield "wrong-output", f"outputs on this device are not the model's: {difference}{labels}"


def _coverage(facts: Facts) -> Iterator[Finding]:
    if sentence := fallen_back(facts.accelerator, facts.coverage):
        yield "fell-back", sentence


def _taken(facts: Facts) -> Iterator[str]:
    """What an accelerator took of the work, whatever the verdict; that it took too little is a finding of its own."""
    if facts.accelerator == "cpu":
        return
    if not fallen_back(facts.accelerator, facts.coverage):
        yield describe_coverage(facts.accelerator, facts.coverage)
    if facts.accelerator == "nnapi":
        yield NNAPI_ADVICE


def _throttling(facts: Facts) -> Iterator[Finding]:
    before, after = facts.before, facts.after
    if after.throttled is not None:
        fresh = after.throttled & 0xF | (after.throttled & ~(before.throttled or 0)) >> 16 & 0xF
        said = ", ".join(word for bit, word in _THROTTLE_BITS.items() if fresh >> bit & 1)
        if said:
            yield "throttled", f"the board reports {said} (get_throttled {after.throttled:#x})"
    status = max(before.thermal_status or 0, after.thermal_status or 0)
    if status:
        name = _STATUS[min(status, len(_STATUS) - 1)]
        yield "throttled", f"the phone reports thermal status {status} ({name})"
    slower = _slowdown(facts)
    if slower <= TREND:
        return
    heat = (hottest(before), hottest(after))
    if heat[0] is not None and heat[1] is not None and heat[1] - heat[0] >= HEATING_C:
        yield "throttled", f"it went from {heat[0]:.1f} to {heat[1]:.1f} °C and became {100 * slower:.0f} % slower"
    clocks = (max(before.frequencies_mhz, default=0), max(after.frequencies_mhz, default=0))
    if clocks[0] and clocks[1] < (1 - CLOCK_DROP) * clocks[0]:
        clock = f"its clock fell from {clocks[0]:.0f} to {clocks[1]:.0f} MHz"
        yield "throttled", f"{clock} and it became {100 * slower:.0f} % slower"


def _slowdown(facts: Facts) -> float:
    """How much slower the end was than the start, of the samples or of a sustained curve, whichever is worse."""
    found = [trend(relative(facts.samples.latency_ms, facts.groups))] if facts.samples.latency_ms else [0.0]
    curve = [median_ms for _, median_ms, _ in facts.samples.curve]
    return max(*found, trend(curve) if len(curve) >= 4 else 0.0)


def _noise(facts: Facts) -> Iterator[Finding]:
    samples = facts.samples.latency_ms
    if len(samples) < FEW_SAMPLES:
        yield "noisy", f"only {len(samples)} samples were taken"
        return
    summary = summarize(relative(samples, facts.groups))
    moved = _slowdown(facts)
    drift = trend(relative(samples, facts.groups))
    worst = moved if moved > -drift else drift
    if abs(worst) > TREND:
        yield "noisy", f"the median moved by {100 * worst:+.0f} % from the first quarter of the time to the last"
    if summary.p90_ms / summary.p50_ms - 1 > SPREAD:
        spread = 100 * (summary.p90_ms / summary.p50_ms - 1)
        yield "noisy", f"one run in ten took {spread:.0f} % longer than the median, or more"
    width = (summary.high_ms - summary.low_ms) / summary.p50_ms
    if width > INTERVAL:
        yield "noisy", f"the 95 % interval of the median is {100 * width:.0f} % wide"
    load = facts.before.load_1min
    if load is not None and facts.cores and load > facts.cores:
        yield "noisy", f"other programs were running: load {load:.1f} on {facts.cores} cores before the start"
    if not facts.warm:
        yield "noisy", "it was not stable by the end of the warm-up"


def _proof(facts: Facts) -> Iterator[Finding]:
    if facts.fault:
        yield "unproven", f"cut short: {facts.fault}"
    if facts.parity.verdict == "not-run":
        yield "unproven", f"the outputs on this device were not compared: {facts.parity.note or 'they can not be had'}"


def _confirmation(facts: Facts) -> Iterator[str]:
    """What makes a measurement valid, in numbers."""
    parity, summary = facts.parity, summarize(facts.samples.latency_ms)
    difference = f"|Δ| {parity.max_abs_difference:.2g}, tolerance {parity.tolerance:.2g}"
    precision = f"; {parity.note}" if parity.note else ""
    yield f"the outputs of {parity.steps} steps are the model's ({difference}{precision})"
    yield f"{summary.count} samples, 95 % interval of the median {summary.low_ms:.4g} to {summary.high_ms:.4g} ms"
    moved = trend(relative(facts.samples.latency_ms, facts.groups))
    yield f"the median moved by {100 * moved:+.1f} % from the first quarter to the last"
    heat = hottest(facts.after)
    yield f"no throttling reported, {heat:.1f} °C at the end" if heat is not None else "the device tells no temperature"

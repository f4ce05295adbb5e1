"""Statistics of latency samples: summaries, and ratios of candidates that were run in turns, with bootstrap intervals.

Everything is computed with a fixed seed: the same samples give the same numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.measurement import Samples

DRAWS = 2000
_SEED = 0

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What samples say: all in ms; `low_ms` and `high_ms` bound the 95 % bootstrap interval of the median."""

    count: int
    mean_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    deviation_ms: float
    low_ms: float
    high_ms: float


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """Median of one candidate over that of another, and its 95 % bootstrap interval."""

    ratio: float
    low: float
    high: float


def blocks(samples: Samples) -> list[list[float]]:
    """`latency_ms` split into the turns in which it was measured; one block where it was not interleaved."""
    return in_turns(samples.latency_ms, samples.rounds)


def in_turns(samples_ms: Sequence[float], rounds: Sequence[int]) -> list[list[float]]:
    """Samples split into the turns in which they were measured; one block where `rounds` does not tell."""
    if len(rounds) != len(samples_ms):
        return [list(samples_ms)] if samples_ms else []
    split: dict[int, list[float]] = {}
    for turn, value in zip(rounds, samples_ms, strict=True):
        split.setdefault(turn, []).append(value)
    return [split[turn] for turn in sorted(split)]


def summarize(samples_ms: Sequence[float]) -> Summary:
    """Mean, percentiles (linear between ranks), sample deviation and the interval of the median.

    Raises ValueError for no samples.
    """
    values = _values(samples_ms)
    medians = _bootstrap_medians(values, np.random.default_rng(_SEED))
    p50, p90, p99 = (float(value) for value in np.percentile(values, (50, 90, 99)))
    low, high = _interval(medians)
    return Summary(
        count=len(values),
        mean_ms=float(values.mean()),
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
        deviation_ms=float(values.std(ddof=1)) if len(values) > 1 else 0.0,
        low_ms=min(low, p50),
        high_ms=max(high, p50),
    )


def ratio_of_medians(a_blocks: Sequence[Sequence[float]], b_blocks: Sequence[Sequence[float]]) -> Ratio:
    """The median of `a` over that of `b`; each block holds the samples of one turn of A B A B ….

    With the same number of blocks, more than one, turns are drawn in pairs: the ratio of each pair is free of a drift
    that both saw, and what differs from process to process is in the interval. Otherwise all samples of each side are
    drawn on their own. Raises ValueError where a side has no samples.
    """
    a = [_values(block) for block in a_blocks if len(block)]
    b = [_values(block) for block in b_blocks if len(block)]
    if not a or not b:
        raise ValueError("no samples on one side of the ratio")
    generator = np.random.default_rng(_SEED)
    if len(a) == len(b) > 1:
        logs = np.log([np.median(x) / np.median(y) for x, y in zip(a, b, strict=True)])
        draws = generator.integers(0, len(logs), (DRAWS, len(logs)))
        low, high = _interval(np.exp(np.median(logs[draws], axis=1)))
        return _ratio(float(np.exp(np.median(logs))), low, high)
    whole_a, whole_b = np.concatenate(a), np.concatenate(b)
    low, high = _interval(_bootstrap_medians(whole_a, generator) / _bootstrap_medians(whole_b, generator))
    return _ratio(float(np.median(whole_a) / np.median(whole_b)), low, high)


def trend(samples_ms: Sequence[float]) -> float:
    """How the median moved from the first quarter of the samples to the last, as a share of the first (0.1: slower)."""
    values = _values(samples_ms)
    quarter = max(1, len(values) // 4)
    first, last = float(np.median(values[:quarter])), float(np.median(values[-quarter:]))
    return last / first - 1 if first else 0.0


def _ratio(ratio: float, low: float, high: float) -> Ratio:
    return Ratio(ratio=ratio, low=min(low, ratio), high=max(high, ratio))


def _values(samples_ms: Sequence[float]) -> Floats:
    if not len(samples_ms):
        raise ValueError("no samples")
    return np.asarray(samples_ms, dtype=np.float64)


def _bootstrap_medians(values: Floats, generator: np.random.Generator) -> Floats:
    """Medians of DRAWS resamples, drawn as order statistics: ranks of a resampled median, without the resample.

    The rank of the median of n draws from n sorted values is n times a Beta-distributed quantile.
    """
    ordered = np.sort(values)
    n = len(ordered)
    middle = (n + 1) / 2
    quantiles = generator.beta(middle, n + 1 - middle, DRAWS)
    return ordered[np.minimum((quantiles * n).astype(np.intp), n - 1)]


def _interval(values: Floats) -> tuple[float, float]:
    low, high = np.percentile(values, (2.5, 97.5))
    return float(low), float(high)

"""Statistics of samples: against numpy on whole resamples, against known distributions, and on their own word."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.measurement import Samples
from edgekit.statistics import blocks, ratio_of_medians, summarize, trend

LATENCIES = st.lists(st.floats(0.01, 1e4), min_size=1, max_size=200)


def lognormal(seed: int, count: int, median: float = 1.0, spread: float = 0.1) -> list[float]:
    return (median * np.exp(spread * np.random.default_rng(seed).standard_normal(count))).tolist()


def test_a_summary_is_numpys() -> None:
    values = lognormal(1, 501)
    summary = summarize(values)
    assert summary.count == 501
    assert summary.mean_ms == pytest.approx(np.mean(values))
    assert (summary.p50_ms, summary.p90_ms, summary.p99_ms) == pytest.approx(np.percentile(values, (50, 90, 99)))
    assert summary.deviation_ms == pytest.approx(np.std(values, ddof=1))


def test_the_interval_is_that_of_whole_resamples() -> None:
    """The order statistics drawn from a Beta distribution are the medians of resamples with replacement."""
    values = np.array(lognormal(2, 301))
    generator = np.random.default_rng(9)
    resampled = [np.median(generator.choice(values, 301)) for _ in range(4000)]
    low, high = np.percentile(resampled, (2.5, 97.5))
    summary = summarize(values)
    assert summary.low_ms == pytest.approx(low, rel=0.004)
    assert summary.high_ms == pytest.approx(high, rel=0.004)


def test_the_interval_holds_the_true_median_nineteen_times_of_twenty() -> None:
    held = sum(s.low_ms <= 1 <= s.high_ms for s in (summarize(lognormal(seed, 101)) for seed in range(300)))
    assert 0.91 <= held / 300 <= 0.985


@given(LATENCIES)
def test_a_summary_is_in_order_and_repeatable(values: list[float]) -> None:
    summary = summarize(values)
    assert summary == summarize(values)
    assert min(values) <= summary.low_ms <= summary.p50_ms <= summary.high_ms <= max(values)
    assert summary.p50_ms <= summary.p90_ms <= summary.p99_ms <= max(values)


def test_one_sample_and_none() -> None:
    one = summarize([3.0])
    assert (one.p50_ms, one.low_ms, one.high_ms, one.deviation_ms) == (3, 3, 3, 0)
    with pytest.raises(ValueError, match="no samples"):
        summarize([])
    with pytest.raises(ValueError, match="no samples"):
        ratio_of_medians([[1.0]], [[]])


def test_a_ratio_of_equals_holds_one_and_of_others_does_not() -> None:
    a, b, slower = lognormal(1, 400), lognormal(2, 400), lognormal(3, 400, median=1.1)
    equal, other = ratio_of_medians([a], [b]), ratio_of_medians([slower], [b])
    assert equal.low < 1 < equal.high
    assert 1 < other.low < 1.1 < other.high


def test_a_drift_that_both_saw_is_not_in_the_ratio_of_turns() -> None:
    """The machine gets three times slower on the way; A is 5 % slower than B in each turn."""
    drift = np.linspace(1, 3, 10)
    a = [lognormal(i, 50, median=1.05 * d, spread=0.01) for i, d in enumerate(drift)]
    b = [lognormal(100 + i, 50, median=d, spread=0.01) for i, d in enumerate(drift)]
    in_turns = ratio_of_medians(a, b)
    assert 1.04 < in_turns.low < in_turns.high < 1.06
    at_once = ratio_of_medians([np.concatenate(a).tolist()], [np.concatenate(b).tolist()])
    assert at_once.high - at_once.low > 5 * (in_turns.high - in_turns.low)


def test_a_difference_between_processes_widens_the_ratio_of_turns() -> None:
    """One of the turns of A was 20 % slower throughout: many samples, yet no certainty."""
    a = [lognormal(i, 500, median=median, spread=0.01) for i, median in enumerate((1, 1.2, 1, 1.1))]
    b = [lognormal(50 + i, 500, spread=0.01) for i in range(4)]
    ratio = ratio_of_medians(a, b)
    assert ratio.low < 1.02
    assert ratio.high > 1.1


def test_blocks_are_turns() -> None:
    samples = Samples(latency_ms=(1, 2, 3, 4), steps=(0, 1, 0, 1), rounds=(0, 1, 0, 1))
    assert blocks(samples) == [[1, 3], [2, 4]]
    assert blocks(Samples(latency_ms=(1, 2))) == [[1, 2]]
    assert blocks(Samples()) == []


def test_a_trend() -> None:
    assert trend([1.0] * 100) == 0
    assert trend([*[1.0] * 50, *[1.3] * 50]) == pytest.approx(0.3)

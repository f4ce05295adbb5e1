"""A beside B: the changes are computed from raw samples, and limits fail when, and only when, they should."""

import json
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import RefusedError, UnknownNameError
from edgekit.measurement import DeviceFacts, Measurement
from edgekit.report.comparison import Change, Comparison, check_limit, compare_runs, pair_runs, parse_limit
from edgekit.report.comparison_view import comparisons_junit, comparisons_markdown
from edgekit.results import Run
from tests.measurements import fallen_back, measurement, samples


def run(median_ms: float = 3.0, label: str = "", **changes: object) -> Run:
    return Run(measurement=measurement(median_ms, **changes), label=label)


def change_of(comparison: Comparison, metric: str) -> Change:
    return next(change for change in comparison.changes if change.metric == metric)


def test_changes_are_those_of_the_raw_samples() -> None:
    a, b = run(3.0), run(3.3, seed=2, accuracy=0.8958, model_size_bytes=1_000_000)
    compared = compare_runs(a, b)
    medians = [float(np.median(each.measurement.samples.latency_ms)) for each in (a, b)]
    p50 = change_of(compared, "p50")
    assert (p50.a, p50.b) == tuple(medians)
    assert p50.relative == pytest.approx(medians[1] / medians[0] - 1)
    assert p50.low is not None
    assert p50.high is not None
    assert 0.05 < p50.low < 0.1 < p50.high < 0.15
    p90 = change_of(compared, "p90")
    assert p90.b == float(np.percentile(b.measurement.samples.latency_ms, 90))
    assert change_of(compared, "accuracy").absolute == pytest.approx(-0.5)
    assert change_of(compared, "size").relative == pytest.approx(1_000_000 / 3_760_000 - 1)


def test_the_same_samples_have_no_sure_change() -> None:
    p50 = change_of(compare_runs(run(seed=1), run(seed=2)), "p50")
    assert p50.low is not None
    assert p50.high is not None
    assert p50.low <= 0 <= p50.high


def in_turns(base: float, factor: float, drift: float) -> Measurement:
    """Five turns of a device that gets slower: each turn `drift` slower than the one before."""
    values = [
        v for turn in range(5) for v in samples(base * factor * (1 + drift * turn), count=40, seed=turn).latency_ms
    ]
    return measurement(samples=samples(latency_ms=tuple(values), rounds=tuple(i // 40 for i in range(200)), steps=()))


def test_turns_take_drift_out_of_the_change() -> None:
    a, b = Run(measurement=in_turns(3, 1.0, 0.2)), Run(measurement=in_turns(3, 1.04, 0.2))
    turned = change_of(compare_runs(a, b), "p50")
    assert turned.low is not None
    assert turned.low > 0
    assert turned.relative == pytest.approx(0.04, abs=0.01)
    no_turns = [
        Run(
            measurement=each.measurement.model_copy(
                update={"samples": samples(latency_ms=each.measurement.samples.latency_ms)}
            )
        )
        for each in (a, b)
    ]
    mixed = change_of(compare_runs(*no_turns), "p50")
    assert mixed.low is not None
    assert mixed.low < 0


@pytest.mark.parametrize(
    ("text", "metric", "over", "bound", "relative"),
    [
        ("p50>5%", "p50", True, 0.05, True),
        (" size > 2 % ", "size", True, 0.02, True),
        ("accuracy<-0.2", "accuracy", False, -0.2, False),
        ("accuracy<-0.2points", "accuracy", False, -0.2, False),
        ("cold-start>0.1s", "cold-start", True, 100, False),
        ("size>10kB", "size", True, 10_000, False),
        ("throughput<-3%", "throughput", False, -0.03, True),
    ],
)
def test_limits_are_read(text: str, metric: str, over: bool, bound: float, relative: bool) -> None:
    limit = parse_limit(text)
    assert (limit.metric, limit.over, limit.bound, limit.relative) == (metric, over, pytest.approx(bound), relative)


@pytest.mark.parametrize(
    "text", ["p50", "p50>", "p50=5%", "p50>=5%", "p50>5%%", "p50>5kB", "accuracy<-1ms", "size>2x", ""]
)
def test_what_is_no_limit_is_refused(text: str) -> None:
    with pytest.raises(RefusedError, match=r"limit|changes by"):
        parse_limit(text)


def test_an_unknown_metric_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean accuracy"):
        parse_limit("acuracy<-1")


@given(st.text(max_size=12))
def test_no_text_breaks_the_reader_of_limits(text: str) -> None:
    try:
        parse_limit(text)
    except (RefusedError, UnknownNameError):
        return


def failed(comparison: Comparison) -> list[str]:
    return [check.limit for check in comparison.checks if not check.passed]


def test_limits_fail_on_what_surely_got_worse() -> None:
    limits = [parse_limit(text) for text in ("p50>5%", "size>2%", "accuracy<-0.2", "p90>50%")]
    worse = run(3.6, seed=2, model_size_bytes=3_900_000, accuracy=0.8958)
    assert failed(compare_runs(run(), worse, limits)) == ["p50>5%", "size>2%", "accuracy<-0.2"]
    assert failed(compare_runs(worse, run(), limits)) == []


def test_a_change_that_may_be_chance_does_not_fail_and_says_so() -> None:
    few = [run(samples=samples(latency_ms=values)) for values in ((3.0, 3.1, 5.9), (3.2, 6.1, 2.8))]
    (check,) = [c for c in compare_runs(*few, [parse_limit("p50>1%")]).checks if c.limit == "p50>1%"]
    assert check.passed
    assert "may be chance" in check.message


def test_what_was_not_measured_can_not_pass() -> None:
    comparison = compare_runs(run(), run(accuracy=None), [parse_limit("accuracy<-1")])
    assert failed(comparison) == ["accuracy<-1"]
    assert comparison.checks[-1].message == "accuracy of B was not measured"


def test_nothing_wrong_passes_for_its_speed() -> None:
    limits = [parse_limit("p50>5%")]
    assert failed(compare_runs(run(9), Run(measurement=fallen_back(1.0)), limits)) == ["verdict"]
    assert failed(compare_runs(run(9), run(1, verdict="wrong-output"), limits)) == ["verdict"]
    assert failed(compare_runs(run(9), run(1, verdict="noisy"), limits)) == []


def test_a_limit_at_its_bound_holds() -> None:
    change = Change(metric="size", unit="B", a=100, b=102, absolute=2, relative=0.02)
    assert check_limit(parse_limit("size>2%"), change).passed
    assert not check_limit(parse_limit("size>1.9%"), change).passed


def test_what_makes_two_runs_less_comparable_is_said() -> None:
    other = DeviceFacts(address="local")
    remarks = compare_runs(run(), run(device=other, verdict="throttled", evidence=("bit 2 was set",))).remarks
    assert "B is throttled: bit 2 was set" in remarks
    assert "A ran on ssh:pi@board, B on local" in remarks
    assert any("not run in turns" in remark for remark in remarks)
    assert any("fingerprints" in remark for remark in compare_runs(run(), run(fingerprint="0")).remarks)
    other_runtime = run(fingerprint="0", runtime="onnxruntime", runtime_version="1.31")
    assert any("runtime litert 2.3.0, onnxruntime 1.31" in line for line in compare_runs(run(), other_runtime).remarks)


def test_runs_of_two_labels_are_paired_by_what_is_alike() -> None:
    a = [run(label="main", bundle=name) for name in ("x", "y", "x")]
    b = [run(label="pr", bundle=name) for name in ("y", "z")]
    pairs, alone = pair_runs(a, b)
    assert [(first.measurement.bundle, second.measurement.bundle) for first, second in pairs] == [("y", "y")]
    assert [line.split(" ")[0] for line in alone] == ["x", "z"]
    assert pair_runs(a[:1], b[:1])[0] == [(a[0], b[0])]


def test_markdown_and_junit_say_the_same_and_take_any_name() -> None:
    hostile = '<b>&"\x00|*x*\ud7ff'
    comparison = compare_runs(
        run(bundle=hostile), run(4.5, bundle=hostile), [parse_limit("p50>5%"), parse_limit("size>2%")]
    )
    shown = comparisons_markdown([comparison])
    assert "<b>" not in shown
    assert "| p50>5% | FAILED |" in shown
    tree = ElementTree.fromstring(comparisons_junit([comparison]))
    assert (tree.get("tests"), tree.get("failures")) == ("3", "1")
    assert [case.get("name") for case in tree.iter("testcase") if case.find("failure") is not None] == ["p50>5%"]
    assert json.loads(comparison.model_dump_json())["checks"][1]["passed"] is False

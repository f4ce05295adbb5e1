"""Trials: what helped and what did not, from measurements whose ratio is known."""

import pytest

from edgekit.measurement import Measurement
from edgekit.report.trials import Result, judge_trial, trials_table
from tests.measurements import fallen_back, measurement

NAMES = {name: name for name in ("bundle", "device", "accelerator", "variant", "because")}
SLOW, FAST = measurement(9.0), measurement(3.0, seed=2)
WRONG = measurement(3.0, verdict="wrong-output", evidence=("its outputs are not the model's",))


@pytest.mark.parametrize(
    ("variant", "bundle", "result"),
    [
        (FAST, SLOW, "helped"),
        (SLOW, FAST, "did not help"),
        (measurement(3.0, seed=3), FAST, "did not help"),
        (SLOW, WRONG, "helped"),
        (SLOW, fallen_back(), "helped"),
        (SLOW, None, "helped"),
        (WRONG, SLOW, "wrong"),
        (fallen_back(), SLOW, "wrong"),
        (None, SLOW, "could not be tried"),
    ],
)
def test_results(variant: Measurement | None, bundle: Measurement | None, result: Result) -> None:
    trial = judge_trial(variant=variant, bundle=bundle, cpu=None, note="", names=NAMES)
    assert trial.result == result


def test_nothing_wrong_is_compared_with() -> None:
    trial = judge_trial(variant=FAST, bundle=WRONG, cpu=SLOW, note="", names=NAMES)
    assert trial.over_bundle is None
    assert trial.over_cpu is not None
    assert trial.over_cpu.ratio == pytest.approx(3, rel=0.05)


def test_the_table_says_why_and_what_came_of_it() -> None:
    trials = [
        judge_trial(variant=FAST, bundle=SLOW, cpu=SLOW, note="", names=NAMES),
        judge_trial(variant=None, bundle=SLOW, cpu=None, note="it can't be exported", names=NAMES),
    ]
    first, second = (" ".join(cell.text for cell in row) for row in trials_table(trials).rows)
    assert "helped" in first
    assert "× faster" in first
    assert "it can't be exported" in second

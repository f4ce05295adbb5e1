"""Search: near the optimum of all recipes, resumable, and clear where nothing can be found."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path

import pytest

from edgekit.errors import RefusedError
from edgekit.export.quantize.knapsack import Option, least_damaging
from edgekit.export.quantize.local_engine import run_batches
from edgekit.export.quantize.mixture import takes
from edgekit.export.quantize.modules import source_modules
from edgekit.export.quantize.scores import Score
from edgekit.export.quantize.search import Limits, Search
from edgekit.export.quantize.sweep import RunBatches, Sweep, prepare_sweep, run_sweep
from edgekit.export.recipes import recipe_of
from tests.export.sweeps import self_labelled_checkpoint

SCHEME = "int4-weight"
EVERYTHING = Limits(max_drop=100)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    folder = tmp_path_factory.mktemp("search")
    checkpoint = self_labelled_checkpoint(folder)
    return prepare_sweep(checkpoint, "tflite", eval_samples=None, calibration=None, parent=folder)


@pytest.fixture(scope="module")
def every_recipe(sweep: Sweep) -> list[Score]:
    """All 256 ways to give each module int4 or float32, really made and run."""
    modules = [m for m in source_modules(sweep.checkpoint.config) if takes("tflite", SCHEME, m)]
    assert len(modules) == 8
    choices = product(("none", SCHEME), repeat=len(modules))
    recipes = [recipe_of("all", "tflite", dict(zip(modules, choice, strict=True))) for choice in choices]
    return run_sweep(sweep, recipes, run_batches, batch_size=32)


@pytest.mark.parametrize("max_drop", [4.0, 8.0, 12.0, 16.0, 20.0, 25.0, 30.0])
def test_the_recipe_found_is_within_3_percent_of_the_best_of_all(
    sweep: Sweep, every_recipe: list[Score], max_drop: float
) -> None:
    limits = Limits(max_drop=max_drop)
    best = min(score.size_bytes for score in every_recipe if limits.allow(score))
    found = Search(sweep, [SCHEME], limits, run_batches).run()
    assert found.best is not None
    assert limits.allow(found.best)
    assert found.best.size_bytes <= 1.03 * best
    assert found.evaluated <= len(every_recipe) // 2
    whole = next(score for score in found.uniforms if score.recipe.scheme == SCHEME)
    assert limits.allow(whole) == (found.best_uniform == whole)


def test_the_budgets_tried_lie_between_the_uniform_schemes(every_recipe: list[Score]) -> None:
    """Neither float32 nor int4 of everything is the answer to all of them."""
    drops = sorted(score.drop or 0.0 for score in every_recipe)
    assert drops[0] == 0
    assert drops[-1] > 25


def test_a_search_that_was_interrupted_repeats_nothing(sweep: Sweep, tmp_path: Path) -> None:
    fresh = prepare_sweep(sweep.checkpoint, "tflite", eval_samples=50, calibration=None, parent=tmp_path)
    asked: list[str] = []

    def interrupted_after(batches: int) -> RunBatches:
        def run(sweep: Sweep, work: Sequence[Sequence[object]], timed: bool, keep: object) -> None:
            for batch in work:
                if len(asked) >= batches:
                    raise KeyboardInterrupt
                asked.append(str(batch))
                run_batches(sweep, [batch], timed, keep)  # type: ignore[list-item, arg-type]

        return run  # type: ignore[return-value]

    with pytest.raises(KeyboardInterrupt):
        Search(fresh, [SCHEME], EVERYTHING, interrupted_after(2)).run()
    first = list(asked)
    found = Search(fresh, [SCHEME], EVERYTHING, interrupted_after(1000)).run()
    assert found.best is not None
    assert len(first) == 2
    assert len(set(asked)) == len(asked)
    lines = (fresh.folder / "scores.jsonl").read_text().splitlines()
    assert (
        len(lines)
        == found.evaluated
        == len({Score.model_validate_json(line).recipe.model_dump_json() for line in lines})
    )


def test_budgets_that_nothing_keeps_are_refused(sweep: Sweep, every_recipe: list[Score]) -> None:
    smallest = min(score.size_bytes for score in every_recipe)
    with pytest.raises(RefusedError, match=rf"the smallest, of int4-weight, has {smallest} bytes, not 1000 or fewer"):
        Search(sweep, [SCHEME], Limits(max_drop=100, max_size_bytes=1000), run_batches).run()
    with pytest.raises(RefusedError, match="--max-drop -1"):
        Search(sweep, [SCHEME], Limits(max_drop=-1), run_batches).run()
    found = Search(sweep, [SCHEME], Limits(max_drop=0, max_size_bytes=smallest), run_batches).run()
    assert found.best is None


def test_the_fastest_recipe_is_timed_beside_the_float_file(sweep: Sweep) -> None:
    found = Search(sweep, ["int8-dynamic"], EVERYTHING, run_batches, fastest=True, max_evaluations=12).run()
    assert found.best is not None
    assert found.best.latency_ms is not None
    assert found.best.latency_ms > 0
    assert found.best.latency_ratio == min(
        score.latency_ratio or 9.0 for score in [found.best, *found.uniforms] if not score.error
    )
    slow = Limits(max_drop=100, max_latency_ms=1e-6)
    assert Search(sweep, ["int8-dynamic"], slow, run_batches, max_evaluations=12).run().best is None


def test_plans_come_by_damage_and_are_the_best_of_their_cost() -> None:
    options = [[Option("a", 0.0, 0.0), Option("b", -3.0, 1.0)], [Option("a", 0.0, 0.0), Option("b", -2.0, 5.0)]]
    plans = least_damaging(options)
    assert [plan.choices for plan in plans] == [("a", "a"), ("b", "a"), ("a", "b"), ("b", "b")]
    assert [plan.cost for plan in plans] == [0, -3, -2, -5]

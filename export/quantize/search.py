"""Finds the smallest (or fastest) recipe within a budget of accuracy.

What a module saves and what it costs, measured alone, add up well enough to say which recipes are worth a try: those of
the least predicted damage (Kullback-Leibler divergence) for their predicted size. Only what was really made and
measured counts: first a bisection over sizes, then the next best recipes below the best found, until none is better.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

from edgekit.errors import RefusedError
from edgekit.export.quantize.knapsack import Option, Plan, least_damaging
from edgekit.export.quantize.mixture import takes
from edgekit.export.quantize.modules import source_modules
from edgekit.export.quantize.scores import Score
from edgekit.export.quantize.sensitivity import check_by_module
from edgekit.export.quantize.sweep import RunBatches, Sweep, run_sweep
from edgekit.export.recipes import Recipe, Rule, recipe_of, resolve_recipe

#: what is mixed where nothing is named
DEFAULT_SCHEMES = {
    "tflite": ("int8-dynamic", "int4-weight"),
    "onnx": ("int8-dynamic", "int4-weight"),
    "coreml": ("int8-weight", "int4-weight", "palette4", "palette6"),
}
#: sizes tried at a time in the bisection, and how near it goes to the border between good and bad
_POINTS, _NEAR = 4, 0.004
#: below the best: at which shares of its cost the next recipes are looked for, how many at each, and how often in vain
_SHARES, _PER_SHARE, _PATIENCE = (0.998, 0.985, 0.97, 0.94), 3, 3


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a recipe must keep: `max_drop` in percentage points of accuracy, size of the file, median of one text."""

    max_drop: float
    max_size_bytes: int | None = None
    max_latency_ms: float | None = None

    def allow(self, score: Score) -> bool:
        """Whether a measured candidate keeps all of them."""
        if score.error or score.non_finite or score.drop is None or score.drop > self.max_drop + 1e-9:
            return False
        if self.max_size_bytes is not None and score.size_bytes > self.max_size_bytes:
            return False
        return self.max_latency_ms is None or (score.latency_ms or 0.0) <= self.max_latency_ms


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """What was found: the best recipe as measured (None: nothing keeps the limits), the best uniform scheme likewise.

    `evaluated` counts the files that were made and run; `skipped` says why an option was left out, by module.
    """

    best: Score | None
    best_uniform: Score | None
    uniforms: tuple[Score, ...]
    evaluated: int
    skipped: tuple[str, ...]

    @property
    def beats_uniform(self) -> bool:
        """Whether the recipe is no uniform scheme."""
        return self.best is not None and bool(self.best.recipe.rules)


class Search:
    """One search: what has been measured, and what is proposed next."""

    def __init__(
        self,
        sweep: Sweep,
        schemes: Sequence[str],
        limits: Limits,
        run_batches: RunBatches,
        *,
        fastest: bool = False,
        max_evaluations: int = 300,
        on_round: Callable[[str, int, int], None] = lambda what, done, total: None,
    ) -> None:
        self._sweep, self._limits, self._run_batches = sweep, limits, run_batches
        self._fastest, self._most, self._on_round = fastest, max_evaluations, on_round
        self._timed = fastest or limits.max_latency_ms is not None
        self._schemes = [scheme for scheme in dict.fromkeys(schemes) if scheme != "none"]
        for scheme in self._schemes:
            check_by_module(scheme, sweep.target)
        modules = source_modules(sweep.checkpoint.config)
        self._modules = [m for m in modules if any(takes(sweep.target, s, m) for s in self._schemes)]
        self._scores: dict[tuple[str, ...], Score] = {}
        self._uniforms: list[Score] = []
        self._skipped: list[str] = []

    def run(self) -> SearchResult:
        """Search; what is finished is kept by the sweep, so that a search that was interrupted goes on from there.

        Raises RefusedError where the limits can't be kept by any recipe.
        """
        if self._limits.max_drop < 0:
            raise RefusedError(f"--max-drop {self._limits.max_drop}: the float32 file itself loses 0; give 0 or more")
        plans = least_damaging(self._measure_alone())
        self._check_possible(plans)
        self._bisect(plans)
        self._improve(plans)
        accepted = [score for score in self._uniforms if self._limits.allow(score)]
        return SearchResult(
            best=self._best(),
            best_uniform=min(accepted, key=self._cost, default=None),
            uniforms=tuple(self._uniforms),
            evaluated=len(self._scores),
            skipped=tuple(self._skipped),
        )

    def _measure_alone(self) -> list[list[Option]]:
        """Every uniform scheme, and every module alone under every scheme: what an option saves, and its damage."""
        none = Recipe(name="none", scheme="none")
        uniform = [Recipe(name=scheme, scheme=scheme) for scheme in self._schemes]
        pairs = [(m, s) for m in self._modules for s in self._schemes if takes(self._sweep.target, s, m)]
        alone = [Recipe(name="alone", scheme="none", rules=(Rule(modules=m, scheme=s),)) for m, s in pairs]
        least = 2 + len(uniform) + len(alone)
        if self._most < least:
            raise RefusedError(f"--max-evaluations {self._most}: each module alone takes {least} already")
        scores = self._score("each module alone", [none, *uniform, *alone])
        self._uniforms = scores[: 1 + len(uniform)]
        base = self._cost(scores[0])
        options = {module: [Option("none", 0.0, 0.0)] for module in self._modules}
        for (module, scheme), score in zip(pairs, scores[1 + len(uniform) :], strict=True):
            if score.error or score.kl is None:
                why = score.error or f"{score.non_finite} outputs are NaN or infinite"
                self._skipped.append(f"{module} in {scheme}: {why}")
            else:
                options[module].append(Option(scheme, self._cost(score) - base, score.kl))
        return [options[module] for module in self._modules]

    def _check_possible(self, plans: Sequence[Plan]) -> None:
        """Measure the smallest recipe of all; raise RefusedError where even that is too large or too slow."""
        smallest = min(plans, key=lambda plan: plan.cost)
        self._score_plans("the smallest recipe", [smallest])
        score = self._scores[smallest.choices]
        largest = self._limits.max_size_bytes
        if largest is not None and not score.error and score.size_bytes > largest and not self._best():
            raise RefusedError(
                f"no recipe fits: the smallest, of {', '.join(score.recipe.schemes)}, has {score.size_bytes} bytes, "
                f"not {largest} or fewer; give a larger --max-size, or train a smaller model"
            )

    def _bisect(self, plans: Sequence[Plan]) -> None:
        """Find how small the least damaging recipes can be before they break a limit."""
        base = self._cost(self._uniforms[0])
        low = base + min(plan.cost for plan in plans)
        while len(self._scores) < self._most:
            high = self._best_cost()
            if high - low <= _NEAR * base:
                return
            borders = [low + (high - low) * i / (_POINTS + 1) for i in range(1, _POINTS + 1)]
            tried = {border: next(plan for plan in plans if plan.cost <= border - base) for border in borders}
            self._score_plans("halving the size", list(tried.values()))
            failed = [border for border, plan in tried.items() if not self._allowed(plan)]
            low = max([border for border in failed if border < self._best_cost()], default=low)
            if high == self._best_cost() and not failed:
                return

    def _improve(self, plans: Sequence[Plan]) -> None:
        """Try the least damaging recipes below the best found, until several rounds bring nothing."""
        base, vain = self._cost(self._uniforms[0]), 0
        while vain < _PATIENCE and len(self._scores) < self._most:
            cost = self._best_cost()
            wanted: list[Plan] = []
            for share in _SHARES:
                below = (plan for plan in plans if plan.cost <= share * cost - base)
                fresh = (plan for plan in below if plan.choices not in self._scores and plan not in wanted)
                wanted += list(islice(fresh, _PER_SHARE))
            if not wanted:
                return
            self._score_plans("looking below the best", wanted)
            vain = 0 if self._best_cost() < cost else vain + 1

    def _score_plans(self, what: str, plans: Sequence[Plan]) -> None:
        new = [choices for choices in dict.fromkeys(plan.choices for plan in plans) if choices not in self._scores]
        recipes = [
            recipe_of("mixed", self._sweep.target, dict(zip(self._modules, choices, strict=True)))
            for choices in new[: max(0, self._most - len(self._scores))]
        ]
        self._score(what, recipes)

    def _score(self, what: str, recipes: Sequence[Recipe]) -> list[Score]:
        evaluated = len(self._scores)

        def show(done: int, total: int) -> None:
            self._on_round(what, evaluated + done, evaluated + total)

        scores = run_sweep(self._sweep, recipes, self._run_batches, timed=self._timed, on_progress=show)
        self._scores |= {self._choices_of(recipe): score for recipe, score in zip(recipes, scores, strict=True)}
        return scores

    def _choices_of(self, recipe: Recipe) -> tuple[str, ...]:
        schemes = resolve_recipe(recipe, source_modules(self._sweep.checkpoint.config))
        return tuple(schemes[m] if takes(self._sweep.target, schemes[m], m) else "none" for m in self._modules)

    def _allowed(self, plan: Plan) -> bool:
        return plan.choices in self._scores and self._limits.allow(self._scores[plan.choices])

    def _best(self) -> Score | None:
        return min((s for s in self._scores.values() if self._limits.allow(s)), key=self._cost, default=None)

    def _best_cost(self) -> float:
        best = self._best()
        return self._cost(best or self._uniforms[0])

    def _cost(self, score: Score) -> float:
        return score.latency_ratio or 1.0 if self._fastest else float(score.size_bytes)

"""Which module costs what: each quantized alone, and everything but it."""

import math
from collections.abc import Iterator, Sequence

from pydantic import BaseModel, ConfigDict

from edgekit.errors import RefusedError
from edgekit.export.quantize.mixture import takes
from edgekit.export.quantize.modules import source_modules
from edgekit.export.quantize.scores import Score
from edgekit.export.quantize.sweep import OnProgress, RunBatches, Sweep, run_sweep
from edgekit.export.recipes import MIXABLE, Recipe, Rule
from edgekit.export.schemes import refusal
from edgekit.export.writer_plan import refuse_writer
from edgekit.model.config import TransformerConfig
from edgekit.model.weights import parameter_shapes


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModuleSensitivity(_Record):
    """One module under one scheme: the score of quantizing nothing else, and that of quantizing everything else.

    `elements` are those of its weights; products of activations have none.
    """

    module: str
    elements: int
    alone: Score
    all_but: Score


class Sensitivity(_Record):
    """One scheme on one checkpoint and target: what each module costs, beside the float32 file and the whole scheme."""

    checkpoint: str
    checkpoint_sha256: str
    target: str
    scheme: str
    texts: str
    whole: Score
    unquantized: Score
    modules: tuple[ModuleSensitivity, ...]


def measure_sensitivity(
    sweep: Sweep, schemes: Sequence[str], run_batches: RunBatches, on_progress: OnProgress = lambda done, total: None
) -> list[Sensitivity]:
    """Measure every module that each scheme takes; raises RefusedError for a scheme that takes no single modules."""
    for scheme in schemes:
        check_by_module(scheme, sweep.target)
    modules = source_modules(sweep.checkpoint.config)
    taken = {scheme: [m for m in modules if takes(sweep.target, scheme, m)] for scheme in schemes}
    unquantized = Recipe(name="none", scheme="none")
    candidates = [unquantized]
    for scheme in schemes:
        candidates.append(Recipe(name=scheme, scheme=scheme))
        candidates += [recipe for module in taken[scheme] for recipe in _pair(scheme, module)]
    scores = iter(run_sweep(sweep, candidates, run_batches, on_progress=on_progress))
    float_score = next(scores)
    return [_collect(sweep, scheme, taken[scheme], float_score, next(scores), scores) for scheme in schemes]


def check_by_module(scheme: str, target: str) -> None:
    """Raise RefusedError where a scheme is not offered, or is of a whole file and not of single modules."""
    refused = refusal(scheme, target)
    if refused:
        raise RefusedError(refused)
    if scheme not in MIXABLE.get(target, ()) or scheme == "none":
        choices = ", ".join(name for name in MIXABLE.get(target, ()) if name != "none")
        raise RefusedError(f"{scheme} is no scheme of single modules of a {target} file: choose of {choices}")


def check_writer_by_module(config: TransformerConfig, target: str, schemes: Sequence[str]) -> None:
    """Raise RefusedError for a target whose files of models that write take no modules apart, or such a scheme."""
    if target != "tflite":
        raise RefusedError(
            f"a model that writes is quantized by module in tflite alone: its {target} file is several graphs or "
            "functions, which are quantized as wholes; say --target tflite"
        )
    for scheme in schemes:
        if refused := refuse_writer(config, target, scheme, (), ()):
            raise RefusedError(refused)


def _pair(scheme: str, module: str) -> tuple[Recipe, Recipe]:
    alone = Recipe(name=f"{scheme}-alone", scheme="none", rules=(Rule(modules=module, scheme=scheme),))
    return alone, Recipe(name=f"{scheme}-all-but", scheme=scheme, rules=(Rule(modules=module, scheme="none"),))


def _collect(
    sweep: Sweep, scheme: str, modules: Sequence[str], unquantized: Score, whole: Score, scores: Iterator[Score]
) -> Sensitivity:
    elements: dict[str, int] = {}
    for name, shape in parameter_shapes(sweep.checkpoint.config).items():
        module = name.rsplit(".", 1)[0]
        elements[module] = elements.get(module, 0) + math.prod(shape)
    return Sensitivity(
        checkpoint=sweep.checkpoint.name,
        checkpoint_sha256=sweep.source.sha256,
        target=sweep.target,
        scheme=scheme,
        texts=sweep.texts,
        whole=whole,
        unquantized=unquantized,
        modules=tuple(
            ModuleSensitivity(module=module, elements=elements.get(module, 0), alone=next(scores), all_but=next(scores))
            for module in modules
        ),
    )

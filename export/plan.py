"""What an export will do, decided before any framework is loaded: routes, schemes, sizes and refusals."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekit import extras
from edgekit.bundle import MANIFEST, SUFFIX
from edgekit.errors import EdgekitError, RecipeError, RefusedError
from edgekit.export.coreml_options import DEFAULTS, CoremlOptions
from edgekit.export.quantize.mixture import fit_recipe
from edgekit.export.quantize.modules import source_modules
from edgekit.export.recipes import SUFFIX as RECIPE_SUFFIX
from edgekit.export.recipes import Recipe, read_recipe, resolve_recipe
from edgekit.export.schemes import ALIASES, BYTES_PER_WEIGHT, CALIBRATED, check_scheme, refusal
from edgekit.export.targets import Target, find_frameworks, find_targets
from edgekit.model.config import TransformerConfig
from edgekit.model.sizes import parameter_count
from edgekit.model.weights import parameter_shapes
from edgekit.outputs import check_replaceable
from edgekit.program import Framework


@dataclass(frozen=True, kw_only=True)
class PlannedExport:
    """One bundle to be made: where from, by which route, and where to.

    `scheme` is the recipe's name where there is a `recipe`. `expected_size_bytes` counts the weights only; `problem` is
    why it can't be made, if so; `coreml` are the options of a Core ML package.
    """

    target: Target
    route: Framework
    scheme: str
    path: Path
    expected_size_bytes: int
    problem: EdgekitError | None
    recipe: Recipe | None = None
    coreml: CoremlOptions | None = None

    @property
    def name(self) -> str:
        """The bundle's name without its suffix."""
        return self.path.name.removesuffix(SUFFIX)

    @property
    def schemes(self) -> tuple[str, ...]:
        """The schemes that the file holds."""
        return self.recipe.schemes if self.recipe else (self.scheme,)

    @property
    def calibrated(self) -> bool:
        """Whether making it needs texts for the ranges of activations."""
        return bool(CALIBRATED & set(self.schemes))


@dataclass(frozen=True, kw_only=True)
class ForeignModel:
    """What a plan must know of a model that is no checkpoint: the frameworks that can build it, how many weights it has
    (0: not known) and its text length in tokens; `targets` that there is a kept converter to (None: all that its
    frameworks lead to), and `reason`, why not to others.
    """

    frameworks: tuple[Framework, ...]
    parameters: int
    max_length: int = 0
    targets: tuple[str, ...] | None = None
    reason: str = ""

    def refusal(self, target: Target, route: Framework, scheme: str | Recipe) -> str | None:
        """Why this model can't go to `target` by this route; None where it can."""
        if self.targets is not None and target.name not in self.targets:
            return f"{target.name}: {self.reason}"
        if route not in self.frameworks:
            return (
                f"this model is {self.frameworks[0]}'s own: it can't be reached via {route}, and so not {target.name}"
            )
        if isinstance(scheme, Recipe):
            return f"the recipe {scheme.name} names modules of edgekit's own model: give this one a scheme"
        return None


def plan_exports(
    model_name: str,
    config: TransformerConfig | ForeignModel,
    *,
    targets: Sequence[str],
    schemes: Sequence[str] = ("none",),
    via: Sequence[str] = (),
    output: Path = Path("bundles"),
    force: bool = False,
    coreml: CoremlOptions = DEFAULTS,
) -> list[PlannedExport]:
    """List the bundles that these options ask for, each with what stands in its way.

    `schemes` are names of schemes, or recipe files (`*.toml`). Without `via` each target takes its default route.
    Raises UnknownNameError for a name that does not exist, RecipeError for a recipe that can't be read, RefusedError
    for options of `coreml` that the targets have no use for.
    """
    frameworks = find_frameworks(list(via))
    found = find_targets(list(targets))
    _check_used(coreml, found)
    asked = [_scheme_or_recipe(name) for name in dict.fromkeys(ALIASES.get(name, name) for name in schemes)]
    plans = []
    for target in found:
        for route in frameworks or [_default_route(config, target)]:
            for scheme in asked:
                recipe = scheme if isinstance(scheme, Recipe) else None
                label = scheme.name if isinstance(scheme, Recipe) else scheme
                suffix = "" if route == target.default_route else f"-via-{route}"
                path = output / f"{model_name}.{target.name}-{label}{suffix}{SUFFIX}"
                plans.append(
                    PlannedExport(
                        target=target,
                        route=route,
                        scheme=label,
                        recipe=recipe,
                        path=path,
                        expected_size_bytes=_expected_size_bytes(config, scheme),
                        problem=_unfit(coreml, target, scheme, config.max_length)
                        or _problem(config, target, route, scheme, path, force=force),
                        coreml=coreml if target.name == "coreml" else None,
                    )
                )
    return plans


def _scheme_or_recipe(name: str) -> str | Recipe:
    return read_recipe(Path(name)) if name.endswith(RECIPE_SUFFIX) else check_scheme(name)


def _default_route(config: TransformerConfig | ForeignModel, target: Target) -> Framework:
    """The target's better route, or that of the framework that the model is in."""
    if isinstance(config, ForeignModel):
        return next((name for name in target.routes if name in config.frameworks), target.default_route)
    return target.default_route


def _expected_size_bytes(config: TransformerConfig | ForeignModel, scheme: str | Recipe) -> int:
    """The weights in one scheme, or each in that of its module."""
    if isinstance(config, ForeignModel):
        return round(config.parameters * BYTES_PER_WEIGHT[scheme]) if isinstance(scheme, str) else 0
    if isinstance(scheme, str):
        return round(parameter_count(config) * BYTES_PER_WEIGHT[scheme])
    try:
        schemes = resolve_recipe(scheme, source_modules(config))
    except RecipeError:
        return 0  # `problem` says why
    shapes = parameter_shapes(config)
    return round(
        sum(math.prod(shape) * BYTES_PER_WEIGHT[schemes[name.rsplit(".", 1)[0]]] for name, shape in shapes.items())
    )


def _check_used(coreml: CoremlOptions, targets: Sequence[Target]) -> None:
    """Refuse options of Core ML where no target is, and lengths where any other target would go without."""
    others = [target.name for target in targets if target.name != "coreml"]
    if coreml.asked and len(others) == len(targets):
        raise RefusedError(f"{coreml.flags()[0]} has no use for {', '.join(others)}: it is of --target coreml")
    if coreml.sequence_lengths and others:
        raise RefusedError(f"--sequence-length is offered for --target coreml only: {', '.join(others)} can't take it")


def _unfit(coreml: CoremlOptions, target: Target, scheme: str | Recipe, longest: int) -> EdgekitError | None:
    """The first of a target's schemes that the options of Core ML rule out."""
    if target.name != "coreml":
        return None
    schemes = (scheme,) if isinstance(scheme, str) else scheme.schemes
    refused = next((reason for name in schemes if (reason := coreml.refusal(name, longest))), None)
    if refused is None and coreml.multifunction and isinstance(scheme, Recipe):
        refused = "a recipe is of one function: leave out --multifunction"
    return RefusedError(f"coreml: {refused}") if refused else None


def _problem(
    config: TransformerConfig | ForeignModel,
    target: Target,
    route: Framework,
    scheme: str | Recipe,
    path: Path,
    *,
    force: bool,
) -> EdgekitError | None:
    """The first thing that stands in the way of one export, without loading any framework."""
    if isinstance(config, ForeignModel) and (foreign := config.refusal(target, route, scheme)):
        return RefusedError(foreign)
    if route not in target.routes:
        reason = f"{target.name} is {target.default_route}'s own format: it can't be reached via {route}"
        return RefusedError(f"{reason}; leave out --via, or use --via {target.default_route}")
    refused = refusal(scheme, target.name) if isinstance(scheme, str) else None
    if refused:
        return RefusedError(refused)
    try:
        if isinstance(scheme, Recipe) and not isinstance(config, ForeignModel):
            fit_recipe(scheme, config, target.name)
        extras.check_installed(target.routes[route], f"exporting {target.name} via {route}")
        label = scheme if isinstance(scheme, str) else scheme.name
        extras.check_installed(_quantizers(target, label), f"exporting {target.name} as {label}")
        check_replaceable(path, force=force, marker=MANIFEST)
    except EdgekitError as error:
        return error
    return None


def _quantizers(target: Target, scheme: str) -> tuple[str, ...]:
    """Modules that making the scheme needs beside those of the route."""
    if scheme in ("none", "fp16"):
        return ()
    return {"tflite": ("ai_edge_quantizer",), "onnx": ("onnxruntime",)}.get(target.name, ())

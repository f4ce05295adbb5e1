"""What an export will do, decided before any framework is loaded: routes, schemes, sizes and refusals."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgekit import extras
from edgekit.bundle import MANIFEST, SUFFIX
from edgekit.errors import EdgekitError, RecipeError, RefusedError
from edgekit.export.coreml_options import DEFAULTS, CoremlOptions
from edgekit.export.lengths import length_signatures, refuse_lengths
from edgekit.export.quantize.mixture import fit_recipe
from edgekit.export.quantize.modules import source_modules
from edgekit.export.recipes import SUFFIX as RECIPE_SUFFIX
from edgekit.export.recipes import Recipe, read_recipe, resolve_recipe
from edgekit.export.schemes import ALIASES, BALANCED, BYTES_PER_WEIGHT, CALIBRATED, check_scheme, refusal
from edgekit.export.targets import Target, find_frameworks, find_targets
from edgekit.export.writer_plan import CacheDtype, KvCache, refuse_cache, refuse_route, refuse_writer
from edgekit.model.config import TransformerConfig
from edgekit.model.rewrites import FLOAT_MASK, find_rewrites, refuse_rewrite
from edgekit.model.sizes import parameter_count
from edgekit.model.weights import parameter_shapes
from edgekit.outputs import check_replaceable
from edgekit.program import Framework, ModelTask, Signature


@dataclass(frozen=True, kw_only=True)
class PlannedExport:
    """One bundle to be made: where from, by which route, and where to.

    `scheme` is the recipe's name where there is a `recipe`. `expected_size_bytes` counts the weights only; `problem` is
    why it can't be made, if so; `coreml` are the options of a Core ML package; `rewrites` are done to the model before;
    `lengths` are the sequence lengths that the file takes, in tokens, ascending (none: the model's own alone). A file
    that `writes` has a signature for each step of a generation; in ONNX, `kv_cache` is the form of its cache, and in
    TFLite `cache_dtype` how it is kept between calls.
    """

    target: Target
    route: Framework
    scheme: str
    path: Path
    expected_size_bytes: int
    problem: EdgekitError | None
    recipe: Recipe | None = None
    coreml: CoremlOptions | None = None
    rewrites: tuple[str, ...] = ()
    lengths: tuple[int, ...] = ()
    writes: bool = False
    kv_cache: KvCache = "dynamic"
    cache_dtype: CacheDtype = "float32"

    @property
    def float_name(self) -> str:
        """Names the float32 file that schemes of a target, route and rewrites share."""
        return "+".join((f"{self.target.name}-{self.route}", *self.rewrites, *_cache_part(self.kv_cache)))

    @property
    def stateful(self) -> bool:
        """Whether the file keeps the states of a model that writes itself: Core ML does from iOS 18 on."""
        return self.writes and self.coreml is not None and self.coreml.target == "iOS18"

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

    @property
    def balanced(self) -> bool:
        """Whether texts, where a model of others brings them, show outliers that making it balances."""
        return self.recipe is None and (self.target.name, self.scheme) in BALANCED

    @property
    def runtime(self) -> str:
        """What the file is run with; several signatures by what shares their weights in memory, too."""
        several = self.target.lengths == "signatures" and (self.writes or len(self.lengths) > 1)
        return self.target.shared_runtime if several else self.target.runtime

    def signatures(self, signature: Signature) -> tuple[Signature, ...]:
        """Those of the file, for the program's own one; only for what does not write."""
        if self.coreml:
            return self.coreml.signatures(signature)
        if len(self.lengths) < 2:
            return (signature,)
        if self.target.lengths == "dynamic":
            return (signature.model_copy(update={"dynamic_length": True}),)
        return length_signatures(signature, self.lengths)


@dataclass(frozen=True, kw_only=True)
class ForeignModel:
    """What a plan must know of a model that is no checkpoint: the frameworks that can build it, how many weights it has
    (0: not known) and its text length in tokens (0: none); `task` is what edgekit's own model would be for, "classify"
    for all that does not write; whether one graph of it can take `any_length`.
    """

    frameworks: tuple[Framework, ...]
    parameters: int
    max_length: int = 0
    task: ModelTask = "classify"
    any_length: bool = True

    def refusal(self, target: Target, route: Framework, scheme: str | Recipe, rewrites: Sequence[str]) -> str | None:
        """Why this model can't go to `target` by this route; None where it can."""
        if route not in self.frameworks:
            return (
                f"this model is {self.frameworks[0]}'s own: it can't be reached via {route}, and so not {target.name}"
            )
        if isinstance(scheme, Recipe):
            return f"the recipe {scheme.name} names modules of edgekit's own model: give this one a scheme"
        if rewrites:
            return f"--rewrite {rewrites[0]} is of edgekit's own model: leave it out"
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
    rewrites: Sequence[str] = (),
    lengths: Sequence[int] = (),
    by_default: bool = False,
    kv_cache: KvCache = "dynamic",
    cache_dtype: CacheDtype = "float32",
) -> list[PlannedExport]:
    """List the bundles that these options ask for, each with what stands in its way.

    `schemes` are names of schemes, or recipe files (`*.toml`). Without `via` each target takes its default route. All
    `rewrites` are done to each. `lengths` are the sequence lengths of all targets but Core ML, whose are in its
    options. Where they are taken `by_default`, what can take any length does, and what has one length only is no
    problem. `kv_cache` is the form of the cache of a model that writes, in ONNX, `cache_dtype` its type in TFLite.
    Raises UnknownNameError for a name that does not exist, RecipeError for a recipe that can't be read, RefusedError
    for options of `coreml` that the targets have no use for and for rewrites that exclude each other.
    """
    writes = config.task != "classify"
    frameworks = find_frameworks(list(via))
    found = [_fit_target(target, config) for target in find_targets(list(targets))]
    _check_used(coreml, found)
    changes = find_rewrites(rewrites)
    wanted = tuple(sorted(set(lengths)))
    if by_default and FLOAT_MASK in changes:
        wanted = ()
    asked = [_scheme_or_recipe(name) for name in dict.fromkeys(ALIASES.get(name, name) for name in schemes)]
    plans = []
    for target in found:
        free = by_default and target.lengths == "dynamic" and FLOAT_MASK not in changes and not writes
        for route in frameworks or [_default_route(config, target)]:
            for scheme in asked:
                recipe = scheme if isinstance(scheme, Recipe) else None
                label = scheme.name if isinstance(scheme, Recipe) else scheme
                suffix = "" if route == target.default_route else f"-via-{route}"
                form: KvCache = kv_cache if writes and target.name == "onnx" else "dynamic"
                name = "+".join(
                    (f"{model_name}.{target.name}-{label}{suffix}", *changes, *_cache_part(form, cache_dtype))
                )
                path = output / f"{name}{SUFFIX}"
                plans.append(
                    PlannedExport(
                        target=target,
                        route=route,
                        scheme=label,
                        recipe=recipe,
                        path=path,
                        expected_size_bytes=_expected_size_bytes(config, scheme),
                        writes=writes,
                        kv_cache=form,
                        cache_dtype=cache_dtype,
                        problem=_unfit_writer(config, target, scheme, changes, coreml.sequence_lengths or wanted)
                        or _unfit_route(config, target, route, form, coreml)
                        or _unfit_cache(target, cache_dtype, writes=writes)
                        or _unfit(coreml, target, scheme, config.max_length)
                        or _unfit_rewrites(changes, config, target, scheme, coreml.sequence_lengths or wanted)
                        or _unfit_lengths(() if by_default else wanted, target, config.max_length)
                        or _foreign_problem(config, target, route, scheme, changes)
                        or _problem(config, target, route, scheme, path, force=force),
                        coreml=_coreml_options(coreml, writes=writes) if target.name == "coreml" else None,
                        rewrites=changes,
                        lengths=(1, config.max_length) if free else _taken(coreml, target, wanted),
                    )
                )
    return plans


def _cache_part(kv_cache: KvCache, cache_dtype: CacheDtype = "float32") -> tuple[str, ...]:
    """What a name has of the form and type of the cache: nothing of the default."""
    form = () if kv_cache == "dynamic" else ("static-cache",)
    return form if cache_dtype == "float32" else (*form, f"{cache_dtype}-cache")


def _unfit_cache(target: Target, cache_dtype: CacheDtype, *, writes: bool) -> EdgekitError | None:
    refused = refuse_cache(target.name, cache_dtype, writes=writes)
    return RefusedError(refused) if refused else None


def _coreml_options(coreml: CoremlOptions, *, writes: bool) -> CoremlOptions:
    """The options; for a model that writes, of the first system that keeps states unless an older one is asked for."""
    if not writes or coreml.minimum_deployment_target:
        return coreml
    return coreml.model_copy(update={"minimum_deployment_target": "iOS18"})


def _unfit_route(
    config: TransformerConfig | ForeignModel,
    target: Target,
    route: Framework,
    kv_cache: KvCache,
    coreml: CoremlOptions,
) -> EdgekitError | None:
    """What keeps a model that writes from a target by this route."""
    if config.task == "classify":
        return None
    refused = refuse_route(config, target.name, route, kv_cache)
    return RefusedError(refused) if refused else None


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
    """Refuse options of Core ML where no target is."""
    others = [target.name for target in targets if target.name != "coreml"]
    asked = [flag for flag in coreml.flags() if flag != "--sequence-length"]
    if asked and len(others) == len(targets):
        raise RefusedError(f"{asked[0]} has no use for {', '.join(others)}: it is of --target coreml")


def _taken(coreml: CoremlOptions, target: Target, lengths: tuple[int, ...]) -> tuple[int, ...]:
    """Those of the lengths that a file of this target will have."""
    if target.lengths == "options":
        return coreml.sequence_lengths
    return () if target.lengths == "one" else lengths


def _fit_target(target: Target, config: TransformerConfig | ForeignModel) -> Target:
    """The target; with one length where the model can't have any."""
    if target.lengths == "dynamic" and isinstance(config, ForeignModel) and not config.any_length:
        return replace(target, lengths="one")
    return target


def _unfit_lengths(lengths: tuple[int, ...], target: Target, longest: int) -> EdgekitError | None:
    """What keeps a target from these lengths; Core ML's are checked with its options."""
    if not lengths or target.lengths == "options":
        return None
    if len(lengths) > 1 and target.lengths == "one":
        why = "this model can't be captured with any length"
        if target.name == "pt2":
            why = "symbolic sizes would be read as code by whoever loads the file"
        return RefusedError(
            f"{target.name} takes one sequence length: {why}; leave --sequence-length out, or give {longest}"
        )
    refused = refuse_lengths(lengths, longest)
    return RefusedError(f"{target.name}: {refused}") if refused else None


def _unfit(coreml: CoremlOptions, target: Target, scheme: str | Recipe, longest: int) -> EdgekitError | None:
    """The first of a target's schemes that the options of Core ML rule out."""
    if target.name != "coreml":
        return None
    schemes = (scheme,) if isinstance(scheme, str) else scheme.schemes
    refused = next((reason for name in schemes if (reason := coreml.refusal(name, longest))), None)
    if refused is None and coreml.multifunction and isinstance(scheme, Recipe):
        refused = "a recipe is of one function: leave out --multifunction"
    return RefusedError(f"coreml: {refused}") if refused else None


def _unfit_rewrites(
    rewrites: Sequence[str],
    config: TransformerConfig | ForeignModel,
    target: Target,
    scheme: str | Recipe,
    lengths: Sequence[int],
) -> EdgekitError | None:
    """What in the model, the scheme or the lengths asked for rules a rewrite out."""
    if isinstance(config, ForeignModel):
        return None  # `_foreign_problem` says why
    refused = refuse_rewrite(rewrites, config, recipe=isinstance(scheme, Recipe))
    calibrated = sorted(CALIBRATED & set(scheme.schemes if isinstance(scheme, Recipe) else (scheme,)))
    if refused is None and FLOAT_MASK in rewrites and lengths:
        refused = f"{FLOAT_MASK} is offered for one sequence length: leave out --sequence-length"
    if refused is None and FLOAT_MASK in rewrites and calibrated and target.name == "tflite":
        refused = f"tflite does not offer {FLOAT_MASK} with {calibrated[0]}: its quantizer makes float inputs integers"
    return RefusedError(refused) if refused else None


def _unfit_writer(
    config: TransformerConfig | ForeignModel,
    target: Target,
    scheme: str | Recipe,
    rewrites: Sequence[str],
    lengths: Sequence[int],
) -> EdgekitError | None:
    """What keeps a model that writes from a target."""
    if config.task == "classify":
        return None
    refused = refuse_writer(config, target.name, scheme, rewrites, lengths)
    return RefusedError(refused) if refused else None


def _foreign_problem(
    config: TransformerConfig | ForeignModel,
    target: Target,
    route: Framework,
    scheme: str | Recipe,
    rewrites: Sequence[str],
) -> EdgekitError | None:
    refused = config.refusal(target, route, scheme, rewrites) if isinstance(config, ForeignModel) else None
    return RefusedError(refused) if refused else None


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

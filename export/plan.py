"""What an export will do, decided before any framework is loaded: routes, schemes, sizes and refusals."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgekit.bundle import SUFFIX
from edgekit.errors import EdgekitError, RecipeError, RefusedError
from edgekit.export.asked import AskedFile, ForeignModel
from edgekit.export.coreml_options import DEFAULTS, CoremlOptions
from edgekit.export.lengths import length_signatures
from edgekit.export.problems import find_problem
from edgekit.export.quantize.modules import source_modules
from edgekit.export.recipes import SUFFIX as RECIPE_SUFFIX
from edgekit.export.recipes import Recipe, read_recipe, resolve_recipe
from edgekit.export.schemes import ALIASES, BALANCED, BYTES_PER_WEIGHT, CALIBRATED, check_scheme
from edgekit.export.targets import Target, find_frameworks, find_targets
from edgekit.export.writer_plan import CacheDtype, KvCache
from edgekit.model.config import TransformerConfig
from edgekit.model.rewrites import FLOAT_MASK, find_rewrites
from edgekit.model.sizes import parameter_count
from edgekit.model.weights import parameter_shapes
from edgekit.program import Framework, Signature


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
    frameworks = find_frameworks(list(via))
    found = [_fit_target(target, config) for target in find_targets(list(targets))]
    _check_used(coreml, found)
    changes = find_rewrites(rewrites)
    wanted = tuple(sorted(set(lengths)))
    if by_default and FLOAT_MASK in changes:
        wanted = ()
    forms = [_scheme_or_recipe(name) for name in dict.fromkeys(ALIASES.get(name, name) for name in schemes)]
    asked = [
        AskedFile(
            config=config,
            target=target,
            route=route,
            scheme=scheme,
            rewrites=changes,
            lengths=wanted,
            by_default=by_default,
            coreml=coreml,
            kv_cache=kv_cache if config.task != "classify" and target.name == "onnx" else "dynamic",
            cache_dtype=cache_dtype,
        )
        for target in found
        for route in frameworks or [_default_route(config, target)]
        for scheme in forms
    ]
    return [_plan_file(model_name, each, output, force=force) for each in asked]


def _plan_file(model_name: str, asked: AskedFile, output: Path, *, force: bool) -> PlannedExport:
    target, config = asked.target, asked.config
    suffix = "" if asked.route == target.default_route else f"-via-{asked.route}"
    changes = (*asked.rewrites, *_cache_part(asked.kv_cache, asked.cache_dtype))
    path = output / ("+".join((f"{model_name}.{target.name}-{asked.label}{suffix}", *changes)) + SUFFIX)
    any_length = asked.by_default and target.lengths == "dynamic" and FLOAT_MASK not in asked.rewrites
    return PlannedExport(
        target=target,
        route=asked.route,
        scheme=asked.label,
        recipe=asked.recipe,
        path=path,
        expected_size_bytes=_expected_size_bytes(config, asked.scheme),
        writes=asked.writes,
        kv_cache=asked.kv_cache,
        cache_dtype=asked.cache_dtype,
        problem=find_problem(asked, path, force=force),
        coreml=_coreml_options(asked) if target.name == "coreml" else None,
        rewrites=asked.rewrites,
        lengths=(1, config.max_length) if any_length and not asked.writes else _taken(asked),
    )


def _cache_part(kv_cache: KvCache, cache_dtype: CacheDtype = "float32") -> tuple[str, ...]:
    """What a name has of the form and type of the cache: nothing of the default."""
    form = () if kv_cache == "dynamic" else ("static-cache",)
    return form if cache_dtype == "float32" else (*form, f"{cache_dtype}-cache")


def _coreml_options(asked: AskedFile) -> CoremlOptions:
    """The options; for a model that writes, of the first system that keeps states unless an older one is asked for.

    coremltools 9.0 makes states of PyTorch's buffers alone: through TensorFlow the cache is passed.
    """
    if not asked.writes or asked.coreml.minimum_deployment_target or asked.route != "torch":
        return asked.coreml
    return asked.coreml.model_copy(update={"minimum_deployment_target": "iOS18"})


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


def _taken(asked: AskedFile) -> tuple[int, ...]:
    """Those of the lengths that a file of this target will have."""
    if asked.target.lengths == "options":
        return asked.coreml.sequence_lengths
    return () if asked.target.lengths == "one" else asked.lengths


def _fit_target(target: Target, config: TransformerConfig | ForeignModel) -> Target:
    """The target; with one length where the model can't have any."""
    if target.lengths == "dynamic" and isinstance(config, ForeignModel) and not config.any_length:
        return replace(target, lengths="one")
    return target

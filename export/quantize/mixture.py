"""What a quantizer is asked for: one scheme for a whole file, or one for each module of the source model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edgekit.checkpoint import Checkpoint
from edgekit.errors import ExportError, RecipeError
from edgekit.export.jobs import Evidence
from edgekit.export.quantize.evidence import Floats, StoredWeight, check_quantized, is_matrix
from edgekit.export.quantize.modules import HEADS, SCORES, Node, assign_nodes, match_weights, source_modules
from edgekit.export.recipes import Recipe, check_mixable, resolve_recipe
from edgekit.export.schemes import CALIBRATED
from edgekit.model.config import TransformerConfig
from edgekit.model.weights import Weights

#: operators that multiply by, or read rows of, a constant matrix: what quantizers take weights of
WEIGHTED = frozenset(["FULLY_CONNECTED", "EMBEDDING_LOOKUP", "GATHER", "BATCH_MATMUL", "MATMUL", "GEMM"])


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """`schemes` gives a module its scheme ("none": float32), `rest` is that of operators of no module (residual sums);
    `scheme` then is a name for the whole. Where `schemes` is None, `scheme` is that of everything. `weights` are the
    source model's: modules are recognised by them.
    """

    scheme: str
    schemes: Mapping[str, str] | None = None
    rest: str = "none"
    weights: Weights = field(default_factory=dict)

    @property
    def used(self) -> tuple[str, ...]:
        """The schemes that change anything."""
        named = (self.scheme,) if self.schemes is None else tuple(dict.fromkeys([self.rest, *self.schemes.values()]))
        return tuple(scheme for scheme in named if scheme != "none")

    def check(
        self, source: Mapping[str, Floats], stored: Mapping[str, StoredWeight], wanted: Mapping[str, str]
    ) -> Evidence | None:
        """What the quantizer took on; raises ExportError as `check_quantized` does.

        None where no weight was to be quantized, but activations: the file's operators must then have changed.
        """
        if not wanted and CALIBRATED & set(self.used):
            return None
        if not wanted:
            raise ExportError(f"{self.scheme} changes nothing: no weight of the file belongs to a module that it names")
        return check_quantized(self.scheme, source, stored, wanted)

    def select_nodes(self, nodes: Sequence[Node], constants: Mapping[str, Floats]) -> dict[str, list[Node]]:
        """The operators of each scheme; only for a mixture of schemes."""
        owners = match_weights(self.weights, constants)
        modules = assign_nodes(nodes, owners)
        chosen: dict[str, list[Node]] = {scheme: [] for scheme in self.used}
        for node in nodes:
            scheme = (self.schemes or {}).get(modules.get(node.name, ""), self.rest)
            if scheme != "none":
                chosen[scheme].append(node)
        return chosen

    def select_constants(self, constants: Mapping[str, Floats]) -> dict[str, str]:
        """The scheme of each constant that has one; only for a mixture of schemes."""
        owners = match_weights(self.weights, constants)
        given = {name: (self.schemes or {}).get(module, "none") for name, module in owners.items()}
        return {name: scheme for name, scheme in given.items() if scheme != "none"}


def wanted_weights(nodes: Sequence[Node], constants: Mapping[str, Floats], mixture: Mixture) -> dict[str, str]:
    """The matrices that products and tables of a float32 file read, and the scheme that each is to have."""
    weights = {name for node in nodes if node.kind in WEIGHTED for name in node.constants if name in constants}
    matrices = {name: constants[name] for name in constants if name in weights and is_matrix(constants[name].shape)}
    if mixture.schemes is None:
        return dict.fromkeys(matrices, mixture.scheme)
    return mixture.select_constants(matrices)


def takes(target: str, scheme: str, module: str) -> bool:
    """Whether `scheme` changes anything in `module` of a `target` file.

    Products of activations, norms and position tables have no weights that quantizers take: only schemes that quantize
    activations reach them.
    """
    if scheme == "none":
        return False
    product = module.endswith((SCORES, HEADS))
    norm, positions = module.endswith("_norm"), module == "embed.positions"
    if target == "coreml":
        return not product and not norm
    if scheme in CALIBRATED:
        return target == "tflite" or not (norm or positions)
    return not (product or norm or positions)


def fit_recipe(recipe: Recipe, config: TransformerConfig, target: str) -> dict[str, str]:
    """The scheme of each module; raises RecipeError where the recipe does not fit the model or the target."""
    check_mixable(recipe, target)
    schemes = resolve_recipe(recipe, source_modules(config))
    _check_rules_take(recipe, schemes, target)
    return schemes


def mixture_of(recipe: Recipe, checkpoint: Checkpoint, target: str) -> Mixture:
    """What a recipe asks of a quantizer for this model; raises RecipeError where it does not fit model or target."""
    schemes = fit_recipe(recipe, checkpoint.config, target)
    return Mixture(scheme=recipe.name, schemes=schemes, rest=recipe.scheme, weights=checkpoint.weights)


def _check_rules_take(recipe: Recipe, schemes: Mapping[str, str], target: str) -> None:
    """Raise RecipeError for a rule that gives a scheme to no module where it would change anything."""
    for rule in recipe.rules:
        matched = [module for module in schemes if rule.matches(module)]
        if rule.scheme != "none" and not any(takes(target, rule.scheme, module) for module in matched):
            raise RecipeError(
                f"the recipe {recipe.name}: {rule.scheme} changes nothing in {rule.modules!r} of a {target} file "
                "(it has no weights for it to take)"
            )

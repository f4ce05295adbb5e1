"""One file that is asked for: of which model, for which target, by which route, in which scheme and form."""

from collections.abc import Sequence
from dataclasses import dataclass

from edgekit.export.coreml_options import CoremlOptions
from edgekit.export.recipes import Recipe
from edgekit.export.targets import Target
from edgekit.export.writer_plan import CacheDtype, KvCache
from edgekit.model.config import TransformerConfig
from edgekit.program import Framework, ModelTask


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


@dataclass(frozen=True, kw_only=True)
class AskedFile:
    """One file as it is asked for. `lengths` are sequence lengths in tokens, of all targets but Core ML, whose are in
    `coreml`; taken `by_default`, they are no problem of a target that can't have them.
    """

    config: TransformerConfig | ForeignModel
    target: Target
    route: Framework
    scheme: str | Recipe
    rewrites: tuple[str, ...]
    lengths: tuple[int, ...]
    by_default: bool
    coreml: CoremlOptions
    kv_cache: KvCache
    cache_dtype: CacheDtype

    @property
    def writes(self) -> bool:
        """Whether the model writes."""
        return self.config.task != "classify"

    @property
    def recipe(self) -> Recipe | None:
        """Its recipe, where it has one instead of a scheme."""
        return self.scheme if isinstance(self.scheme, Recipe) else None

    @property
    def label(self) -> str:
        """The name of its scheme or recipe."""
        return self.scheme.name if isinstance(self.scheme, Recipe) else self.scheme

    @property
    def schemes(self) -> tuple[str, ...]:
        """The schemes that it will hold."""
        return self.scheme.schemes if isinstance(self.scheme, Recipe) else (self.scheme,)

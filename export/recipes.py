"""Recipes: a scheme for each module of a model, as a TOML file that `export --quantize FILE` takes and `search` writes.

    edgekit = 1
    target = "tflite"                         # optional: any other target is then refused
    scheme = "int8-dynamic"                   # of every module that no rule names

    [[rules]]
    modules = "blocks.*.attention.query"      # a module as `edgekit sensitivity` lists it; * and ? match any letters
    scheme = "int4-weight"

A rule that names one module goes before rules with wildcards; of two equally exact rules that give a module different
schemes, neither wins: that is an error.
"""

import re
import tomllib
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgekit.bundle import Manifest
from edgekit.errors import RecipeError, UnknownNameError
from edgekit.export.schemes import ALIASES, SCHEMES, check_scheme, refusal
from edgekit.outputs import write_text

SUFFIX = ".toml"
#: schemes that can share a file with others, by target; the rest change a whole file or need an integer neighbour
MIXABLE: dict[str, tuple[str, ...]] = {
    "tflite": ("none", "int8-dynamic", "int8-weight", "int4-weight", "int8", "int16x8"),
    "onnx": ("none", "int8-dynamic", "int8-weight", "int4-weight", "int8", "int16x8"),
    "coreml": ("none", "int8-weight", "int4-weight", "palette4", "palette6", "palette8"),
}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Rule(BaseModel):
    """One scheme for the modules of one name or pattern."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    modules: str = Field(min_length=1)
    scheme: str

    @property
    def exact(self) -> bool:
        """Whether it names one module, without wildcards."""
        return not set("*?[") & set(self.modules)

    def matches(self, module: str) -> bool:
        """Whether the rule is about `module`."""
        return module == self.modules if self.exact else fnmatchcase(module, self.modules)


class Recipe(BaseModel):
    """A scheme for each module. `found` is what the search that wrote it measured; it decides nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    edgekit: Literal[1] = 1
    name: str
    target: str | None = None
    scheme: str
    rules: tuple[Rule, ...] = ()
    found: dict[str, Any] = {}

    @property
    def schemes(self) -> tuple[str, ...]:
        """Every scheme that it names, in the order of the vocabulary."""
        named = {self.scheme, *(rule.scheme for rule in self.rules)}
        return tuple(scheme for scheme in SCHEMES if scheme in named)


def read_recipe(path: Path) -> Recipe:
    """Read a recipe file; its name is the file's, without the suffix.

    Raises RecipeError where it is missing, no TOML, has unknown fields, or names a scheme that does not exist.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"can't read the recipe {path}: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(f"the recipe {path} is not TOML: {error}") from error
    if not _NAME.fullmatch(path.stem) or path.stem in SCHEMES or path.stem in ALIASES:
        raise RecipeError(f"{path.name} can't name a bundle: use letters, digits, -, _ and ., and no scheme's name")
    try:
        recipe = Recipe.model_validate({**content, "name": path.stem})
        return _with_schemes_checked(recipe)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RecipeError(f"the recipe {path} is broken: {where}: {first['msg']}") from error
    except UnknownNameError as error:
        raise RecipeError(f"the recipe {path}: {error}") from error


def write_recipe(recipe: Recipe, path: Path, comment: str) -> None:
    """Write a recipe file with a comment on its first lines; a reader finds the whole of it or none."""
    content = recipe.model_dump(mode="json", exclude={"name"}, exclude_none=True)
    head = "".join(f"# {line}\n" for line in comment.splitlines())
    write_text(path, head + tomli_w.dumps(content))


def schemes_of(manifest: Manifest) -> tuple[str, ...]:
    """The schemes that a bundle's file holds: those of its recipe, or its one scheme.

    Raises RecipeError or UnknownNameError for a manifest that names others.
    """
    content = manifest.scheme_details.get("recipe")
    if content is None:
        return (check_scheme(manifest.scheme),)
    try:
        return _with_schemes_checked(Recipe.model_validate(content)).schemes
    except ValidationError as error:
        raise RecipeError(f"{manifest.name}: the recipe in its manifest is broken") from error


def check_mixable(recipe: Recipe, target: str) -> None:
    """Raise RecipeError unless `target` can do all of the recipe's schemes in one file."""
    if recipe.target not in (None, target):
        raise RecipeError(f"the recipe {recipe.name} is for {recipe.target}, not {target}")
    if target not in MIXABLE:
        raise RecipeError(f"{target} takes no recipes: {refusal('int8-dynamic', target)}")
    for scheme in recipe.schemes:
        refused = refusal(scheme, target)
        if refused:
            raise RecipeError(f"the recipe {recipe.name}: {refused}")
        if scheme not in MIXABLE[target]:
            raise RecipeError(f"the recipe {recipe.name}: {scheme} is of a whole {target} file, not of single modules")
    if {"int8", "int16x8"} <= set(recipe.schemes):
        raise RecipeError(f"the recipe {recipe.name} mixes int8 and int16x8: choose one type for activations")


def resolve_recipe(recipe: Recipe, modules: Iterable[str]) -> dict[str, str]:
    """The scheme of each of a model's modules.

    Raises RecipeError for a rule that matches no module (it names the nearest) and for rules that contradict.
    """
    modules = tuple(modules)
    for rule in recipe.rules:
        if not any(rule.matches(module) for module in modules):
            near = get_close_matches(rule.modules, modules, n=1, cutoff=0.4)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise RecipeError(f"the recipe {recipe.name}: no module matches {rule.modules!r}{hint}")
    return {module: _scheme_of(recipe, module) for module in modules}


def _scheme_of(recipe: Recipe, module: str) -> str:
    rules = [rule for rule in recipe.rules if rule.matches(module)]
    decisive = [rule for rule in rules if rule.exact] or rules
    schemes = {rule.scheme for rule in decisive}
    if len(schemes) > 1:
        said = " and ".join(f"{rule.modules!r} ({rule.scheme})" for rule in decisive)
        raise RecipeError(f"the recipe {recipe.name} contradicts itself about {module}: {said}")
    return schemes.pop() if schemes else recipe.scheme


def recipe_of(name: str, target: str, schemes: Mapping[str, str], found: Mapping[str, Any] | None = None) -> Recipe:
    """The shortest recipe without wildcards that gives each module its scheme."""
    used = list(schemes.values())
    common = max(dict.fromkeys(used), key=used.count)
    rules = tuple(Rule(modules=module, scheme=scheme) for module, scheme in schemes.items() if scheme != common)
    return Recipe(name=name, target=target, scheme=common, rules=rules, found=dict(found or {}))


def _with_schemes_checked(recipe: Recipe) -> Recipe:
    """The recipe with aliases resolved; raises UnknownNameError."""
    rules = tuple(rule.model_copy(update={"scheme": check_scheme(rule.scheme)}) for rule in recipe.rules)
    return recipe.model_copy(update={"scheme": check_scheme(recipe.scheme), "rules": rules})

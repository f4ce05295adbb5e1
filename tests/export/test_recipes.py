"""Recipe files: read, resolved and refused with the reason; and really exported."""

from pathlib import Path

import pytest

from edgekit.bundle import open_bundle
from edgekit.errors import EdgekitError, RecipeError
from edgekit.export.pipeline import export_checkpoint
from edgekit.export.plan import plan_exports
from edgekit.export.quantize.modules import source_modules
from edgekit.export.recipes import (
    Recipe,
    Rule,
    check_mixable,
    read_recipe,
    recipe_of,
    resolve_recipe,
    schemes_of,
    write_recipe,
)
from tests.tiny import tiny_checkpoint

MODULES = ("embed.tokens", "blocks.0.attention.query", "blocks.0.attention.key", "blocks.0.ffn.up", "classifier")


def recipe(scheme: str, *rules: tuple[str, str], target: str | None = None) -> Recipe:
    made = tuple(Rule(modules=modules, scheme=named) for modules, named in rules)
    return Recipe(name="mine", scheme=scheme, rules=made, target=target)


def write(folder: Path, text: str, name: str = "mine.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_recipe_is_read_as_it_is_written(tmp_path: Path) -> None:
    made = recipe("int8-dynamic", ("blocks.*.attention.*", "int4-weight"), target="tflite")
    write_recipe(made, tmp_path / "mine.toml", "found by a search")
    assert read_recipe(tmp_path / "mine.toml") == made
    assert (tmp_path / "mine.toml").read_text().startswith("# found by a search\n")


def test_aliases_mean_schemes(tmp_path: Path) -> None:
    path = write(tmp_path, 'edgekit = 1\nscheme = "w8a8"\nrules = [{modules = "a", scheme = "dynamic_wi8_afp32"}]\n')
    assert read_recipe(path).schemes == ("int8-dynamic", "int8")


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("mine.toml", "scheme = ", "is not TOML"),
        ("mine.toml", 'edgekit = 1\nscheme = "int8"\nbits = 4\n', "bits: Extra inputs"),
        ("mine.toml", "edgekit = 1\n", "scheme: Field required"),
        ("mine.toml", 'edgekit = 2\nscheme = "int8"\n', "edgekit: Input should be 1"),
        ("mine.toml", 'edgekit = 1\nscheme = "int9"\n', "unknown scheme 'int9': did you mean int8"),
        ("int8.toml", 'edgekit = 1\nscheme = "none"\n', "can't name a bundle"),
        ("a b.toml", 'edgekit = 1\nscheme = "none"\n', "can't name a bundle"),
    ],
)
def test_broken_recipes_say_what_is_wrong(tmp_path: Path, name: str, text: str, says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        read_recipe(write(tmp_path, text, name))


def test_files_that_are_no_text_or_not_there(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match="is not TOML"):
        read_recipe(tmp_path / "mine.toml")
    with pytest.raises(RecipeError, match="No such file"):
        read_recipe(tmp_path / "other.toml")


def test_one_module_goes_before_wildcards() -> None:
    asked = recipe("none", ("blocks.*", "int8-dynamic"), ("blocks.0.attention.key", "int4-weight"))
    assert list(resolve_recipe(asked, MODULES).values()) == [
        "none",
        "int8-dynamic",
        "int4-weight",
        "int8-dynamic",
        "none",
    ]


def test_a_rule_that_matches_nothing_names_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"no module matches 'blocks.0.atention.query'; did you mean blocks.0.atten"):
        resolve_recipe(recipe("none", ("blocks.0.atention.query", "int8-dynamic")), MODULES)


def test_rules_that_contradict_are_both_named() -> None:
    asked = recipe("none", ("*.attention.*", "int8-dynamic"), ("blocks.0.*", "int4-weight"))
    with pytest.raises(RecipeError, match=r"about blocks.0.attention.query: '\*.attention.\*' \(int8-dynamic\) and"):
        resolve_recipe(asked, MODULES)
    agreed = recipe("none", ("*.attention.*", "int8-dynamic"), ("blocks.0.*", "int8-dynamic"))
    assert resolve_recipe(agreed, MODULES)["blocks.0.ffn.up"] == "int8-dynamic"


@pytest.mark.parametrize(
    ("asked", "target", "says"),
    [
        (recipe("palette4"), "tflite", "tflite does not offer palette4"),
        (recipe("fp16"), "onnx", "fp16 is of a whole onnx file"),
        (recipe("int8", ("a", "int16x8")), "tflite", "mixes int8 and int16x8"),
        (recipe("int8-dynamic", target="onnx"), "tflite", "is for onnx, not tflite"),
        (recipe("none"), "pt2", "pt2 takes no recipes"),
    ],
)
def test_what_a_target_cannot_mix_is_refused(asked: Recipe, target: str, says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        check_mixable(asked, target)


def test_the_shortest_recipe_of_a_choice() -> None:
    made = recipe_of("m", "tflite", dict(zip(MODULES, ["none", "int8-dynamic", "int8-dynamic"] * 2, strict=False)))
    assert made.scheme == "int8-dynamic"
    assert [rule.modules for rule in made.rules] == ["embed.tokens", "blocks.0.ffn.up"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('rules = [{modules = "blocks.7.*", scheme = "int4-weight"}]', "no module matches 'blocks.7.*'"),
        ('rules = [{modules = "final_norm", scheme = "int4-weight"}]', "int4-weight changes nothing in 'final_norm'"),
    ],
)
def test_a_plan_tells_of_a_recipe_that_does_not_fit(tmp_path: Path, text: str, says: str) -> None:
    path = write(tmp_path, f'edgekit = 1\nscheme = "int8-dynamic"\n{text}\n')
    (plan,) = plan_exports("tiny", tiny_checkpoint(tmp_path).config, targets=["tflite"], schemes=[str(path)])
    assert isinstance(plan.problem, EdgekitError)
    assert says in str(plan.problem)


def test_export_takes_a_recipe_and_its_manifest_tells_what_became_of_it(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(tmp_path, hidden_size=32, ffn_size=64)
    path = write(
        tmp_path,
        'edgekit = 1\nscheme = "int8-dynamic"\n[[rules]]\nmodules = "blocks.*.ffn.*"\nscheme = "int4-weight"\n'
        '[[rules]]\nmodules = "classifier"\nscheme = "none"\n',
    )
    plans = plan_exports(
        "tiny", checkpoint.config, targets=["tflite"], schemes=[str(path)], output=tmp_path / "bundles"
    )
    assert 0 < plans[0].expected_size_bytes < 100_000
    (outcome,) = export_checkpoint(checkpoint, plans)
    assert outcome.error is None
    manifest = open_bundle(tmp_path / "bundles" / "tiny.tflite-mine.edgekit").manifest
    assert manifest.scheme == "mine"
    assert schemes_of(manifest) == ("none", "int8-dynamic", "int4-weight")
    counts = manifest.scheme_details["weights"]
    config = checkpoint.config
    int4 = 2 * 2 * config.hidden_size * config.ffn_size
    assert counts["int4"]["elements"] == int4
    assert counts["int8"]["elements"] == 259 * 32 + 2 * 4 * 32 * 32
    assert counts["float32"]["elements"] >= config.num_labels * 32  # the classifier, and vectors
    assert "newer than" in manifest.requires["tflite-runtime"]
    assert manifest.scheme_details["recipe"]["rules"][0]["modules"] == "blocks.*.ffn.*"


def test_modules_are_those_of_the_model(tmp_path: Path) -> None:
    config = tiny_checkpoint(tmp_path, embedding_size=8, num_layers=1).config
    assert source_modules(config) == (
        "embed.tokens",
        "embed.project",
        "embed.positions",
        "blocks.0.attention_norm",
        "blocks.0.attention.query",
        "blocks.0.attention.key",
        "blocks.0.attention.value",
        "blocks.0.attention.scores",
        "blocks.0.attention.heads",
        "blocks.0.attention.output",
        "blocks.0.ffn_norm",
        "blocks.0.ffn.up",
        "blocks.0.ffn.down",
        "final_norm",
        "classifier",
    )

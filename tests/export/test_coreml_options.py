"""Options of Core ML packages: what they become, what is refused and why."""

import json
from pathlib import Path

import numpy as np
import pytest

from edgekit.errors import RefusedError
from edgekit.export.coreml_options import CoremlOptions, DeploymentTarget
from edgekit.export.lengths import fit_steps
from edgekit.export.plan import plan_exports
from edgekit.model.config import TransformerConfig
from edgekit.program import Signature, TensorSpec
from edgekit.proof.golden import Golden, Step
from tests.cli.test_main import run
from tests.tiny import tiny_checkpoint

CONFIG = TransformerConfig(
    vocab_size=259, num_labels=2, hidden_size=16, num_layers=2, num_heads=2, ffn_size=32, max_length=128
)
IDS = Signature(
    name="serving_default",
    method="forward",
    inputs=(TensorSpec(name="ids", dtype="int32", shape=(1, 128)),),
    outputs=(TensorSpec(name="logits", dtype="float32", shape=(1, 2)),),
)


def problem(scheme: str = "none", target: str = "coreml", **options: object) -> str:
    (plan,) = plan_exports(
        "tiny", CONFIG, targets=[target], schemes=[scheme], coreml=CoremlOptions.model_validate(options)
    )
    return str(plan.problem or "")


@pytest.mark.parametrize(
    ("scheme", "target", "words"),
    [
        ("int4-weight", "iOS17", ["int4-weight needs iOS18", "blocks", "iOS17 was asked for"]),
        ("int8-weight", "iOS15", ["int8-weight needs iOS16", "constexpr_affine_dequantize"]),
        ("palette4", "iOS15", ["palette4 needs iOS16", "constexpr_lut_to_dense"]),
    ],
)
def test_a_scheme_that_an_older_system_can_not_read(scheme: str, target: DeploymentTarget, words: list[str]) -> None:
    for word in words:
        assert word in problem(scheme, minimum_deployment_target=target)
    assert problem(scheme, minimum_deployment_target="iOS18") == ""
    assert problem(scheme) == ""  # unless asked for, the target is what the scheme needs
    assert problem("fp16", minimum_deployment_target=target) == ""


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"multifunction": True}, ["--multifunction", "two or more", "--sequence-length"]),
        ({"multifunction": True, "sequence_lengths": (128,)}, ["two or more"]),
        ({"sequence_lengths": (16, 64)}, ["128 tokens, not 64", "add it"]),
        ({"sequence_lengths": (16, 256)}, ["128 tokens, not 256", "no more than 128"]),
        (
            {"sequence_lengths": (16, 128), "minimum_deployment_target": "iOS17"},
            ["needs iOS18", "only one input", "iOS17 was asked for"],
        ),
        (
            {"sequence_lengths": (16, 128), "multifunction": True, "minimum_deployment_target": "iOS16"},
            ["--multifunction needs iOS18", "iOS16 was asked for"],
        ),
    ],
)
def test_lengths_that_can_not_be(options: dict[str, object], words: list[str]) -> None:
    for word in ["coreml: ", *words]:
        assert word in problem(**options)


def test_options_without_a_core_ml_target_are_refused() -> None:
    for options, flag in (
        ({"minimum_deployment_target": "iOS18"}, "--minimum-deployment-target"),
        ({"author": "me"}, "--author"),
    ):
        with pytest.raises(RefusedError, match=rf"^{flag} has no use for tflite: it is of --target coreml"):
            problem(target="tflite", **options)
    plans = plan_exports("tiny", CONFIG, targets=["all"], coreml=CoremlOptions(minimum_deployment_target="iOS18"))
    assert {plan.target.name: plan.coreml and plan.coreml.target for plan in plans} == {
        "tflite": None,
        "onnx": None,
        "coreml": "iOS18",
    }


def test_the_deployment_target_that_options_need() -> None:
    assert CoremlOptions().target == "iOS17"
    assert CoremlOptions(sequence_lengths=(128, 16, 16)).target == "iOS18"
    assert CoremlOptions(sequence_lengths=(128, 16, 16)).sequence_lengths == (16, 128)
    assert CoremlOptions(minimum_deployment_target="iOS15", name="x", labels=("a",)).recorded() == {
        "minimum_deployment_target": "iOS15"
    }
    with pytest.raises(ValueError, match="start at 1"):
        CoremlOptions(sequence_lengths=(0, 16))


def test_functions_have_a_signature_each_and_shapes_do_not() -> None:
    functions = CoremlOptions(sequence_lengths=(16, 64, 128), multifunction=True).signatures(IDS)
    assert [(each.name, each.inputs[0].shape) for each in functions] == [
        ("serving_default", (1, 128)),
        ("length_64", (1, 64)),
        ("length_16", (1, 16)),
    ]
    assert CoremlOptions(sequence_lengths=(16, 64, 128)).signatures(IDS) == (IDS,)


def golden(*counts: int) -> Golden:
    masks = [(np.arange(128) < count).astype(np.int32)[None] for count in counts]
    steps = tuple(
        Step(signature="s", inputs={"ids": 7 * mask, "mask": mask}, outputs={"logits": np.array([[i, 0.0]])})
        for i, mask in enumerate(masks)
    )
    return Golden(steps=steps, labels=np.arange(len(counts), dtype=np.int32))


def test_steps_are_cut_to_the_shortest_length_and_every_length_is_tried() -> None:
    fitted = fit_steps(golden(3, 16, 17, 5, 4), [16, 64, 128], lambda length: f"length_{length}")
    assert [step.signature for step in fitted.steps] == [f"length_{n}" for n in (16, 128, 64, 16, 16)]
    for step, count in zip(fitted.steps, (3, 16, 17, 5, 4), strict=True):
        assert step.inputs["ids"].shape == (1, int(step.signature.removeprefix("length_")))
        assert step.inputs["ids"].sum() == 7 * count
    assert [step.outputs["logits"][0, 0] for step in fitted.steps] == [0, 1, 2, 3, 4]
    with pytest.raises(RefusedError, match=r"length of 2 can't be proven.*leave it out"):
        fit_steps(golden(3, 16, 17), [2, 128], str)


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["--target", "coreml", "--minimum-deployment-target", "iOS14"], 1, ["deployment target 'iOS14'", "iOS15"]),
        (["--target", "coreml", "--sequence-length", "16,many"], 2, ["'many'", "--sequence-length"]),
        (["--target", "onnx", "--multifunction"], 1, ["--multifunction has no use for onnx"]),
        (["--target", "coreml", "--sequence-length", "4,8"], 1, ["16 tokens, not 8: add it"]),
    ],
)
def test_the_command_says_no_in_one_line(argv: list[str], code: int, words: list[str], tmp_path: Path) -> None:
    tiny_checkpoint(tmp_path)
    shown = run("export", "tiny", *argv, cwd=tmp_path)
    assert shown.returncode == code
    for word in words:
        assert word in " ".join(shown.stderr.split())
    if code == 1:
        assert len(shown.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "bundles").exists()


def test_a_dry_run_shows_what_stands_in_the_way(tmp_path: Path) -> None:
    tiny_checkpoint(tmp_path)
    options = ["--quantize", "none,int4-weight", "--minimum-deployment-target", "iOS16", "--dry-run", "--json"]
    shown = run("export", "tiny", "--target", "coreml", *options, cwd=tmp_path)
    assert shown.returncode == 1
    assert [bool(row["problem"]) for row in json.loads(shown.stdout)] == [False, True]

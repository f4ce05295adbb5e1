"""Rewrites through every route: the file has the other form, and answers as the model that was not rewritten."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgekit.bundle import open_bundle
from edgekit.export.describe import FileDescription, describe_file
from edgekit.model.rewrites import REWRITES, added_tolerance, rewrite_signature
from edgekit.program import Framework
from edgekit.proof.golden import fit_inputs, read_golden, write_golden
from edgekit.sources.checkpoint import encoder_signature
from tests.export.routes import LENGTH, SIX, Routes
from tests.export.test_converters import difference
from tests.export.test_pipeline import edgekit, refuses
from tests.tiny import loud_checkpoint, tiny_checkpoint

#: what excludes nothing, at once; what excludes it, alone
FORMS = [tuple(name for name in REWRITES if name != "split-heads"), ("split-heads",)]
#: operators of one head, in every format's spelling
_PRODUCTS = ("FULLY_CONNECTED", "MatMul", "Gemm", "linear", "matmul")


def count(description: FileDescription, *names: str) -> int:
    return sum(description.operators.get(name, 0) for name in names)


@pytest.mark.parametrize(
    ("target", "framework", "rewrites"),
    [
        pytest.param(*route, form, marks=[pytest.mark.slow] if form == FORMS[1] and route not in SIX[:3:2] else [])
        for form in FORMS
        for route in SIX
    ],
)
def test_files_take_the_other_form_and_answer_as_before(
    routes: Routes, target: str, framework: Framework, rewrites: tuple[str, ...]
) -> None:
    model, steps = routes.rewrite(target, framework, rewrites)
    close = difference(routes.golden("torch"), routes.replay(model, target, steps))
    assert close <= 1e-5 + added_tolerance(rewrites)
    plain, rewritten = describe_file(routes.convert(target, framework)[0]), describe_file(model)
    layers = routes.checkpoint.config.num_layers
    if "gelu-tanh" in rewrites:
        assert close > 1e-5  # or it is the exact function still
    if "fused-heads" in rewrites:
        assert count(rewritten, *_PRODUCTS) == count(plain, *_PRODUCTS) - 2 * layers
    if "split-heads" in rewrites:
        assert count(rewritten, *_PRODUCTS) > count(plain, *_PRODUCTS)
        assert count(rewritten, "SOFTMAX", "Softmax", "softmax") == layers * routes.checkpoint.config.num_heads
    if "float-mask" in rewrites:
        (mask,) = [port for port in rewritten.signatures[0].inputs if port.name == "mask"]
        assert (mask.dtype, mask.shape) == ("float32", (1, 1, 1, LENGTH))
        assert count(rewritten, "CAST", "Cast", "cast") < count(plain, "CAST", "Cast", "cast")
    if "fp16-norm" in rewrites:
        assert count(rewritten, "REDUCE_MAX", "ReduceMax", "reduce_max") == 2 * layers + 1


@pytest.mark.slow
def test_safe_norms_rescue_float16(tmp_path: Path) -> None:
    """Without the rewrite the file is NaN or nonsense and is written as failed; with it, parity holds."""
    loud_checkpoint(tmp_path)
    plain = ("export", "loud", "--target", "coreml", "--quantize", "fp16")
    assert "written as failed" in edgekit(*plain, cwd=tmp_path, code=1).stderr
    edgekit(*plain, "--rewrite", "fp16-norm", cwd=tmp_path)
    failed, safe = (open_bundle(tmp_path / "bundles" / f"loud.coreml-fp16{end}.edgekit") for end in ("", "+fp16-norm"))
    assert failed.manifest.parity.verdict == "failed"
    assert safe.manifest.proven
    assert safe.manifest.parity.max_abs_reference == failed.manifest.parity.max_abs_reference


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint `tiny`, exported with two rewrites, as float32 and as float16."""
    folder = tmp_path_factory.mktemp("rewritten")
    tiny_checkpoint(folder)
    rewrites = ("--rewrite", "fp16-mask", "--rewrite", "gelu-tanh,float-mask")
    edgekit("export", "tiny", "--quantize", "none,fp16", *rewrites, cwd=folder)
    return folder


@pytest.mark.parametrize("scheme", ["none", "fp16"])
def test_the_bundle_tells_its_rewrites(exported: Path, scheme: str) -> None:
    bundle = open_bundle(exported / "bundles" / f"tiny.tflite-{scheme}+float-mask+gelu-tanh+fp16-mask.edgekit")
    assert bundle.manifest.rewrites == ("float-mask", "gelu-tanh", "fp16-mask")
    assert bundle.manifest.scheme == scheme
    assert "tanh approximation" in bundle.manifest.scheme_details["rewrites"]["gelu-tanh"]
    assert read_golden(bundle.golden_path).steps[0].inputs["mask"].shape == (1, 1, 1, 16)
    assert bundle.manifest.proven


def test_a_wider_tolerance_is_said(exported: Path) -> None:
    bundle = open_bundle(exported / "bundles" / "tiny.tflite-none+float-mask+gelu-tanh+fp16-mask.edgekit")
    parity = bundle.manifest.parity
    assert parity.tolerance == pytest.approx((1e-5 + added_tolerance(["gelu-tanh"])) * parity.max_abs_reference)
    said = edgekit("export", "tiny", "--rewrite", "gelu-tanh", cwd=exported).stdout
    assert "gelu-tanh adds 0.001 to the relative tolerance of none (1e-05); measured" in said


def test_other_verbs_feed_the_mask_that_the_file_takes(exported: Path) -> None:
    bundle = "bundles/tiny.tflite-none+float-mask+gelu-tanh+fp16-mask.edgekit"
    answers = [edgekit("predict", model, "open the file", cwd=exported).stdout for model in (bundle, "tiny")]
    assert answers[0].split()[:2] == answers[1].split()[:2]
    assert json.loads(edgekit("verify", bundle, "--json", cwd=exported).stdout)[0]["ok"]


def test_what_can_not_be_rewritten_is_refused(exported: Path) -> None:
    refuses("export", "tiny", "--rewrite", "gelu", cwd=exported, message="did you mean gelu-tanh?")
    refuses("export", "tiny", "--rewrite", "int32-ids", cwd=exported, message="ids are int32 in every file")
    both = ("--rewrite", "fused-heads,split-heads")
    refuses("export", "tiny", *both, cwd=exported, message="exclude each other")
    integers = ("--quantize", "int8", "--rewrite", "float-mask")
    refuses("export", "tiny", *integers, cwd=exported, message="tflite does not offer float-mask with int8")
    lengths = ("--target", "coreml", "--sequence-length", "8,16")
    refuses("export", "tiny", *lengths, "--rewrite", "float-mask", cwd=exported, message="one sequence length")


@pytest.mark.slow
def test_calibration_feeds_the_mask_that_the_file_takes(exported: Path) -> None:
    rewrites = ("--rewrite", "float-mask,fp16-mask", "--num-calibration-samples", "20")
    edgekit("export", "tiny", "--target", "onnx", "--quantize", "int16x8", *rewrites, cwd=exported)
    bundle = open_bundle(exported / "bundles" / "tiny.onnx-int16x8+float-mask+fp16-mask.edgekit")
    assert bundle.manifest.scheme_details["calibration"]["samples"] == 20


def test_rewrites_are_listed(tmp_path: Path) -> None:
    listed = json.loads(edgekit("schemes", "--rewrites", "--json", cwd=tmp_path).stdout)
    assert {name for name, row in listed.items() if not row["built_in"]} == set(REWRITES)
    assert listed["gelu-tanh"]["adds_tolerance"] == added_tolerance(["gelu-tanh"])


def test_steps_are_fitted_by_their_values(routes: Routes, tmp_path: Path) -> None:
    signature = rewrite_signature(encoder_signature(routes.checkpoint, "torch", LENGTH), ("float-mask",))
    given = read_golden(routes.steps())
    fitted = replace(given, steps=fit_inputs(given.steps, signature))
    write_golden(tmp_path / "steps.npz", fitted)
    for before, after in zip(given.steps, read_golden(tmp_path / "steps.npz").steps, strict=True):
        np.testing.assert_array_equal(after.inputs["ids"], before.inputs["ids"])
        np.testing.assert_array_equal(after.inputs["mask"][:, 0, 0], before.inputs["mask"])

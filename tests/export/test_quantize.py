"""Every offered cell of scheme × target: made, run, measured; its weights compared one by one."""

from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from edgekit.errors import RefusedError
from edgekit.export.describe import describe_file, size_on_disk
from edgekit.export.diagnosis.storage import weight_scales
from edgekit.export.jobs import Job
from edgekit.export.plan import plan_exports
from edgekit.export.quantize import coreml_weights, onnx_weights, tflite_weights
from edgekit.export.quantize.mixture import Mixture
from edgekit.export.quantize.modules import match_weights
from edgekit.export.schemes import (
    ALIASES,
    BYTES_PER_WEIGHT,
    CALIBRATED,
    SCHEMES,
    TOLERANCES,
    check_scheme,
    reason,
    refusal,
    requirements,
)
from edgekit.export.targets import TARGETS
from edgekit.model.quantization import BLOCK, fake_quantize_weight
from edgekit.program import Framework
from edgekit.proof.golden import stack_outputs
from edgekit.proof.prove import choose_samples
from tests.export.quantized import Quantized, trained_checkpoint
from tests.export.routes import LENGTH, Routes
from tests.tiny import tiny_checkpoint

COMPRESSED = [
    (target, scheme) for scheme, targets in SCHEMES.items() for target in targets if scheme not in ("none", "fp16")
]
FLOATS = {
    "tflite": tflite_weights.float_weights,
    "onnx": onnx_weights.float_weights,
    "coreml": coreml_weights.float_weights,
}
STORED = {
    "tflite": lambda path, _: tflite_weights.quantized_weights(path),
    "onnx": onnx_weights.quantized_weights,
    "coreml": coreml_weights.quantized_weights,
}
REFUSED = [(target, scheme) for scheme, targets in SCHEMES.items() for target in TARGETS if target not in targets]


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> Quantized:
    folder = tmp_path_factory.mktemp("quantized")
    checkpoint = trained_checkpoint(folder)
    choose_samples(checkpoint, None).write_steps(folder / "steps.npz")  # real texts, where Routes has random ids
    return Quantized(routes=Routes(folder=folder, checkpoint=checkpoint), folder=folder)


@pytest.mark.parametrize(("target", "scheme"), COMPRESSED)
def test_weights_took_and_are_within_a_step(quantized: Quantized, target: str, scheme: str) -> None:
    made, result = quantized.make(target, scheme)
    evidence = result.details.evidence
    assert evidence is not None
    assert evidence.quantized_elements >= 0.95 * evidence.matrix_elements
    assert 0 < evidence.largest_difference_in_steps <= 1.001
    assert all(weight.relative_difference > 0 for weight in evidence.largest)
    assert evidence.largest[0].shape == (259, 32)  # the token table, the largest weight
    counted = {dtype: count.elements for dtype, count in result.details.weights.items() if dtype != "float32"}
    assert sum(counted.values()) > 0
    assert result.details.source_weights["float32"].elements > 0
    same_operators = (target, scheme) in (("tflite", "int8-dynamic"), ("tflite", "int4-weight"))  # weights in integers
    assert (result.details.source_operators == result.details.operators) is same_operators
    assert size_on_disk(made) < 0.75 * size_on_disk(quantized.source(target))


@pytest.mark.parametrize(("target", "scheme"), COMPRESSED)
def test_files_run_and_stay_close(quantized: Quantized, target: str, scheme: str) -> None:
    made, _ = quantized.make(target, scheme)
    reference = stack_outputs(quantized.routes.golden("torch").steps, "logits")
    outputs = stack_outputs(quantized.routes.replay(made, target).steps, "logits")
    close = float(np.max(np.abs(outputs - reference)) / max(1.0, float(np.max(np.abs(reference)))))
    assert 0 < close <= TOLERANCES[scheme].relative


@pytest.mark.parametrize(("target", "scheme"), COMPRESSED)
def test_the_report_knows_what_shares_a_scale(quantized: Quantized, target: str, scheme: str) -> None:
    made, _ = quantized.make(target, scheme)
    source = FLOATS[target](quantized.source(target))
    stored = STORED[target](made, source)
    owners = match_weights(quantized.checkpoint.weights, {name: source[name] for name in stored if name in source})
    assert len(owners) >= 13
    for name, module in owners.items():
        weight, steps = quantized.checkpoint.weights[f"{module}.weight"], np.squeeze(stored[name].step)
        by_row = [bool(np.all(s == s[:, :1])) for s in (steps, steps.T) if s.shape == weight.shape]  # either way round
        shared = weight_scales(module, scheme, target)
        if shared in ("tensor", "channel", "block"):
            assert (np.unique(steps).size == 1) is (shared == "tensor"), module
        if shared == "channel":
            assert any(by_row), module
        if shared == "block" and scheme == "int4-weight" and weight.shape[1] > BLOCK:
            assert not any(by_row), module


@pytest.mark.parametrize("scheme", ["int8-dynamic", "int8", "int4-weight"])
def test_the_route_through_tensorflow_quantizes_its_token_table_too(quantized: Quantized, scheme: str) -> None:
    made, result = quantized.make("tflite", scheme, "tensorflow")
    assert result.details.evidence is not None
    assert result.details.evidence.largest[0].shape == (259, 32)
    assert "GATHER" in result.details.source_operators
    assert "EMBEDDING_LOOKUP" in result.details.operators
    reference = stack_outputs(quantized.routes.golden("tensorflow").steps, "logits")
    outputs = stack_outputs(quantized.routes.replay(made, "tflite").steps, "logits")
    assert np.max(np.abs(outputs - reference)) <= TOLERANCES[scheme].relative * max(1.0, np.max(np.abs(reference)))


def test_int8_is_integer_arithmetic(quantized: Quantized) -> None:
    _, result = quantized.make("tflite", "int8")
    operators = result.details.operators
    assert operators["QUANTIZE"] + operators["DEQUANTIZE"] <= 6  # in, out, and around the division
    assert sum(count.elements for dtype, count in result.details.weights.items() if dtype == "float32") <= 64


def test_a_compressed_file_is_reproducible(quantized: Quantized, tmp_path: Path) -> None:
    from edgekit.export.quantize import for_onnx, for_tflite

    for target, module in (("tflite", for_tflite), ("onnx", for_onnx)):
        made, _ = quantized.make(target, "int8")
        again = tmp_path / made.name
        module.compress(quantized.source(target), again, Mixture(scheme="int8"), quantized.calibration())
        assert again.read_bytes() == made.read_bytes()


@pytest.mark.parametrize(("target", "scheme"), REFUSED)
def test_what_a_target_cannot_do_is_refused_by_name(tmp_path: Path, target: str, scheme: str) -> None:
    assert len(reason(scheme, target)) > 10
    assert str(refusal(scheme, target)).startswith(f"{target} does not offer {scheme}: ")
    config = tiny_checkpoint(tmp_path).config
    (plan,) = plan_exports("tiny", config, targets=[target], schemes=[scheme], output=tmp_path)
    assert isinstance(plan.problem, RefusedError)
    assert scheme in str(plan.problem)


def test_a_job_for_a_refused_cell_is_refused_too(quantized: Quantized, tmp_path: Path) -> None:
    from edgekit.export.operations import run_job

    job = Job(
        op="compress",
        target="onnx",
        scheme="palette4",
        input=str(quantized.source("onnx")),
        output=str(tmp_path / "model.onnx"),
        result="",
    )
    with pytest.raises(RefusedError, match="palettes are a format of Core ML"):
        run_job(job)


def test_aliases_mean_schemes_and_recipes_that_exist() -> None:
    from ai_edge_quantizer import recipe

    assert {check_scheme(alias) for alias in ALIASES} <= set(SCHEMES)
    assert check_scheme("w8a8") == "int8"
    assert check_scheme("w8a16") == "int16x8"
    for alias in ALIASES:
        assert alias.startswith("w8a") or callable(getattr(recipe, alias))


def test_every_scheme_is_complete() -> None:
    for scheme in SCHEMES:
        assert scheme in TOLERANCES
        assert BYTES_PER_WEIGHT[scheme] <= 4
        for target in TARGETS:
            assert (refusal(scheme, target) is None) == (target in SCHEMES[scheme])


def test_requirements_are_the_files_own(quantized: Quantized) -> None:
    for target, scheme, wanted in (
        ("onnx", "int8-weight", {"onnx": "opset 18"}),
        ("onnx", "int4-weight", {"onnx": "opset 21"}),
        ("coreml", "int8-weight", {"coreml": "specification 8: iOS 17, macOS 14"}),
        ("coreml", "int4-weight", {"coreml": "specification 9: iOS 18, macOS 15"}),
    ):
        version = describe_file(quantized.make(target, scheme)[0]).version
        assert requirements([scheme], target, "torch", version) == wanted
    for scheme in (scheme for scheme, targets in SCHEMES.items() if "tflite" in targets):
        for via in ("torch", "tensorflow"):
            assert "2.14" in requirements([scheme], "tflite", via, "3")["tflite-runtime"]


def test_jobs_name_a_scheme_and_bring_texts() -> None:
    fields = {"op": "compress", "target": "tflite", "input": "a", "output": "b", "result": "c"}
    with pytest.raises(ValueError, match="is none of none, fp16"):
        Job.model_validate(fields | {"scheme": "int9"})
    for scheme in CALIBRATED:
        with pytest.raises(ValueError, match="needs 'calibration'"):
            Job.model_validate(fields | {"scheme": scheme})


def test_a_masked_score_does_not_stretch_the_range() -> None:
    from edgekit.export.quantize.for_tflite import narrow_mask

    ranges = {
        "mask": {"min": np.float32([-1e4]), "max": np.float32([0])},
        "scores": {"min": np.float32([-10_007.0]), "max": np.float32([5.0])},
        "other": {"min": np.float32([-3.0]), "max": np.float32([2.0])},
    }
    narrowed = narrow_mask(ranges)
    assert narrowed["mask"]["min"] == narrowed["scores"]["min"] == -22  # twice 7, and the margin
    assert narrowed["other"] is ranges["other"]
    assert narrow_mask({"other": ranges["other"]}) == {"other": ranges["other"]}


def test_palettes_are_near_the_best() -> None:
    """Panter and Dite's bound for many values of a normal distribution: 2.72 σ² / 4^bits."""
    from edgekit.export.quantize.for_coreml import choose_palette

    weight = np.random.default_rng(0).normal(size=(128, 512)).astype(np.float32)
    for bits in (4, 6, 8):
        table, indices = choose_palette(weight, bits)
        values = np.array(table)[np.array(indices)].reshape(weight.shape)
        assert len(table) == 2**bits
        assert np.mean((values - weight) ** 2) <= 1.4 * 2.72 / 4**bits
        nearest = np.min(np.abs(weight.ravel()[:500, None] - np.array(table)), axis=1)
        np.testing.assert_allclose(np.abs(values - weight).ravel()[:500], nearest, atol=1e-6)


@pytest.mark.parametrize("framework", ["torch", "tensorflow"])
def test_int4_takes_rows_that_are_no_whole_blocks(tmp_path: Path, framework: Framework) -> None:
    """The embedded model's token table has rows of 28."""
    odd = trained_checkpoint(tmp_path, **{"embedding-size": 28})
    choose_samples(odd, None).write_steps(tmp_path / "steps.npz")
    made = Quantized(routes=Routes(folder=tmp_path, checkpoint=odd), folder=tmp_path)
    path, result = made.make("tflite", "int4-weight", framework)
    assert result.details.evidence is not None
    assert (259, 28) in [weight.shape for weight in result.details.evidence.largest]
    assert {weight.dtype for weight in result.details.evidence.largest} == {"int4"}
    reference = stack_outputs(made.routes.golden("torch").steps, "logits")
    outputs = stack_outputs(made.routes.replay(path, "tflite").steps, "logits")
    evidence = made.make("coreml", "int4-weight", framework)[1].details.evidence
    assert evidence is not None
    assert (259, 28) in [weight.shape for weight in evidence.largest]
    limit = TOLERANCES["int4-weight"].relative * max(1.0, float(np.max(np.abs(reference))))
    assert np.max(np.abs(outputs - reference)) <= limit


@pytest.mark.parametrize("framework", ["torch", "tensorflow"])
def test_a_table_of_odd_width_is_read_right_in_int4(tmp_path: Path, framework: Framework) -> None:
    """The runtime finds rows of int4 by whole bytes: of 3 columns it took every second row from half a byte too early.

    31 columns and the one that is added are no block of 32: fake quantization gives each row one scale.
    """
    width = {"torch": 3, "tensorflow": 31}[framework]
    checkpoint = tiny_checkpoint(tmp_path, embedding_size=width, num_layers=1)
    odd = Quantized(routes=Routes(folder=tmp_path, checkpoint=checkpoint), folder=tmp_path)
    made, result = odd.make("tflite", "int4-weight", framework)
    table = checkpoint.weights["embed.tokens.weight"]
    stored = fake_quantize_weight("embed.tokens.weight", table, "int4-weight")
    reader = Interpreter(str(made), experimental_preserve_all_tensors=True)
    reader.allocate_tensors()
    ids = np.arange(LENGTH, dtype=np.int32)[None] + 40
    for given in reader.get_input_details():
        reader.set_tensor(given["index"], ids if "ids" in given["name"] else np.ones(given["shape"], given["dtype"]))
    reader.invoke()
    (lookup,) = [each for each in reader._get_ops_details() if each["op_name"] == "EMBEDDING_LOOKUP"]
    (sliced,) = [
        each
        for each in reader._get_ops_details()
        if each["op_name"] == "SLICE" and lookup["outputs"][0] in each["inputs"]
    ]
    np.testing.assert_array_equal(reader.get_tensor(sliced["outputs"][0]).reshape(LENGTH, width), stored[ids[0]])
    assert result.details.evidence is not None
    assert result.details.evidence.largest[0].shape == (259, width + 1)
    assert match_weights(checkpoint.weights, {"table": np.pad(table, ((0, 0), (0, 1)))}) == {"table": "embed.tokens"}

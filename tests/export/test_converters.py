"""Every route, converted by a worker and run by the runner: names, numbers, weights."""

import math
from pathlib import Path

import numpy as np
import pytest

from edgekit.export.describe import describe_file
from edgekit.model.sizes import parameter_count
from edgekit.model.weights import parameter_shapes
from edgekit.program import Framework
from edgekit.proof.golden import Golden, read_golden, stack_outputs
from tests.export.routes import LENGTH, REFERENCES, SIX, Routes

RUNNABLE = SIX + REFERENCES
#: relative to max(1, max |logit|): float16 keeps 11 bits of each weight (TFLite), and of each product and sum (ONNX).
#: Measured on random tiny models: 3e-4 and 9e-4; the bound leaves room for deeper ones. Core ML rounds every value:
#: 3e-3 through torch, 1e-2 through TensorFlow, whose norms are made of means and squares that are rounded each.
FP16_TOLERANCE = {"tflite": 5e-3, "onnx": 5e-3, "coreml": 2e-2}


def difference(golden: Golden, produced: Golden) -> float:
    """The largest difference of a logit, relative to max(1, max |logit|)."""
    reference, outputs = (stack_outputs(each.steps, "logits") for each in (golden, produced))
    return float(np.max(np.abs(outputs - reference)) / max(1.0, float(np.max(np.abs(reference)))))


def test_the_source_modules_agree(routes: Routes) -> None:
    assert difference(routes.golden("torch"), routes.golden("tensorflow")) <= 1e-5


def test_a_reference_keeps_inputs_and_labels(routes: Routes) -> None:
    given, golden = read_golden(routes.steps()), routes.golden("torch")
    np.testing.assert_array_equal(golden.labels, given.labels)
    assert len(golden.steps) == LENGTH
    for before, after in zip(given.steps, golden.steps, strict=True):
        assert after.signature == before.signature
        np.testing.assert_array_equal(after.inputs["ids"], before.inputs["ids"])
        np.testing.assert_array_equal(after.inputs["mask"], before.inputs["mask"])


@pytest.mark.parametrize(("target", "framework"), RUNNABLE)
def test_float32_files_equal_their_source(routes: Routes, target: str, framework: Framework) -> None:
    model, _ = routes.convert(target, framework)
    assert difference(routes.golden("torch"), routes.replay(model, target)) <= 1e-5


@pytest.mark.parametrize(("target", "framework"), SIX)
def test_float16_files_stay_close(routes: Routes, target: str, framework: Framework) -> None:
    model, _ = routes.convert(target, framework, "fp16") if target == "coreml" else routes.compress(target, framework)
    close = difference(routes.golden("torch"), routes.replay(model, target))
    assert 0 < close <= FP16_TOLERANCE[target]


@pytest.mark.parametrize(("target", "framework"), SIX + REFERENCES)
def test_every_file_has_the_signature(routes: Routes, target: str, framework: Framework) -> None:
    model, result = routes.convert(target, framework)
    description = describe_file(model)
    (signature,) = description.signatures
    assert signature.name == "serving_default"
    assert {(port.name, port.dtype, port.shape) for port in signature.inputs} == {
        ("ids", "int32", (1, LENGTH)),
        ("mask", "int32", (1, LENGTH)),
    }
    ((name, dtype, shape),) = [(port.name, port.dtype, port.shape) for port in signature.outputs]
    assert (name, dtype, shape) == ("logits", "float32", (1, routes.checkpoint.config.num_labels))
    assert all(not Path(file).is_absolute() for file in result.files)
    assert all((model.parent / file).is_file() for file in result.files)
    assert result.tools


@pytest.mark.parametrize(("target", "framework"), SIX + REFERENCES)
def test_float32_files_hold_all_weights(routes: Routes, target: str, framework: Framework) -> None:
    model, result = routes.convert(target, framework)
    config = routes.checkpoint.config
    # Left out: positions beyond the exported length; vectors of zeros and ones, which converters share or fold.
    matrices = sum(math.prod(shape) for shape in parameter_shapes(config).values() if len(shape) > 1)
    unused = (config.max_length - LENGTH) * config.hidden_size
    stored = describe_file(model).weights["float32"].elements
    assert matrices - unused <= stored <= 1.05 * parameter_count(config)
    assert result.details.source_weights["float32"].elements == parameter_count(config)
    assert set(result.details.weights) & {"float16", "float32"} == {"float32"}


@pytest.mark.parametrize(("target", "framework"), SIX)
def test_float16_took(routes: Routes, target: str, framework: Framework) -> None:
    if target == "coreml":
        model, result = routes.convert(target, framework, "fp16")
    else:
        model, result = routes.compress(target, framework)
    float32, _ = routes.convert(target, framework)
    weights = result.details.weights
    kept = weights["float32"].elements if "float32" in weights else 0
    assert kept < 0.1 * weights["float16"].elements
    assert describe_file(model).largest[0].dtype == "float16"
    before, after = describe_file(float32).weights["float32"].bytes, sum(count.bytes for count in weights.values())
    assert after < 0.6 * before


def test_tflite_float16_weights_are_the_nearest(routes: Routes) -> None:
    """At most half a step of float16 from the source, and not the source itself."""
    before = _tflite_weights(routes.convert("tflite", "torch")[0])
    after = _tflite_weights(routes.compress("tflite", "torch")[0])
    changed = {name for name, values in after.items() if values.dtype == np.float16}
    assert changed
    for name in changed:
        half_step = np.spacing(np.abs(after[name])).astype(np.float64) / 2
        distance = np.abs(before[name].astype(np.float64) - after[name])
        assert np.all(distance <= half_step)
        assert np.any(distance > 0)


def test_onnx_float16_weights_are_the_nearest(routes: Routes) -> None:
    before = _onnx_weights(routes.convert("onnx", "torch")[0])
    after = _onnx_weights(routes.compress("onnx", "torch")[0])
    changed = [name for name in before if name in after and after[name].dtype == np.float16]
    assert len(changed) > 10
    for name in changed:
        half_step = np.spacing(np.abs(after[name])).astype(np.float64)
        assert np.all(np.abs(before[name].astype(np.float64) - after[name]) <= half_step)


def test_onnx_float16_keeps_the_mask_finite(routes: Routes) -> None:
    for framework in ("torch", "tensorflow"):
        for values in _onnx_weights(routes.compress("onnx", framework)[0]).values():
            assert values.dtype.kind != "f" or np.all(np.isfinite(values))


def test_tflite_buffers_are_aligned(routes: Routes) -> None:
    """TFLite's schema: data:[ubyte] (force_align: 16); runtimes read weights in place."""
    from ai_edge_litert import schema_py_generated as schema

    content = routes.compress("tflite", "torch")[0].read_bytes()
    model = schema.Model.GetRootAs(content, 0)
    for index in range(model.BuffersLength()):
        data = model.Buffers(index).DataAsNumpy()
        if not isinstance(data, int) and len(data):
            assert (data.ctypes.data - np.frombuffer(content, np.uint8).ctypes.data) % 16 == 0


@pytest.mark.parametrize(("target", "framework"), SIX + REFERENCES)
def test_no_path_of_this_machine_is_inside(routes: Routes, target: str, framework: Framework) -> None:
    model, _ = routes.convert(target, framework)
    here = [str(Path(__file__).parents[2]).encode(), str(routes.folder).encode(), b"site-packages"]
    for file in [model] if model.is_file() else [path for path in model.rglob("*") if path.is_file()]:
        content = file.read_bytes()
        assert not [path for path in here if path in content], file


@pytest.mark.slow
@pytest.mark.parametrize(("target", "framework"), SIX + REFERENCES)
def test_two_conversions_give_the_same_bytes(routes: Routes, target: str, framework: Framework) -> None:
    first, _ = routes.convert(target, framework)
    second, _ = routes.convert(target, framework, name=f"{target}-{framework}-again")
    assert _contents(first) == _contents(second)


@pytest.mark.parametrize("target", ["tflite", "onnx"])
def test_compressing_twice_gives_the_same_bytes(routes: Routes, target: str, tmp_path: Path) -> None:
    from edgekit.export import to_onnx, to_tflite

    source, _ = routes.convert(target, "torch")
    made, _ = routes.compress(target, "torch")
    again = tmp_path / made.name
    {"tflite": to_tflite, "onnx": to_onnx}[target].compress_fp16(source, again)
    assert again.read_bytes() == made.read_bytes()


def _contents(path: Path) -> dict[str, bytes]:
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    return {file.relative_to(path.parent).as_posix(): file.read_bytes() for file in files}


def _tflite_weights(path: Path) -> dict[str, np.ndarray]:
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    dtypes = {schema.TensorType.FLOAT32: np.float32, schema.TensorType.FLOAT16: np.float16}
    return {
        tensor.name.decode(): np.frombuffer(bytes(model.buffers[tensor.buffer].data), dtypes[tensor.type])
        for tensor in model.subgraphs[0].tensors
        if tensor.type in dtypes and model.buffers[tensor.buffer].data is not None and math.prod(tensor.shape) > 1
    }


def _onnx_weights(path: Path) -> dict[str, np.ndarray]:
    import onnx

    return {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}

"""Schemes that don't take are errors that name the tensor: made on purpose, and by recipes that do nothing."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgekit.errors import ExportError
from edgekit.export.jobs import Evidence
from edgekit.export.quantize.evidence import StoredWeight, check_quantized, nearest_step, unpack_int4
from edgekit.export.quantize.mixture import Mixture
from tests.export.quantized import Quantized
from tests.export.routes import LENGTH, Routes
from tests.tiny import tiny_checkpoint

STEP = np.float32(0.01)


def matrix(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def rounded(source: NDArray[np.float32]) -> StoredWeight:
    return stored(np.round(source / STEP) * STEP)


def check(source: dict[str, NDArray[np.float32]], found: dict[str, StoredWeight]) -> Evidence:
    wanted = {name: "int8" for name, values in source.items() if values.ndim > 1}
    return check_quantized("int8", source, found, wanted)


def stored(values: NDArray[np.float32]) -> StoredWeight:
    return StoredWeight(dtype="int8", values=values, step=np.full(values.shape, STEP))


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> Quantized:
    folder = tmp_path_factory.mktemp("evidence")
    checkpoint = tiny_checkpoint(folder, hidden_size=64, num_layers=1, ffn_size=128, max_length=LENGTH)
    return Quantized(routes=Routes(folder=folder, checkpoint=checkpoint), folder=folder)


def test_good_weights_are_counted() -> None:
    source = {"table": matrix(64, 32), "up": matrix(32, 16), "bias": matrix(16)}
    evidence = check(source, {name: rounded(source[name]) for name in ("table", "up")})
    assert (evidence.quantized_tensors, evidence.quantized_elements, evidence.matrix_elements) == (2, 2560, 2560)
    assert 0.4 < evidence.largest_difference_in_steps <= 0.501
    assert [weight.name for weight in evidence.largest] == ["table", "up"]


def test_nothing_quantized_is_an_error() -> None:
    with pytest.raises(ExportError, match="int8 did not take: not one of 1 matrices"):
        check({"table": matrix(64, 32)}, {})


def test_the_largest_left_in_float_is_named() -> None:
    source = {"table": matrix(64, 32), "up": matrix(32, 16)}
    with pytest.raises(ExportError, match=r"int8 left 'table' \[64, 32\] in float32, 80 %"):
        check(source, {"up": rounded(source["up"])})


def test_weights_stored_as_they_were_are_named() -> None:
    source = {"table": matrix(64, 32)}
    with pytest.raises(ExportError, match="'table' is stored as int8 but is exactly the source's"):
        check(source, {"table": stored(source["table"])})


def test_weights_that_were_rounded_in_training_are_quantized() -> None:
    rounded_before = rounded(matrix(64, 32).clip(-1, 1))
    evidence = check({"table": rounded_before.values}, {"table": rounded_before})
    assert evidence.largest_difference_in_steps == 0


@pytest.mark.parametrize("wrong", [2.0, np.nan])
def test_weights_more_than_a_step_away_are_named(wrong: float) -> None:
    source = {"table": matrix(64, 32)}
    values = source["table"].copy()
    values[3, 4] += wrong
    with pytest.raises(ExportError, match="broke 'table': a weight is"):
        check(source, {"table": stored(values)})


def test_nibbles_and_palettes() -> None:
    assert unpack_int4(np.array([0x21, 0xF8], np.uint8), 4).tolist() == [1, 2, -8, -1]
    values = np.array([0.0, 0.4, 2.0], np.float32)
    np.testing.assert_allclose(nearest_step(values, np.array([1.0, 0.0])), [0, 0.8, 2.0], atol=1e-6)


@pytest.mark.parametrize("recipe", ["dynamic_wi8b32_afp32", "dynamic_wi8b64_afp32"])
def test_recipes_that_change_nothing_are_caught(
    quantized: Quantized, recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ai-edge-quantizer 0.10 writes the float32 file again and says so nowhere."""
    from ai_edge_quantizer import recipe as recipes

    from edgekit.export.quantize import for_tflite

    monkeypatch.setattr(for_tflite, "_recipe", lambda *_: getattr(recipes, recipe)())
    with pytest.raises(ExportError, match="did not take"):
        for_tflite.compress(quantized.source("tflite"), tmp_path / "model.tflite", Mixture(scheme="int8-dynamic"), None)


def test_a_recipe_that_skips_the_token_table_is_caught(
    quantized: Quantized, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ai-edge-quantizer 0.10's own static recipe knows no EMBEDDING_LOOKUP."""
    from ai_edge_quantizer import recipe as recipes

    from edgekit.export.quantize import for_tflite

    monkeypatch.setattr(for_tflite, "_recipe", lambda *_: recipes.static_wi8_ai8())
    source = quantized.source("tflite")
    with pytest.raises(ExportError, match=r"int8 left '.*' \[259, 64\] in float32"):
        for_tflite.compress(source, tmp_path / "model.tflite", Mixture(scheme="int8"), quantized.calibration())


def test_an_onnx_quantizer_that_skips_the_token_table_is_caught(
    quantized: Quantized, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgekit.export.quantize import for_onnx

    monkeypatch.setattr(for_onnx, "_TABLE", ["LSTM"])
    with pytest.raises(ExportError, match=r"int8-weight left 'module.embed.tokens.weight' \[259, 64\]"):
        for_onnx.compress(quantized.source("onnx"), tmp_path / "model.onnx", Mixture(scheme="int8-weight"), None)


def test_a_constant_whose_value_has_another_name_is_found_again(tmp_path: Path) -> None:
    """Constants that coremltools folded have two: DeBERTa's table of relative positions was missed by the value's."""
    import coremltools as ct
    from coremltools.converters.mil import Builder as mb  # noqa: N813  # its own documentation's name for it

    from edgekit.export.quantize import for_coreml

    def multiply(x: Any) -> Any:
        table = mb.const(val=matrix(4, 16, 64), name="transpose_5_1")
        table.name = "transpose_5"
        return mb.matmul(x=x, y=table)

    program = mb.program(input_specs=[mb.TensorSpec(shape=(4, 8, 16))], opset_version=ct.target.iOS17)(multiply)
    precision = ct.precision.FLOAT32
    made = ct.convert(
        program, minimum_deployment_target=ct.target.iOS17, compute_precision=precision, skip_model_load=True
    )
    made.save(str(tmp_path / "source.mlpackage"))
    output = tmp_path / "model.mlpackage"
    evidence = for_coreml.compress(tmp_path / "source.mlpackage", output, Mixture(scheme="int8-weight"), None)
    assert evidence is not None
    assert [(weight.name, weight.dtype) for weight in evidence.largest] == [("transpose_5_1", "int8")]

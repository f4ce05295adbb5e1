"""Models that write, as files of ONNX and Core ML, write what the model writes, token for token."""

from pathlib import Path

import onnx
import pytest

from edgekit.export.quantize import for_onnx
from edgekit.export.quantize.mixture import Mixture
from edgekit.model.config import TransformerConfig
from tests.export.writers import file_texts, source_texts, write_file
from tests.model.writers import CONFIGS

GENERATE, TRANSLATE = CONFIGS[1], CONFIGS[-1]
FILES_OF = [
    pytest.param(GENERATE, "growing", id="onnx-generate-growing"),
    pytest.param(GENERATE, "fixed", id="onnx-generate-fixed"),
    pytest.param(TRANSLATE, "growing", id="onnx-translate-growing"),
    pytest.param(GENERATE, "stateful", id="coreml-generate-states"),
    pytest.param(GENERATE, "passed", id="coreml-generate-inputs"),
    pytest.param(TRANSLATE, "stateful", id="coreml-translate-states"),
]


@pytest.mark.parametrize(("config", "form"), FILES_OF)
def test_a_file_writes_the_tokens_of_its_model(config: TransformerConfig, form: str, tmp_path: Path) -> None:
    path = write_file(config, form, tmp_path)
    assert file_texts(config, path) == source_texts(config)


@pytest.mark.parametrize("scheme", ["int8-dynamic", "int4-weight"])
def test_a_tied_head_is_quantized_and_rotations_are_not(scheme: str, tmp_path: Path) -> None:
    """The scores of tokens are an integer product, and no table is unpacked for it; sines and cosines keep float32."""
    config = next(config for config in CONFIGS if config.tied_embeddings and config.positions == "rotary")
    source, output = write_file(config, "growing", tmp_path), tmp_path / "quantized.onnx"
    for_onnx.compress(source, output, Mixture(scheme=scheme), None)
    graph = onnx.load(output).graph
    constants = {tensor.name: tensor.data_type for tensor in graph.initializer}
    products = [node for node in graph.node if node.op_type == "MatMul"]
    assert products, "attention's own products stay"
    assert not [node.name for node in products if node.input[1] in constants]
    made = {name: node.op_type for node in graph.node for name in node.output}
    unpacked = {made.get(node.input[0]) for node in graph.node if node.op_type == "Transpose"}
    assert "DequantizeLinear" not in unpacked
    rotations = {name: kind for name, kind in constants.items() if "rotary_" in name}
    assert len(rotations) == 2
    assert set(rotations.values()) == {onnx.TensorProto.FLOAT}

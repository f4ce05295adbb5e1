"""ONNX: onnxruntime.quantization, dynamic, static and weight-only (MatMulNBits)."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer
from onnxruntime.quantization.onnx_model import ONNXModel

from edgekit.export.jobs import Evidence
from edgekit.export.quantize.evidence import check_quantized
from edgekit.export.quantize.onnx_weights import float_weights, quantized_weights
from edgekit.export.to_onnx import write_model
from edgekit.proof.golden import read_golden

_PRODUCTS = ["MatMul", "Gemm"]
#: the table gets one scale: onnxruntime 1.31's quantizers give a Gather more only in 4 bits
_TABLE = ["Gather"]
_BLOCKS = (32, 64, 128)


def compress(source: Path, output: Path, scheme: str, calibration: Path | None) -> Evidence:
    """Write the float32 file `source` to `output` in `scheme`; `calibration` are steps of real text.

    Raises ExportError where the scheme did not take on the weights.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "quantized.onnx"
        if scheme == "int8-dynamic":
            _quantize_dynamic(source, path)
        elif scheme in ("int8-weight", "int4-weight"):
            _quantize_weights(source, path, bits=8 if scheme == "int8-weight" else 4)
        else:
            _quantize_static(source, path, scheme, calibration)
        write_model(onnx.load(path), output)
    floats = float_weights(source)
    return check_quantized(scheme, floats, quantized_weights(output, floats))


def _load(source: Path) -> Any:
    """A model without its notes on shapes: onnxruntime 1.31 dies of those that torch's exporter leaves."""
    model = onnx.load(source)
    del model.graph.value_info[:]
    return model


def _quantize_dynamic(source: Path, output: Path) -> None:
    """`reduce_range`: weights use 7 of 8 bits: sums can saturate on x86 without VNNI (not tried: VNNI here)."""
    quantize_dynamic(_load(source), output, per_channel=True, reduce_range=True, weight_type=QuantType.QInt8)


def _quantize_table(source: Path, output: Path) -> None:
    quantize_dynamic(_load(source), output, op_types_to_quantize=_TABLE, weight_type=QuantType.QInt8)


def _quantize_static(source: Path, output: Path, scheme: str, calibration: Path | None) -> None:
    """Matrix products between QuantizeLinear and DequantizeLinear; norms, softmax and the mask stay in float32.

    With all operators quantized, among them the addition of the mask's -1e4, models of 5 and 10 languages lost 2.6 and
    2.7 points of accuracy.
    """
    table = output.with_name("table.onnx")
    _quantize_table(source, table)
    quantize_static(
        _load(table),
        output,
        _Reader(calibration),
        op_types_to_quantize=_PRODUCTS,
        per_channel=True,
        activation_type=QuantType.QInt16 if scheme == "int16x8" else QuantType.QInt8,
        weight_type=QuantType.QInt8,
    )


def _quantize_weights(source: Path, output: Path, *, bits: int) -> None:
    """Blocks of 32 for 4 bits; for 8, where scales weigh more than they help, those that make the file smallest."""
    model = ONNXModel(_load(source))
    model.replace_gemm_with_matmul()
    config = DefaultWeightOnlyQuantConfig(
        block_size=32 if bits == 4 else _smallest_blocks(model.model),
        is_symmetric=True,
        bits=bits,
        op_types_to_quantize=("MatMul", "Gather") if bits == 4 else ("MatMul",),
    )
    tool = MatMulNBitsQuantizer(model.model, algo_config=config)
    tool.process()
    if bits == 4:
        onnx.save(tool.model.model, output)
        return
    products = output.with_name("products.onnx")
    onnx.save(tool.model.model, products)
    _quantize_table(products, output)


def _smallest_blocks(model: Any) -> int:
    """The size of blocks whose weights, filled up to whole blocks, and scales (4 bytes each) take the least room."""
    constants = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    shapes = [constants[node.input[1]] for node in model.graph.node if _is_product(node, constants)]
    sizes = {block: sum(columns * -(-rows // block) * (block + 4) for rows, columns in shapes) for block in _BLOCKS}
    return min(sizes, key=lambda block: (sizes[block], -block))


def _is_product(node: Any, constants: dict[str, Any]) -> bool:
    return node.op_type == "MatMul" and len(constants.get(node.input[1], ())) == 2


class _Reader(CalibrationDataReader):
    """Feeds calibration steps one by one, as onnxruntime asks for them."""

    def __init__(self, calibration: Path | None) -> None:
        steps = read_golden(calibration).steps if calibration else ()
        self._inputs: Iterator[Any] = iter([step.inputs for step in steps])

    def get_next(self) -> Any:
        """The next step's inputs by name; None at the end."""
        return next(self._inputs, None)

"""ONNX: onnxruntime.quantization, dynamic, static and weight-only (MatMulNBits)."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer
from onnxruntime.quantization.onnx_model import ONNXModel

from edgekit.export.jobs import Evidence
from edgekit.export.onnx_folder import read_folder, write_folder
from edgekit.export.quantize.evidence import largest_evidence
from edgekit.export.quantize.mixture import Mixture, wanted_weights
from edgekit.export.quantize.modules import Node
from edgekit.export.quantize.nodes import onnx_nodes
from edgekit.export.quantize.onnx_outliers import balance_outliers
from edgekit.export.quantize.onnx_pairs import fit_pairs
from edgekit.export.quantize.onnx_tied import untie_heads
from edgekit.export.quantize.onnx_weights import float_constants, float_weights, quantized_weights
from edgekit.export.to_onnx import write_model
from edgekit.proof.golden import read_golden

_PRODUCTS = ["MatMul", "Gemm"]
#: the table gets one scale: onnxruntime 1.31's quantizers give a Gather more only in 4 bits
_TABLE = ["Gather"]
#: in the names of edgekit's tables of rotary positions
_ROTATION = "rotary_"
#: begins the names of a cache
_CACHE = "present"
#: of MatMulNBits' accuracy_level
_INT8_PRODUCTS = 4
_BLOCKS = (32, 64, 128)
#: onnx's inference of types stops at operators of other domains, and onnxruntime 1.31's quantizers with it
_FLOAT = {"DefaultTensorType": onnx.TensorProto.FLOAT}
#: kinds of operators that any scheme takes
_TAKEN = frozenset({"MATMUL", "GEMM", "GATHER"})
#: calibration sees the ranges of the float32 model; what writes operators anew, with names of its own, comes last
_ORDER = ("int8", "int16x8", "int8-dynamic", "int8-weight", "int4-weight")


def compress(source: Path, output: Path, asked: Mixture, calibration: Path | None) -> Evidence | None:
    """Write the float32 file `source` to `output` as `asked`; `calibration` are steps of real text.

    Raises ExportError where a scheme did not take on its weights.
    """
    if source.is_dir():
        return _compress_folder(source, output, asked, calibration)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "quantized.onnx"
        model = _load(source)
        untie_heads(model)
        floats = float_constants(model)
        wanted = wanted_weights(_weighted_nodes(model), floats, asked)
        tool = ONNXModel(model)
        tool.replace_gemm_with_matmul()  # onnxruntime would do it on the way, with names of its own
        model = tool.model
        if _balances(asked) and calibration:
            balance_outliers(model, read_golden(calibration).steps, dynamic=asked.scheme == "int8-dynamic")
            floats = float_constants(model)
        nodes = _weighted_nodes(model)
        chosen = {asked.scheme: nodes} if asked.schemes is None else asked.select_nodes(nodes, floats)
        onnx.save(model, path)
        for scheme in sorted(chosen, key=_ORDER.index):
            _quantize(path, scheme, [node for node in chosen[scheme] if node.kind in _TAKEN], calibration)
        write_model(onnx.load(path), output)
    return asked.check(floats, quantized_weights(output, floats), wanted)


def _compress_folder(source: Path, output: Path, asked: Mixture, calibration: Path | None) -> Evidence | None:
    """Each graph of a folder by itself; what the scheme took on is told of the one with most weights."""
    made, evidences = {}, []
    with tempfile.TemporaryDirectory() as folder:
        for name, model in read_folder(source).items():
            floats, quantized = Path(folder) / name, Path(folder) / f"quantized-{name}"
            write_model(model, floats)
            evidences.append(compress(floats, quantized, asked, calibration))
            made[name] = onnx.load(quantized)
    write_folder(made, output)
    return largest_evidence(evidences)


def _weighted_nodes(model: Any) -> list[Node]:
    """The operators, without those that look up rotations: tables of sines are no weights, and suffer as such."""
    return [node for node in onnx_nodes(model) if not any(_ROTATION in name for name in node.constants)]


def _balances(asked: Mixture) -> bool:
    """Whether outliers are balanced: in files of one scheme, whose products read integers of 8 bits."""
    return asked.schemes is None and asked.scheme in ("int8", "int8-dynamic")


def _quantize(path: Path, scheme: str, nodes: Sequence[Node], calibration: Path | None) -> None:
    """Quantize these operators of the file in place."""
    products = [node.name for node in nodes if node.kind != "GATHER"]
    tables = [node.name for node in nodes if node.kind == "GATHER" and node.constants]
    blocks = scheme == "int8-dynamic" and _writes(path)
    if scheme == "int8-dynamic" and not blocks:
        _quantize_dynamic(path, [*products, *tables])
    elif scheme == "int4-weight":
        _quantize_weights(path, [*products, *tables], bits=4)
    else:
        _quantize_table(path, tables)
        if blocks or scheme == "int8-weight":
            _quantize_weights(path, products, bits=8, integers=blocks)
        else:
            _quantize_static(path, products, scheme, calibration)


def _writes(path: Path) -> bool:
    """Whether a file gives a cache of keys and values: it then reads one token a call.

    Its products are MatMulNBits, which rounds what it reads to int8, a scale a block: with one token that is twice as
    fast as MatMulInteger behind DynamicQuantizeLinear, with many half as fast.
    """
    outputs = onnx.load(path, load_external_data=False).graph.output
    return any(value.name.startswith(_CACHE) for value in outputs)


def _load(source: Path) -> Any:
    """A model without its notes on shapes: onnxruntime 1.31 dies of those that torch's exporter leaves."""
    model = onnx.load(source)
    del model.graph.value_info[:]
    return model


def _quantize_dynamic(path: Path, nodes: Sequence[str]) -> None:
    """Weights use as many of 8 bits as sums of two products leave room for: see `fit_pairs`."""
    if nodes:  # an empty list means every operator
        floats = float_weights(path)
        quantize_dynamic(
            _load(path),
            path,
            nodes_to_quantize=list(nodes),
            per_channel=True,
            weight_type=QuantType.QInt8,
            extra_options=_FLOAT,
        )
        model = onnx.load(path)
        fit_pairs(model, floats)
        onnx.save(model, path)


def _quantize_table(path: Path, nodes: Sequence[str]) -> None:
    if nodes:
        model = _load(path)
        quantize_dynamic(
            model,
            path,
            nodes_to_quantize=list(nodes),
            op_types_to_quantize=_TABLE,
            weight_type=QuantType.QInt8,
            extra_options=_FLOAT,
        )


def _quantize_static(path: Path, nodes: Sequence[str], scheme: str, calibration: Path | None) -> None:
    """Matrix products between QuantizeLinear and DequantizeLinear; norms, softmax and the mask stay in float32.

    With all operators quantized, among them the addition of the mask's -1e4, models of 5 and 10 languages lost 2.6 and
    2.7 points of accuracy. What products give stays in float32 too: channels with large values stretch its range
    (all-MiniLM-L6-v2: a mean cosine of 0.91 with it in int8, 0.98 without, in the same time).
    """
    if nodes:
        quantize_static(
            _load(path),
            path,
            _Reader(calibration),
            nodes_to_quantize=list(nodes),
            op_types_to_quantize=_PRODUCTS,
            per_channel=True,
            activation_type=QuantType.QInt16 if scheme == "int16x8" else QuantType.QInt8,
            weight_type=QuantType.QInt8,
            extra_options={"OpTypesToExcludeOutputQuantization": _PRODUCTS},
        )


def _quantize_weights(path: Path, nodes: Sequence[str], *, bits: int, integers: bool = True) -> None:
    """Blocks of 32 for 4 bits; for 8, where scales weigh more than they help, those that make the file smallest.

    With `integers` products round what they read to int8, a scale a block, as TFLite's do: a model of 15 M parameters
    writes 2.4 times as fast so in 4 bits.
    """
    if not nodes:
        return
    model = _load(path)
    config = DefaultWeightOnlyQuantConfig(
        block_size=32 if bits == 4 else _smallest_blocks(model, nodes),
        is_symmetric=True,
        bits=bits,
        accuracy_level=_INT8_PRODUCTS if integers else None,
        op_types_to_quantize=("MatMul", "Gather") if bits == 4 else ("MatMul",),
    )
    others = [node.name for node in model.graph.node if node.name not in nodes]
    tool = MatMulNBitsQuantizer(model, algo_config=config, nodes_to_exclude=others)
    tool.process()
    onnx.save(tool.model.model, path)


def _smallest_blocks(model: Any, nodes: Sequence[str]) -> int:
    """The size of blocks whose weights, filled up to whole blocks, and scales (4 bytes each) take the least room."""
    constants = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    chosen = [node for node in model.graph.node if node.name in nodes]
    shapes = [constants[node.input[1]] for node in chosen if _is_product(node, constants)]
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

"""The weights of an ONNX file as numbers: float32 ones as they are, quantized ones unpacked.

Names are those of onnxruntime.quantization 1.31: NAME_quantized with NAME_scale and NAME_zero_point, NAME_Q4 or NAME_Q8
with NAME_scales.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from edgekit.export.quantize.evidence import Floats, StoredWeight

_QUANTIZED, _TRANSPOSED = "_quantized", "_Transposed"


def float_weights(path: Path) -> dict[str, Floats]:
    """The float32 constants of a file by name."""
    return float_constants(onnx.load(path, load_external_data=False))


def float_constants(model: Any) -> dict[str, Floats]:
    """The float32 constants of a loaded model by name."""
    initializers = model.graph.initializer
    return {t.name: numpy_helper.to_array(t) for t in initializers if t.data_type == TensorProto.FLOAT}


def quantized_weights(path: Path, source: dict[str, Floats]) -> dict[str, StoredWeight]:
    """The quantized constants of a file by the names that they had before; `source` are the float32 ones."""
    model = onnx.load(path, load_external_data=False)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    found: dict[str, StoredWeight] = {}
    for node in model.graph.node:
        if node.op_type in ("MatMulNBits", "GatherBlockQuantized"):
            index = 1 if node.op_type == "MatMulNBits" else 0
            name = node.input[index].rsplit("_Q", 1)[0]
            found[name] = (_from_matmul if index else _from_gather)(node, constants)
    axes = {n.input[0]: _attribute(n, "axis", 1) for n in model.graph.node if n.op_type == "DequantizeLinear"}
    for full_name, tensor in constants.items():
        scale = f"{full_name.removesuffix(_QUANTIZED)}_scale"
        if full_name.endswith(_QUANTIZED) and scale in constants and len(tensor.dims) > 1:
            found[full_name.removesuffix(_QUANTIZED)] = _from_scale(constants, full_name, axes.get(full_name, -1))
    found = {name.removesuffix(_TRANSPOSED): weight for name, weight in found.items()}
    return {name: _oriented(weight, source[name]) for name, weight in found.items() if name in source}


def _from_scale(constants: dict[str, Any], full_name: str, axis: int) -> StoredWeight:
    name = full_name.removesuffix(_QUANTIZED)
    integers = numpy_helper.to_array(constants[full_name])
    scale = numpy_helper.to_array(constants[f"{name}_scale"]).astype(np.float32).ravel()
    zero = numpy_helper.to_array(constants[f"{name}_zero_point"]).astype(np.float32).ravel()
    shape = [1] * integers.ndim
    shape[axis] = scale.size
    step = scale.reshape(shape)
    values = (integers.astype(np.float32) - np.resize(zero, scale.shape).reshape(shape)) * step
    return StoredWeight(dtype=str(integers.dtype), values=values, step=np.broadcast_to(step, integers.shape))


def _from_matmul(node: Any, constants: dict[str, Any]) -> StoredWeight:
    """[N, blocks, bytes] with a scale for each block → [K, N]; symmetric, so zero is in the middle."""
    bits, size = _attribute(node, "bits", 4), _attribute(node, "block_size", 32)
    columns, rows = _attribute(node, "N", 0), _attribute(node, "K", 0)
    packed = numpy_helper.to_array(constants[node.input[1]])
    integers: NDArray[Any] = packed
    if bits == 4:
        integers = np.stack([packed & 15, packed >> 4], axis=-1)
    integers = integers.reshape(columns, -1, size).astype(np.float32) - 2 ** (bits - 1)
    scales = np.abs(numpy_helper.to_array(constants[node.input[2]]).reshape(columns, -1, 1))
    signed = numpy_helper.to_array(constants[node.input[2]]).reshape(columns, -1, 1)
    values = (integers * signed).reshape(columns, -1)[:, :rows].T
    step = np.broadcast_to(scales, integers.shape).reshape(columns, -1)[:, :rows].T
    return StoredWeight(dtype=f"int{bits}", values=values.astype(np.float32), step=step)


def _from_gather(node: Any, constants: dict[str, Any]) -> StoredWeight:
    """[rows, columns] with a scale for each block of a row."""
    integers = numpy_helper.to_array(constants[node.input[0]]).astype(np.float32)
    scales = numpy_helper.to_array(constants[node.input[2]])
    step = np.repeat(scales, _attribute(node, "block_size", 32), axis=1)[:, : integers.shape[1]]
    return StoredWeight(dtype="int4", values=integers * step, step=np.abs(step))


def _oriented(stored: StoredWeight, source: Floats) -> StoredWeight:
    """In the source's orientation: onnxruntime turns a Gemm into a MatMul first, with its weight transposed."""
    turned = StoredWeight(dtype=stored.dtype, values=stored.values.T, step=stored.step.T)
    if stored.values.shape != source.shape:
        return turned
    if turned.values.shape != source.shape:
        return stored
    return min(stored, turned, key=lambda weight: float(np.sum((weight.values - source) ** 2)))


def _attribute(node: Any, name: str, default: int) -> int:
    return next((int(a.i) for a in node.attribute if a.name == name), default)

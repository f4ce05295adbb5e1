"""The weights of a TFLite file as numbers: float32 ones as they are, quantized ones unpacked."""

from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils

from edgekit.export.quantize.evidence import Floats, StoredWeight, is_matrix, unpack_int4
from edgekit.export.quantize.tflite_rows import row_scales

#: ends the name of a table that was given a column of zeros to be of even width
EVEN = b";even"
_INTEGERS = {schema.TensorType.INT8: "int8", schema.TensorType.INT4: "int4"}


def float_weights(path: Path) -> dict[str, Floats]:
    """The float32 constants of a file by name; tensors of one buffer (of several signatures) are one array."""
    model = flatbuffer_utils.read_model(str(path))
    found: dict[str, Floats] = {}
    arrays: dict[tuple[int, tuple[int, ...]], Floats] = {}
    for subgraph in model.subgraphs:
        for tensor in subgraph.tensors:
            data = model.buffers[tensor.buffer].data
            if data is not None and tensor.type == schema.TensorType.FLOAT32:
                key = (tensor.buffer, _shape(tensor))
                if key not in arrays:
                    arrays[key] = np.frombuffer(bytes(data), np.float32).reshape(_shape(tensor))
                found[tensor.name.decode()] = arrays[key]
    return found


def quantized_weights(path: Path) -> dict[str, StoredWeight]:
    """The int8 and int4 matrices of a file by name; scalars, vectors and int32 biases are left out."""
    model = flatbuffer_utils.read_model(str(path))
    found: dict[str, StoredWeight] = {}
    for subgraph in model.subgraphs:
        for tensor in subgraph.tensors:
            data = model.buffers[tensor.buffer].data
            if data is not None and tensor.type in _INTEGERS and is_matrix(_shape(tensor)):
                found[tensor.name.decode()] = _unpack(model, subgraph, tensor, bytes(data))
    return found


def outputs_of_odd_rows(path: Path, block: int) -> list[str]:
    """Names of what operators give whose constant float32 matrix has rows that are no whole number of blocks."""
    model = flatbuffer_utils.read_model(str(path))
    found = []
    for subgraph in model.subgraphs:
        for operator in subgraph.operators:
            tensors = [subgraph.tensors[index] for index in operator.inputs if index >= 0]
            constant = [t for t in tensors if model.buffers[t.buffer].data is not None and is_matrix(_shape(t))]
            if any(t.type == schema.TensorType.FLOAT32 and _width(t) % block for t in constant):
                found.append(subgraph.tensors[operator.outputs[0]].name.decode())
    return found


def _width(tensor: Any) -> int:
    """The length of a row, without the column that makes it even: one more would make blocks of rows of 31."""
    return _shape(tensor)[-1] - tensor.name.endswith(EVEN)


def _unpack(model: Any, subgraph: Any, tensor: Any, data: bytes) -> StoredWeight:
    shape = _shape(tensor)
    if tensor.type == schema.TensorType.INT4:
        integers = unpack_int4(np.frombuffer(data, np.uint8), int(np.prod(shape))).reshape(shape)
    else:
        integers = np.frombuffer(data, np.int8).reshape(shape)
    step, offset = _scales(model, subgraph, tensor, shape)
    values = ((integers.astype(np.float32) - offset) * step).astype(np.float32)
    return StoredWeight(dtype=_INTEGERS[tensor.type], values=values, step=np.broadcast_to(step, shape))


def _scales(model: Any, subgraph: Any, tensor: Any, shape: tuple[int, ...]) -> tuple[Floats, Floats]:
    """Scale and zero point, each of a shape that broadcasts to the tensor's."""
    quantization, apart = tensor.quantization, row_scales(model, subgraph, tensor)
    if apart is not None:
        return apart[:, None], np.float32(0) * apart[:, None]
    if quantization.detailsType == schema.QuantizationDetails.BlockwiseQuantization:
        stored = subgraph.tensors[quantization.details.scales]
        scales = np.frombuffer(bytes(model.buffers[stored.buffer].data), np.float16).astype(np.float32)
        blocks = scales.reshape(*shape[:-1], -1)
        return np.repeat(blocks, shape[-1] // blocks.shape[-1], axis=-1), np.float32(0) * blocks[..., :1]
    axis = [1] * len(shape)
    if len(quantization.scale) > 1:
        axis[quantization.quantizedDimension] = len(quantization.scale)
    scale = np.asarray(quantization.scale, np.float32)
    zero = np.asarray(quantization.zeroPoint, np.float32)
    return scale.reshape(axis), np.resize(zero, scale.shape).reshape(axis)


def _shape(tensor: Any) -> tuple[int, ...]:
    return () if tensor.shape is None else tuple(int(size) for size in tensor.shape)

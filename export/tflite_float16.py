"""TFLite float32 → float16 weights: each constant is stored as float16 and unpacked by a DEQUANTIZE in front of it.

The same form as TensorFlow's own `supported_types=[float16]`, done on the finished file so that both routes share it.
ai-edge-quantizer 0.10's float casting knows FULLY_CONNECTED, convolutions and EMBEDDING_LOOKUP, but neither GATHER,
which holds the token table (the largest weight) of files that TensorFlow's converter writes, nor constants that are
added.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils

from edgekit.export.float16 import check_range
from edgekit.export.tflite_writer import serialize

#: vectors (biases, scales) and tiny tables stay float32: unpacking them costs more than they weigh
MINIMUM_ELEMENTS = 64


def store_as_float16(source: Path, output: Path) -> None:
    """Write the float32 file `source` to `output`, its matrices and tables as float16.

    Raises RefusedError where a weight lies beyond ±65504.
    """
    model = flatbuffer_utils.read_model(str(source))
    opcode = _dequantize_opcode(model)
    for subgraph in model.subgraphs:
        _compress_subgraph(model, subgraph, opcode)
    output.write_bytes(serialize(model))


def _compress_subgraph(model: Any, subgraph: Any, opcode: int) -> None:
    unpacked: dict[int, int] = {}
    dequantizers = []
    for index in _compressible(model, subgraph):
        tensor = subgraph.tensors[index]
        _halve_buffer(model.buffers[tensor.buffer], tensor.name.decode())
        tensor.type = schema.TensorType.FLOAT16
        unpacked[index] = len(subgraph.tensors)
        subgraph.tensors.append(_float32_copy(tensor))
        dequantizers.append(_dequantizer(opcode, index, unpacked[index]))
    for operator in subgraph.operators:
        operator.inputs = [unpacked.get(i, i) for i in operator.inputs]
    subgraph.operators = dequantizers + list(subgraph.operators)


def _compressible(model: Any, subgraph: Any) -> list[int]:
    """Indices of the subgraph's float32 matrices and tables, in order; one that is an output itself is left alone."""
    wanted = []
    for index, tensor in enumerate(subgraph.tensors):
        data = model.buffers[tensor.buffer].data
        sizes = [int(size) for size in tensor.shape] if tensor.shape is not None else []
        if (
            tensor.type == schema.TensorType.FLOAT32
            and data is not None
            and sum(size > 1 for size in sizes) >= 2
            and math.prod(sizes) >= MINIMUM_ELEMENTS
            and index not in subgraph.outputs
        ):
            wanted.append(index)
    return wanted


def _halve_buffer(buffer: Any, name: str) -> None:
    """Store a buffer as float16; one that several tensors share is done already when they come to it."""
    if getattr(buffer, "is_float16", False):
        return
    values = np.frombuffer(bytes(buffer.data), dtype=np.float32)
    check_range(name, values)
    buffer.data = np.frombuffer(values.astype(np.float16).tobytes(), dtype=np.uint8)
    buffer.is_float16 = True


def _float32_copy(tensor: Any) -> Any:
    copy = schema.TensorT()
    copy.name = tensor.name + b";float32"
    copy.shape = tensor.shape
    copy.type = schema.TensorType.FLOAT32
    copy.buffer = 0  # the empty buffer: the tensor is computed
    return copy


def _dequantizer(opcode: int, source: int, target: int) -> Any:
    operator = schema.OperatorT()
    operator.opcodeIndex = opcode
    operator.inputs = [source]
    operator.outputs = [target]
    operator.builtinOptionsType = schema.BuiltinOptions.DequantizeOptions
    operator.builtinOptions = schema.DequantizeOptionsT()
    return operator


def _dequantize_opcode(model: Any) -> int:
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.DEQUANTIZE
    code.version = 3  # the first that reads float16
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1

"""TFLite float32 → float16 weights: each constant is stored as float16 and unpacked by a DEQUANTIZE in front of it.

The same form as TensorFlow's own `supported_types=[float16]`, done on the finished file so that both routes share it.
ai-edge-quantizer 0.10's float casting knows FULLY_CONNECTED, convolutions and EMBEDDING_LOOKUP, but neither GATHER,
which holds the token table (the largest weight) of files that TensorFlow's converter writes, nor constants that are
added.

Of a table that only rows are read from, a file of several signatures unpacks the rows, not the table: unpacked, it
would be in memory a second time as float32, for each signature (all-MiniLM-L6-v2 with five lengths took 369 MB, five
tables of 47 MB among them). tflite-runtime 2.14 reads no rows of float16, so they are read as int16, and BITCAST says
what they are. Compilers for NPUs take no BITCAST (OpenVINO refuses the whole file), and what is compiled has one
signature: there the table is unpacked, once.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils

from edgekit.export.float16 import check_range
from edgekit.export.tflite_edit import add_tensor, kind_of, make_operator
from edgekit.export.tflite_writer import write_model

#: vectors (biases, scales) and tiny tables stay float32: unpacking them costs more than they weigh
MINIMUM_ELEMENTS = 64
_LOOKUP, _GATHER, _BITCAST = (
    schema.BuiltinOperator.EMBEDDING_LOOKUP,
    schema.BuiltinOperator.GATHER,
    schema.BuiltinOperator.BITCAST,
)
#: the places of the table and of the rows' numbers among the inputs of operators that read rows
_TABLE = {_LOOKUP: (1, 0), _GATHER: (0, 1)}


def store_as_float16(source: Path, output: Path) -> None:
    """Write the float32 file `source` to `output`, its matrices and tables as float16.

    Raises RefusedError where a weight lies beyond ±65504.
    """
    model = flatbuffer_utils.read_model(str(source))
    opcode = _dequantize_opcode(model)
    for subgraph in model.subgraphs:
        _compress_subgraph(model, subgraph, opcode)
    write_model(output, model)


def _compress_subgraph(model: Any, subgraph: Any, opcode: int) -> None:
    unpacked: dict[int, int] = {}
    dequantizers, tables = [], _tables(model, subgraph) if len(model.subgraphs) > 1 else {}
    for index in _compressible(model, subgraph):
        tensor = subgraph.tensors[index]
        _halve_buffer(model.buffers[tensor.buffer], tensor.name.decode())
        tensor.type = schema.TensorType.FLOAT16
        if index in tables:
            continue
        unpacked[index] = len(subgraph.tensors)
        subgraph.tensors.append(_float32_copy(tensor))
        dequantizers.append(_dequantizer(opcode, index, unpacked[index]))
    for operator in subgraph.operators:
        operator.inputs = [unpacked.get(i, i) for i in operator.inputs]
    read = (_read_rows(model, subgraph, op, tables, opcode) for op in list(subgraph.operators))
    subgraph.operators = dequantizers + [each for operators in read for each in operators]


def _tables(model: Any, subgraph: Any) -> dict[int, int]:
    """Tables that are only read by rows → a tensor of int16 with the same buffer."""
    reads: dict[int, bool] = {}
    for operator in subgraph.operators:
        place = _TABLE[kind_of(model, operator)][0] if _reads_rows(model, operator) else -1
        for i, index in enumerate(operator.inputs):
            reads[int(index)] = reads.get(int(index), True) and i == place
    found = {}
    for index in _compressible(model, subgraph):
        tensor = subgraph.tensors[index]
        if reads.get(index) and len(tensor.shape) == 2:
            shape = [int(size) for size in tensor.shape]
            found[index] = add_tensor(
                subgraph, tensor.name + b";bits", schema.TensorType.INT16, shape, int(tensor.buffer)
            )
    return found


def _reads_rows(model: Any, operator: Any) -> bool:
    kind, options = kind_of(model, operator), operator.builtinOptions
    return kind == _LOOKUP or (kind == _GATHER and (options is None or (options.axis == 0 and options.batchDims == 0)))


def _read_rows(model: Any, subgraph: Any, operator: Any, tables: dict[int, int], opcode: int) -> list[Any]:
    """The operator, or what reads its rows as int16 and unpacks them."""
    places = _TABLE.get(kind_of(model, operator), (0, 0))
    table = tables.get(int(operator.inputs[places[0]])) if len(operator.inputs) > places[0] else None
    if table is None:
        return [operator]
    ids, output = int(operator.inputs[places[1]]), int(operator.outputs[0])
    name, shape = subgraph.tensors[output].name, [int(size) for size in subgraph.tensors[output].shape]
    bits = add_tensor(subgraph, name + b";bits", schema.TensorType.INT16, shape)
    halves = add_tensor(subgraph, name + b";float16", schema.TensorType.FLOAT16, shape)
    return [
        make_operator(model, _GATHER, [table, ids], [bits]),
        make_operator(model, _BITCAST, [bits], [halves]),
        _dequantizer(opcode, halves, output),
    ]


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

"""GATHER → EMBEDDING_LOOKUP in a TFLite file: quantizers and runtimes know tables of int8 and int4 in the latter only.

TensorFlow's converter reads the token table with GATHER, which ai-edge-quantizer 0.10 leaves in float32 (or gives one
scale for the whole table); litert-torch writes EMBEDDING_LOOKUP itself.
"""

from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils

from edgekit.export.tflite_writer import serialize

_GATHER, _LOOKUP, _RESHAPE = (
    schema.BuiltinOperator.GATHER,
    schema.BuiltinOperator.EMBEDDING_LOOKUP,
    schema.BuiltinOperator.RESHAPE,
)


def gather_to_lookup(source: Path, output: Path) -> None:
    """Write `source` to `output` with each GATHER of rows from a constant float32 table as an EMBEDDING_LOOKUP."""
    model = flatbuffer_utils.read_model(str(source))
    found = False
    for subgraph in model.subgraphs:
        operators: list[Any] = []
        for operator in subgraph.operators:
            if _reads_rows(model, subgraph, operator):
                operators += _lookup(model, subgraph, operator)
                found = True
            else:
                operators.append(operator)
        subgraph.operators = operators
    output.write_bytes(serialize(model) if found else source.read_bytes())


def _reads_rows(model: Any, subgraph: Any, operator: Any) -> bool:
    if _code(model, operator.opcodeIndex) != _GATHER:
        return False
    options, table = operator.builtinOptions, subgraph.tensors[operator.inputs[0]]
    constant = model.buffers[table.buffer].data is not None
    plain = options is None or (options.axis == 0 and options.batchDims == 0)
    return bool(constant and plain and table.type == schema.TensorType.FLOAT32 and len(table.shape) == 2)


def _lookup(model: Any, subgraph: Any, gather: Any) -> list[Any]:
    """RESHAPE the indices to one axis, look up, RESHAPE the rows to what GATHER gave."""
    table_index, ids_index = gather.inputs[0], gather.inputs[1]
    table, ids = subgraph.tensors[table_index], subgraph.tensors[ids_index]
    rows, width = int(np.prod(ids.shape)), int(table.shape[1])
    flat_ids = _tensor(subgraph, table.name + b";ids", ids.type, [rows])
    flat_rows = _tensor(subgraph, table.name + b";rows", table.type, [rows, width])
    to_flat = _shape(model, subgraph, table.name + b";ids_shape", [rows])
    to_rows = _shape(model, subgraph, table.name + b";rows_shape", subgraph.tensors[gather.outputs[0]].shape)
    return [
        _operator(model, _RESHAPE, [ids_index, to_flat], [flat_ids]),
        _operator(model, _LOOKUP, [flat_ids, table_index], [flat_rows]),
        _operator(model, _RESHAPE, [flat_rows, to_rows], list(gather.outputs)),
    ]


def _tensor(subgraph: Any, name: bytes, dtype: int, shape: list[int], buffer: int = 0) -> int:
    tensor = schema.TensorT()
    tensor.name, tensor.type, tensor.buffer = name, dtype, buffer
    tensor.shape = np.asarray(shape, np.int32)
    subgraph.tensors.append(tensor)
    return len(subgraph.tensors) - 1


def _shape(model: Any, subgraph: Any, name: bytes, shape: Any) -> int:
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(np.asarray(shape, np.int32).tobytes(), np.uint8)
    model.buffers.append(buffer)
    return _tensor(subgraph, name, schema.TensorType.INT32, [len(shape)], len(model.buffers) - 1)


def _operator(model: Any, builtin: int, inputs: list[int], outputs: list[int]) -> Any:
    operator = schema.OperatorT()
    operator.opcodeIndex = _opcode(model, builtin)
    operator.inputs, operator.outputs = inputs, outputs
    return operator


def _opcode(model: Any, builtin: int) -> int:
    for index in range(len(model.operatorCodes)):
        if _code(model, index) == builtin:
            return index
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = builtin
    code.version = 1
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def _code(model: Any, index: int) -> int:
    code = model.operatorCodes[index]
    return int(max(code.builtinCode, code.deprecatedBuiltinCode))

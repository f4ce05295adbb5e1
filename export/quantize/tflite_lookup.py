"""Token tables of a TFLite file in the form that quantizers and runtimes know: EMBEDDING_LOOKUP, rows of whole bytes.

TensorFlow's converter reads the token table with GATHER, which ai-edge-quantizer 0.10 leaves in float32 (or gives one
scale for the whole table); litert-torch writes EMBEDDING_LOOKUP itself. In int4 the kernel (ai-edge-litert 2.3) finds a
row at row · width / 2 bytes, rounded down: in a table of odd width every second row is read from half a byte too early.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils
from numpy.typing import NDArray

from edgekit.export.quantize.tflite_weights import EVEN
from edgekit.export.tflite_writer import serialize

_GATHER, _LOOKUP, _RESHAPE, _SLICE = (
    schema.BuiltinOperator.GATHER,
    schema.BuiltinOperator.EMBEDDING_LOOKUP,
    schema.BuiltinOperator.RESHAPE,
    schema.BuiltinOperator.SLICE,
)


def prepare_tables(source: Path, output: Path, *, even_width: bool) -> None:
    """Write `source` to `output` with each GATHER of rows from a constant float32 table as an EMBEDDING_LOOKUP.

    With `even_width`, tables of odd width get a column of zeros, which a SLICE takes from the rows again.
    """
    model = flatbuffer_utils.read_model(str(source))
    changed = _rewrite(model, _is_gather, _lookup)
    if even_width and _rewrite(model, _is_odd_lookup, _widened):
        changed = True
        _empty_unread_buffers(model)
    output.write_bytes(serialize(model) if changed else source.read_bytes())


def _rewrite(
    model: Any, applies: Callable[[Any, Any, Any], bool], replacement: Callable[[Any, Any, Any], list[Any]]
) -> bool:
    """Put operators in the place of each that `applies` to; whether there was one."""
    found = False
    for subgraph in model.subgraphs:
        operators: list[Any] = []
        for operator in subgraph.operators:
            applied = applies(model, subgraph, operator)
            operators += replacement(model, subgraph, operator) if applied else [operator]
            found |= applied
        subgraph.operators = operators
    return found


def _is_gather(model: Any, subgraph: Any, operator: Any) -> bool:
    if _code(model, operator.opcodeIndex) != _GATHER:
        return False
    options = operator.builtinOptions
    plain = options is None or (options.axis == 0 and options.batchDims == 0)
    return plain and _is_table(model, subgraph.tensors[operator.inputs[0]])


def _is_odd_lookup(model: Any, subgraph: Any, operator: Any) -> bool:
    if _code(model, operator.opcodeIndex) != _LOOKUP:
        return False
    table = subgraph.tensors[operator.inputs[1]]
    return _is_table(model, table) and table.shape[1] % 2 == 1


def _is_table(model: Any, tensor: Any) -> bool:
    constant = model.buffers[tensor.buffer].data is not None
    return bool(constant and tensor.type == schema.TensorType.FLOAT32 and len(tensor.shape) == 2)


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


def _widened(model: Any, subgraph: Any, lookup: Any) -> list[Any]:
    """Look up in a table with one more column, and SLICE it off."""
    ids, table, output = lookup.inputs[0], subgraph.tensors[lookup.inputs[1]], lookup.outputs[0]
    count, width = (int(size) for size in table.shape)
    values = np.frombuffer(bytes(model.buffers[table.buffer].data), np.float32).reshape(count, width)
    buffer = _buffer(model, np.pad(values, ((0, 0), (0, 1))))
    wide_table = _tensor(subgraph, table.name + EVEN, table.type, [count, width + 1], buffer)
    rows = [int(size) for size in subgraph.tensors[output].shape]
    wide_rows = _tensor(subgraph, table.name + b";even_rows", table.type, [*rows[:-1], width + 1])
    begin = _shape(model, subgraph, table.name + b";begin", [0] * len(rows))
    size = _shape(model, subgraph, table.name + b";size", rows)
    return [
        _operator(model, _LOOKUP, [ids, wide_table], [wide_rows]),
        _operator(model, _SLICE, [wide_rows, begin, size], [output]),
    ]


def _tensor(subgraph: Any, name: bytes, dtype: int, shape: list[int], buffer: int = 0) -> int:
    tensor = schema.TensorT()
    tensor.name, tensor.type, tensor.buffer = name, dtype, buffer
    tensor.shape = np.asarray(shape, np.int32)
    subgraph.tensors.append(tensor)
    return len(subgraph.tensors) - 1


def _shape(model: Any, subgraph: Any, name: bytes, shape: Any) -> int:
    return _tensor(subgraph, name, schema.TensorType.INT32, [len(shape)], _buffer(model, np.asarray(shape, np.int32)))


def _buffer(model: Any, values: NDArray[Any]) -> int:
    """A buffer of these values: one that there is, as subgraphs of several signatures share theirs, or a new one."""
    content = values.tobytes()
    for index, known in enumerate(model.buffers):
        if known.data is not None and len(known.data) == len(content) and bytes(known.data) == content:
            return index
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(content, np.uint8)
    model.buffers.append(buffer)
    return len(model.buffers) - 1


def _empty_unread_buffers(model: Any) -> None:
    """Take the values from constants that nothing reads any more; the tensors stay, for others are known by number."""
    read = {entry.buffer for entry in model.metadata or ()}
    for subgraph in model.subgraphs:
        used = {index for operator in subgraph.operators for index in operator.inputs} | set(subgraph.outputs)
        read |= {subgraph.tensors[index].buffer for index in used if index >= 0}
    for index, buffer in enumerate(model.buffers):
        if index not in read:
            buffer.data = None


def _operator(model: Any, builtin: int, inputs: list[int], outputs: list[int]) -> Any:
    operator = schema.OperatorT()
    operator.opcodeIndex = _opcode(model, builtin)
    operator.inputs, operator.outputs = inputs, outputs
    if builtin == _SLICE:  # without the options' type, quantizers take it for broken
        operator.builtinOptionsType, operator.builtinOptions = (
            schema.BuiltinOptions.SliceOptions,
            schema.SliceOptionsT(),
        )
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

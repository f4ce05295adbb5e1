"""Token tables of a TFLite file in the form that quantizers and runtimes know: EMBEDDING_LOOKUP, rows of whole bytes.

TensorFlow's converter reads the token table with GATHER, which ai-edge-quantizer 0.10 leaves in float32 (or gives one
scale for the whole table); litert-torch writes EMBEDDING_LOOKUP itself. In int4 the kernel (ai-edge-litert 2.3) finds a
row at row · width / 2 bytes, rounded down: in a table of odd width every second row is read from half a byte too early.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgekit.export.quantize.tflite_weights import EVEN
from edgekit.export.tflite_edit import (
    add_buffer,
    add_shape,
    add_tensor,
    drop_unread_buffers,
    float_table,
    float_values,
    kind_of,
    make_operator,
)

_GATHER, _LOOKUP, _RESHAPE, _SLICE = (
    schema.BuiltinOperator.GATHER,
    schema.BuiltinOperator.EMBEDDING_LOOKUP,
    schema.BuiltinOperator.RESHAPE,
    schema.BuiltinOperator.SLICE,
)


def prepare_tables(model: Any, *, even_width: bool) -> bool:
    """Make each GATHER of rows from a constant float32 table an EMBEDDING_LOOKUP; whether there was anything to change.

    With `even_width`, tables of odd width get a column of zeros, which a SLICE takes from the rows again.
    """
    changed = _rewrite(model, _is_gather, _lookup)
    if even_width and _rewrite(model, _is_odd_lookup, _widened):
        changed = True
        drop_unread_buffers(model)
    return changed


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
    if kind_of(model, operator) != _GATHER:
        return False
    options = operator.builtinOptions
    plain = options is None or (options.axis == 0 and options.batchDims == 0)
    return plain and float_table(model, subgraph.tensors[operator.inputs[0]])


def _is_odd_lookup(model: Any, subgraph: Any, operator: Any) -> bool:
    if kind_of(model, operator) != _LOOKUP:
        return False
    table = subgraph.tensors[operator.inputs[1]]
    return float_table(model, table) and table.shape[1] % 2 == 1


def _lookup(model: Any, subgraph: Any, gather: Any) -> list[Any]:
    """RESHAPE the indices to one axis, look up, RESHAPE the rows to what GATHER gave."""
    table_index, ids_index = gather.inputs[0], gather.inputs[1]
    table, ids = subgraph.tensors[table_index], subgraph.tensors[ids_index]
    rows, width = int(np.prod(ids.shape)), int(table.shape[1])
    flat_ids = add_tensor(subgraph, table.name + b";ids", ids.type, [rows])
    flat_rows = add_tensor(subgraph, table.name + b";rows", table.type, [rows, width])
    to_flat = add_shape(model, subgraph, table.name + b";ids_shape", [rows])
    to_rows = add_shape(model, subgraph, table.name + b";rows_shape", subgraph.tensors[gather.outputs[0]].shape)
    return [
        make_operator(model, _RESHAPE, [ids_index, to_flat], [flat_ids]),
        make_operator(model, _LOOKUP, [flat_ids, table_index], [flat_rows]),
        make_operator(model, _RESHAPE, [flat_rows, to_rows], list(gather.outputs)),
    ]


def _widened(model: Any, subgraph: Any, lookup: Any) -> list[Any]:
    """Look up in a table with one more column, and SLICE it off."""
    ids, table, output = lookup.inputs[0], subgraph.tensors[lookup.inputs[1]], lookup.outputs[0]
    count, width = (int(size) for size in table.shape)
    buffer = add_buffer(model, np.pad(float_values(model, table), ((0, 0), (0, 1))))
    wide_table = add_tensor(subgraph, table.name + EVEN, table.type, [count, width + 1], buffer)
    rows = [int(size) for size in subgraph.tensors[output].shape]
    wide_rows = add_tensor(subgraph, table.name + b";even_rows", table.type, [*rows[:-1], width + 1])
    begin = add_shape(model, subgraph, table.name + b";begin", [0] * len(rows))
    size = add_shape(model, subgraph, table.name + b";size", rows)
    return [
        make_operator(model, _LOOKUP, [ids, wide_table], [wide_rows]),
        make_operator(model, _SLICE, [wide_rows, begin, size], [output]),
    ]

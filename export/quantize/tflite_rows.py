"""Token tables of a TFLite file that have a scale for each row, with the scales in a table of their own.

Runtimes read scales and zero points of a tensor into memory for each signature (ai-edge-litert 2.3), and files store
zero points in 8 bytes: of all-MiniLM-L6-v2 with five lengths 1.2 MB of memory and 0.24 MB of its file. Here a lookup
gives the whole numbers of a row, another one its scale, and a product of both what one lookup gave.
"""

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from edgekit.export.tflite_edit import add_buffer, add_tensor, float_values, kind_of, make_operator

_LOOKUP, _MUL = schema.BuiltinOperator.EMBEDDING_LOOKUP, schema.BuiltinOperator.MUL
_FLOAT32 = schema.TensorType.FLOAT32
#: ends the name of the table of scales
_SCALES = b";scales"


def scale_rows_apart(model: Any) -> None:
    """Give tables that are only looked up in one scale, of 1, and multiply what is looked up by the rows' own."""
    for subgraph in model.subgraphs:
        tables = {index: _scales_apart(model, subgraph, index) for index in _tables(model, subgraph)}
        subgraph.operators = [
            each for operator in subgraph.operators for each in _multiplied(model, subgraph, operator, tables)
        ]


def row_scales(model: Any, subgraph: Any, tensor: Any) -> NDArray[np.float32] | None:
    """The scales of the rows of a table that has them apart, float32 [rows]; None for any other tensor."""
    found = next((each for each in subgraph.tensors if each.name == tensor.name + _SCALES), None)
    return None if found is None else float_values(model, found).ravel()


def _tables(model: Any, subgraph: Any) -> list[int]:
    """The tables with a scale for each row that nothing but lookups reads."""
    reads: dict[int, bool] = {}
    for operator in subgraph.operators:
        looks_up = kind_of(model, operator) == _LOOKUP and subgraph.tensors[operator.outputs[0]].type == _FLOAT32
        for place, index in enumerate(map(int, operator.inputs)):
            reads[index] = reads.get(index, True) and looks_up and place == 1
    return [index for index, only in reads.items() if only and _has_row_scales(subgraph.tensors[index].quantization)]


def _has_row_scales(found: Any) -> bool:
    if found is None or found.scale is None or found.details is not None or found.quantizedDimension:
        return False
    return len(found.scale) > 1 and not np.any(found.zeroPoint)


def _scales_apart(model: Any, subgraph: Any, index: int) -> int:
    """Take the scales from a table; the tensor that they are in."""
    table = subgraph.tensors[index]
    scales = np.asarray(table.quantization.scale, np.float32)
    table.quantization.scale, table.quantization.zeroPoint = np.ones(1, np.float32), np.zeros(1, np.int64)
    return add_tensor(subgraph, table.name + _SCALES, _FLOAT32, [len(scales), 1], add_buffer(model, scales))


def _multiplied(model: Any, subgraph: Any, operator: Any, tables: dict[int, int]) -> list[Any]:
    """The operator; a lookup in one of the tables with the one of its scales, and the product of both."""
    if kind_of(model, operator) != _LOOKUP or int(operator.inputs[1]) not in tables:
        return [operator]
    ids, table, output = int(operator.inputs[0]), int(operator.inputs[1]), int(operator.outputs[0])
    name, shape = subgraph.tensors[output].name, [int(size) for size in subgraph.tensors[output].shape]
    rows = add_tensor(subgraph, name + b";rows", _FLOAT32, shape)
    scales = add_tensor(subgraph, name + _SCALES, _FLOAT32, [*shape[:-1], 1])
    return [
        make_operator(model, _LOOKUP, [ids, table], [rows]),
        make_operator(model, _LOOKUP, [ids, tables[table]], [scales]),
        make_operator(model, _MUL, [rows, scales], [output]),
    ]

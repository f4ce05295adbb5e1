"""TFLite: one copy of a token table that also scores tokens, and names of inputs that Python could not have.

Converters multiply the weights of the last norm into those of the product behind it (TFLite's optimizer, in TensorFlow
2.21 and litert-torch 0.10): a tied table is then stored twice, once scaled. Here the product reads the table again, and
its input is multiplied instead.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils
from numpy.typing import NDArray

from edgekit.export.tflite_cached import read_as_it_lies, write_in_place
from edgekit.export.tflite_edit import (
    add_buffer,
    add_tensor,
    drop_unread_buffers,
    float_table,
    float_values,
    kind_of,
    make_operator,
)
from edgekit.export.tflite_writer import write_model

_LOOKUPS = (schema.BuiltinOperator.GATHER, schema.BuiltinOperator.EMBEDDING_LOOKUP)
#: a product of two float32 numbers, divided again
_ROUNDING = 1e-5


def finish_writer(path: Path, names: Mapping[str, str]) -> None:
    """Share tied tables of the file at `path`, and give its inputs, by their `names` in it, those of the program; its
    caches are written to where they lie.
    """
    model = flatbuffer_utils.read_model(str(path))
    for definition in model.signatureDefs:
        for entry in definition.inputs:
            found = entry.name.decode()
            entry.name = names.get(found, found).encode()
    tables = _tables(model)
    for subgraph in model.subgraphs:
        subgraph.operators = [
            each for operator in subgraph.operators for each in _with_table(model, subgraph, operator, tables)
        ]
    write_in_place(model)
    read_as_it_lies(model)
    drop_unread_buffers(model)
    write_model(path, model)


def _tables(model: Any) -> dict[int, NDArray[np.float32]]:
    """The tables that ids are looked up in, by buffer."""
    found = {}
    for subgraph in model.subgraphs:
        for operator in subgraph.operators:
            if kind_of(model, operator) in _LOOKUPS:
                for tensor in (subgraph.tensors[index] for index in operator.inputs):
                    if float_table(model, tensor):
                        found[tensor.buffer] = float_values(model, tensor)
    return found


def _with_table(model: Any, subgraph: Any, operator: Any, tables: Mapping[int, NDArray[np.float32]]) -> list[Any]:
    """An operator, made to read one of the tables where its weights are that table with a factor for each input."""
    if kind_of(model, operator) != schema.BuiltinOperator.FULLY_CONNECTED:
        return [operator]
    tensor = subgraph.tensors[operator.inputs[1]]
    if not float_table(model, tensor) or tensor.buffer in tables:
        return [operator]
    weights = float_values(model, tensor)
    for buffer, table in tables.items():
        factors = _factors(weights, table) if table.shape == weights.shape else None
        if factors is not None:
            tensor.buffer = buffer
            return [*_scaled(model, subgraph, operator, factors), operator]
    return [operator]


def _factors(weights: NDArray[np.float32], table: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """What each column of the table is multiplied by to give the weights; None where it is something else."""
    wide = table.astype(np.float64)
    factors = np.sum(weights * wide, axis=0) / np.maximum(np.sum(wide * wide, axis=0), 1e-30)
    if not np.allclose(weights, wide * factors, rtol=_ROUNDING, atol=_ROUNDING * float(np.abs(weights).max())):
        return None
    return factors.astype(np.float32)


def _scaled(model: Any, subgraph: Any, operator: Any, factors: NDArray[np.float32]) -> list[Any]:
    """Multiply the input of an operator; nothing where the factors are 1."""
    if np.array_equal(factors, np.ones_like(factors)):
        return []
    given = subgraph.tensors[operator.inputs[0]]
    constant = add_tensor(
        subgraph, given.name + b";factors", schema.TensorType.FLOAT32, [len(factors)], add_buffer(model, factors)
    )
    scaled = add_tensor(subgraph, given.name + b";scaled", given.type, [int(size) for size in given.shape])
    multiply = make_operator(model, schema.BuiltinOperator.MUL, [operator.inputs[0], constant], [scaled])
    operator.inputs = [scaled, *list(operator.inputs)[1:]]
    return [multiply]

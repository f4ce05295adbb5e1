"""Matrices of a TFLite file as their model has them, without the norm's weights that a converter folded into them.

litert-converter 0.5 folds the last product and sum of a LayerNorm into each FULLY_CONNECTED that reads it, also where
the residual sum reads the norm's output too, so that nothing is saved: BERT and its kin. What the matrix then reads has
larger outliers beside smaller weights, and rounds worse: all-MiniLM-L6-v2 in int8-dynamic has a mean cosine of 0.997
with folded norms and 0.998 without.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from edgekit.export.quantize.evidence import Floats
from edgekit.export.tflite_edit import (
    add_buffer,
    add_tensor,
    constant_of,
    drop_unread_buffers,
    kind_of,
    replace_constant,
)

_MUL, _ADD, _PRODUCT = (
    schema.BuiltinOperator.MUL,
    schema.BuiltinOperator.ADD,
    schema.BuiltinOperator.FULLY_CONNECTED,
)


@dataclass(frozen=True, kw_only=True)
class _Affine:
    """The end of a norm that the graph computes anyway: output = input · weight + bias, known after `place`."""

    output: int
    place: int
    weight: Floats
    bias: Floats


def unfold_norms(model: Any) -> bool:
    """Let products read a norm's output, with weights that fit it, where it is computed anyway; whether any does."""
    made: dict[tuple[Any, ...], tuple[int, int]] = {}
    found = False
    for subgraph in model.subgraphs:
        affines = dict(_affines(model, subgraph))
        for place, operator in enumerate(subgraph.operators):
            affine = affines.get(int(operator.inputs[0])) if _is_product(model, subgraph, operator) else None
            if affine and affine.place < place:
                _unfold(model, subgraph, operator, affine, made)
                found = True
    if found:
        drop_unread_buffers(model)
    return found


def _is_product(model: Any, subgraph: Any, operator: Any) -> bool:
    if kind_of(model, operator) != _PRODUCT:
        return False
    return constant_of(model, subgraph, operator.inputs[1]) is not None


def _affines(model: Any, subgraph: Any) -> Iterator[tuple[int, _Affine]]:
    """Tensor → the affine end that it is given; the first where there are several."""
    sums = {source: (place, op, bias) for place, op, source, bias in _by_constant(model, subgraph, _ADD)}
    seen: set[int] = set()
    for place, operator, source, weight in _by_constant(model, subgraph, _MUL):
        output = int(operator.outputs[0])
        if output in sums and source not in seen and np.all(weight != 0):
            seen.add(source)
            after, addition, bias = sums[output]
            given = int(addition.outputs[0])
            yield source, _Affine(output=given, place=max(place, after), weight=weight, bias=bias)


def _by_constant(model: Any, subgraph: Any, kind: int) -> Iterator[tuple[int, Any, int, Floats]]:
    """Operators of a kind that combine rows of a tensor with a constant vector: place, operator, tensor, vector."""
    for place, operator in enumerate(subgraph.operators):
        if kind_of(model, operator) != kind:
            continue
        first, second = (int(index) for index in operator.inputs)
        for tensor, constant in ((first, second), (second, first)):
            values = constant_of(model, subgraph, constant)
            shape = subgraph.tensors[tensor].shape
            width = int(shape[-1]) if shape is not None and len(shape) else 0
            if values is not None and values.size == width > 1 and constant_of(model, subgraph, tensor) is None:
                yield place, operator, tensor, values.ravel()


def _unfold(
    model: Any, subgraph: Any, operator: Any, affine: _Affine, made: dict[tuple[Any, ...], tuple[int, int]]
) -> None:
    """Give a product the norm's output, and a matrix and bias that undo its weight; one copy for all signatures."""
    matrix = subgraph.tensors[operator.inputs[1]]
    bias_index = int(operator.inputs[2]) if len(operator.inputs) > 2 else -1
    known = subgraph.tensors[bias_index].buffer if bias_index >= 0 else 0
    key = (matrix.buffer, known, affine.weight.tobytes(), affine.bias.tobytes())
    folded: NDArray[np.float64] = np.asarray(constant_of(model, subgraph, operator.inputs[1]), np.float64)
    if key not in made:
        weights = folded / affine.weight
        given = constant_of(model, subgraph, bias_index) if bias_index >= 0 else None
        bias = (0.0 if given is None else given.astype(np.float64)) - weights @ affine.bias.astype(np.float64)
        made[key] = (add_buffer(model, weights.astype(np.float32)), add_buffer(model, bias.astype(np.float32)))
    weights_index = replace_constant(subgraph, int(operator.inputs[1]), made[key][0])
    if bias_index >= 0:
        bias_index = replace_constant(subgraph, bias_index, made[key][1])
    else:
        bias_index = add_tensor(subgraph, matrix.name + b";bias", matrix.type, [int(matrix.shape[0])], made[key][1])
    operator.inputs = [affine.output, weights_index, bias_index]

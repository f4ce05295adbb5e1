"""Outlier channels of a TFLite file: seen on calibration texts, and balanced, so that int8 with one scale fits all.

A trained encoder has a few channels whose values are a hundred times the others' (arXiv:2109.12948): with one scale for
an activation, the others round to next to nothing. So each product reads its input divided by a factor for each
channel, and gives its output divided by another: both are folded into its matrix, which has a scale for each row, and
undone in float32 beside it. The factors of inputs are SmoothQuant's (arXiv:2211.10438).
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgekit.errors import ExportError
from edgekit.export.quantize.balance import has_outliers, input_factors, output_factors, real_rows, some_steps
from edgekit.export.quantize.evidence import Floats
from edgekit.export.tflite_edit import (
    add_buffer,
    add_tensor,
    constant_of,
    drop_unread_buffers,
    kind_of,
    make_operator,
    replace_constant,
)
from edgekit.export.tflite_writer import serialize
from edgekit.proof.golden import Step

#: of factors of inputs; on all-MiniLM-L6-v2, simulated, 0.7 was best of 0.5 to 0.9
STRENGTH = 0.7
#: 1 / standard deviation in norms that is so many times the median one leaves int8 not one step for the others: in
#: MPNet, whose padding is all zeros, it is a million times, in the embedded model 25 times
_NORMS = 255.0
_PREFIX = "edgekit_watched_"
_NORM = f"{_PREFIX}norm_"
_PRODUCT, _MUL, _RSQRT = (
    schema.BuiltinOperator.FULLY_CONNECTED,
    schema.BuiltinOperator.MUL,
    schema.BuiltinOperator.RSQRT,
)


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """The largest magnitude of each channel of what a product reads and gives."""

    inputs: Floats
    outputs: Floats


def balance_outliers(model: Any, steps: Sequence[Step]) -> bool:
    """Balance the products of a model in whose activations `steps` show outliers; whether there are any.

    `steps` are each of a signature of the model, which all have the same products. Nothing changes where no product
    reads or gives outliers; where only norms of padding do (all zero in MPNet), nothing needs to.
    """
    products = [
        [op for op in graph.operators if _is_product(model, graph, op) and not _is_shared(model, graph, op)]
        for graph in model.subgraphs
    ]
    if not products[0] or any(len(each) != len(products[0]) for each in products):
        return False
    seen, norms = _watch(model, products, steps)
    if not any(has_outliers(each.inputs) or has_outliers(each.outputs) for each in seen):
        return has_outliers(norms, _NORMS)
    for subgraph, own in zip(model.subgraphs, products, strict=True):
        _balance(model, subgraph, own, seen)
    drop_unread_buffers(model)
    return True


def _is_product(model: Any, subgraph: Any, operator: Any) -> bool:
    if kind_of(model, operator) != _PRODUCT or len(operator.inputs) < 2:
        return False
    weights = constant_of(model, subgraph, operator.inputs[1])
    return weights is not None and constant_of(model, subgraph, operator.inputs[0]) is None


def _watch(model: Any, products: list[list[Any]], steps: Sequence[Step]) -> tuple[list[_Seen], Floats]:
    """Run the steps with what products read and give, and 1 / standard deviation in norms, as outputs of the graph.

    By the runtime's fast kernels. Returns what was seen of each product, and all values of the norms.
    """
    from ai_edge_litert.interpreter import Interpreter

    highest: dict[str, Floats] = {}
    norms = [np.zeros(0, np.float32)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "watched.tflite"
        path.write_bytes(
            _with_outputs(model, [_watched(model, *each) for each in zip(model.subgraphs, products, strict=True)])
        )
        interpreter = Interpreter(str(path), num_threads=1)
        runners = {name: interpreter.get_signature_runner(name) for name in interpreter.get_signature_list()}
        for step in some_steps(steps):
            for name, values in runners[step.signature](**step.inputs).items():
                if name.startswith(_NORM):
                    norms.append(values.ravel())
                elif name.startswith(_PREFIX):
                    found = np.max(np.abs(real_rows(values, step)), axis=0)
                    highest[name] = np.maximum(found, highest.get(name, found))
    seen = [
        _Seen(inputs=highest[f"{_PREFIX}in_{i}"], outputs=highest[f"{_PREFIX}out_{i}"]) for i in range(len(products[0]))
    ]
    return seen, np.concatenate(norms)


def _watched(model: Any, subgraph: Any, products: list[Any]) -> dict[str, int]:
    """What is watched of one subgraph: a name for the output, and the tensor."""
    norms = [op for op in subgraph.operators if kind_of(model, op) == _RSQRT]
    return {
        **{f"{_PREFIX}in_{i}": int(operator.inputs[0]) for i, operator in enumerate(products)},
        **{f"{_PREFIX}out_{i}": int(operator.outputs[0]) for i, operator in enumerate(products)},
        **{f"{_NORM}{i}": int(operator.outputs[0]) for i, operator in enumerate(norms)},
    }


def _with_outputs(model: Any, watched: list[dict[str, int]]) -> bytes:
    """The model with more outputs of each signature; the model given stays as it is."""
    kept = [(graph.outputs, definition.outputs) for graph, definition in _signatures(model)]
    try:
        for (graph, definition), added in zip(_signatures(model), watched, strict=True):
            graph.outputs = list(dict.fromkeys([*graph.outputs, *added.values()]))
            definition.outputs = [*definition.outputs, *(_named(name, index) for name, index in added.items())]
        return serialize(model)
    finally:
        for (graph, definition), (indices, names) in zip(_signatures(model), kept, strict=True):
            graph.outputs, definition.outputs = indices, names


def _named(name: str, index: int) -> Any:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name.encode(), index
    return entry


def _signatures(model: Any) -> list[tuple[Any, Any]]:
    """Each subgraph with its signature."""
    by_graph = {definition.subgraphIndex: definition for definition in model.signatureDefs}
    if len(by_graph) != len(model.subgraphs):
        raise ExportError("the file has subgraphs of no signature: how its activations range can't be seen")
    return [(graph, by_graph[place]) for place, graph in enumerate(model.subgraphs)]


def _balance(model: Any, subgraph: Any, products: list[Any], seen: list[_Seen]) -> None:
    """Scale the matrices of one subgraph, and what flows into and out of them."""
    groups: dict[int, list[int]] = {}
    for i, operator in enumerate(products):
        groups.setdefault(int(operator.inputs[0]), []).append(i)
    before: dict[int, list[Any]] = {}
    after: dict[int, list[Any]] = {}
    for tensor, members in groups.items():
        matrices = [_matrix(model, subgraph, products[i]) for i in members]
        found = seen[members[0]].inputs
        factors = input_factors(found, matrices, STRENGTH) if has_outliers(found) else None
        if factors is not None:
            scaled, multiplication = _multiplied(model, subgraph, tensor, np.float32(1) / factors)
            before[id(products[members[0]])] = [multiplication]
        for i in members:
            outputs = output_factors(seen[i].outputs) if has_outliers(seen[i].outputs) else None
            _scale_product(model, subgraph, products[i], factors, outputs)
            if factors is not None:
                products[i].inputs = [scaled, *list(products[i].inputs)[1:]]
            if outputs is not None:
                after[id(products[i])] = [_restored(model, subgraph, products[i], outputs)]
    subgraph.operators = [
        each
        for operator in subgraph.operators
        for each in (*before.get(id(operator), ()), operator, *after.get(id(operator), ()))
    ]


def _is_shared(model: Any, subgraph: Any, operator: Any) -> bool:
    """Whether another operator reads the same matrix, as ALBERT's layers do: one can't be scaled for all."""
    buffer = subgraph.tensors[operator.inputs[1]].buffer
    readers = [
        op for op in subgraph.operators if any(subgraph.tensors[i].buffer == buffer for i in op.inputs if i >= 0)
    ]
    return len(readers) > 1


def _matrix(model: Any, subgraph: Any, operator: Any) -> Floats:
    values = constant_of(model, subgraph, operator.inputs[1])
    if values is None:
        raise ExportError("a product of the file has no float32 matrix")
    return values


def _scale_product(model: Any, subgraph: Any, operator: Any, inputs: Floats | None, outputs: Floats | None) -> None:
    """Fold the factors of channels into a matrix [outputs, inputs] and its bias."""
    if inputs is None and outputs is None:
        return
    weights = _matrix(model, subgraph, operator).astype(np.float64)
    weights = weights * (1 if inputs is None else inputs) / (1 if outputs is None else outputs[:, None])
    indices = [int(index) for index in operator.inputs]
    indices[1] = replace_constant(subgraph, indices[1], add_buffer(model, weights.astype(np.float32)))
    if outputs is not None and len(indices) > 2 and indices[2] >= 0:
        bias = constant_of(model, subgraph, indices[2])
        if bias is not None:
            buffer = add_buffer(model, (bias / outputs).astype(np.float32))
            indices[2] = replace_constant(subgraph, indices[2], buffer)
    operator.inputs = indices


def _multiplied(model: Any, subgraph: Any, tensor: int, factors: Floats) -> tuple[int, Any]:
    """A new tensor that is this one times factors, and the operator that gives it."""
    source = subgraph.tensors[tensor]
    shape = [int(size) for size in source.shape]
    output = add_tensor(subgraph, source.name + b";balanced", source.type, shape)
    return output, _multiplication(model, subgraph, tensor, factors, output)


def _restored(model: Any, subgraph: Any, operator: Any, factors: Floats) -> Any:
    """Let a product give a new tensor, and the old one become that times factors."""
    output = int(operator.outputs[0])
    target = subgraph.tensors[output]
    shape = [int(size) for size in target.shape]
    given = add_tensor(subgraph, target.name + b";balanced", target.type, shape)
    operator.outputs = [given]
    return _multiplication(model, subgraph, given, factors, output)


def _multiplication(model: Any, subgraph: Any, tensor: int, factors: Floats, output: int) -> Any:
    name = subgraph.tensors[tensor].name + b";factors"
    buffer = add_buffer(model, factors.astype(np.float32))
    constant = add_tensor(subgraph, name, schema.TensorType.FLOAT32, [len(factors)], buffer)
    operator = make_operator(model, _MUL, [tensor, constant], [output])
    operator.builtinOptionsType, operator.builtinOptions = schema.BuiltinOptions.MulOptions, schema.MulOptionsT()
    return operator

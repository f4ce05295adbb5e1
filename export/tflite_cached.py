"""TFLite: steps of a model that writes as runtimes do them fastest: new keys and values into the cache as it lies.

Models write their cache as a choice between what is new and what is there, which every converter knows and which
copies all of it. A DYNAMIC_UPDATE_SLICE writes the new rows alone where its runtime is given one buffer for the cache
before and after. It has the same numbers for texts that fit in the cache: one that is longer would be moved to its end,
where the choice leaves it out.
"""

from typing import Any, NamedTuple

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgekit.export.tflite_edit import (
    add_buffer,
    add_shape,
    add_tensor,
    drop_unread_operators,
    kind_of,
    make_operator,
)

_SELECT, _UPDATE, _RESHAPE = (
    schema.BuiltinOperator.SELECT_V2,
    schema.BuiltinOperator.DYNAMIC_UPDATE_SLICE,
    schema.BuiltinOperator.RESHAPE,
)
_TRANSPOSE, _PRODUCT = schema.BuiltinOperator.TRANSPOSE, schema.BuiltinOperator.BATCH_MATMUL
_GATHERS = (schema.BuiltinOperator.GATHER, schema.BuiltinOperator.GATHER_ND)
_PAST, _POSITION = b"past_key_values", b"position"
#: the axis of a cache that tokens are on: [batch, heads, length, head size]
_LENGTH_AXIS = 2


class _Graph:
    """A subgraph, and which operator gives each of its tensors."""

    def __init__(self, model: Any, subgraph: Any) -> None:
        self.model, self.subgraph = model, subgraph
        self.makers = {int(index): op for op in subgraph.operators for index in op.outputs}

    def maker(self, index: int, *kinds: int) -> Any | None:
        """The operator that gives a tensor, where it is of one of these kinds."""
        found = self.makers.get(int(index))
        return found if found is not None and kind_of(self.model, found) in kinds else None

    def shape(self, index: int) -> list[int]:
        """The sizes of a tensor."""
        shape = self.subgraph.tensors[index].shape
        return [] if shape is None else [int(size) for size in shape]

    def integers(self, index: int) -> list[int] | None:
        """The values of an int32 constant; None for any other tensor."""
        tensor = self.subgraph.tensors[index]
        data = self.model.buffers[tensor.buffer].data
        constant = data is not None and tensor.type == schema.TensorType.INT32
        return np.frombuffer(bytes(data), np.int32).tolist() if constant else None


def write_in_place(model: Any) -> None:
    """Make each choice between new rows and a cache that is given a DYNAMIC_UPDATE_SLICE at the input `position`."""
    for definition in model.signatureDefs:
        graph = _Graph(model, model.subgraphs[definition.subgraphIndex])
        ports = {entry.name: int(entry.tensorIndex) for entry in definition.inputs}
        caches = {index for name, index in ports.items() if name.startswith(_PAST)}
        if _POSITION in ports and caches:
            _rewrite_updates(graph, caches, ports[_POSITION])


def _rewrite_updates(graph: _Graph, caches: set[int], position: int) -> None:
    model, subgraph = graph.model, graph.subgraph
    start: int | None = None
    operators: list[Any] = []
    for operator in subgraph.operators:
        new = _new_rows(graph, operator, caches)
        if new is None:
            operators.append(operator)
            continue
        if start is None:
            start, made = _start(model, subgraph, position)
            operators += made
        rows, made = _rows(graph, new)
        given = int(operator.inputs[2])
        operators += [*made, make_operator(model, _UPDATE, [given, rows, start], list(operator.outputs))]
    subgraph.operators = operators
    drop_unread_operators(subgraph)


class _NewRows(NamedTuple):
    """New rows of a cache: a tensor, and what makes its axes those of the cache, a TRANSPOSE's order or a RESHAPE."""

    tensor: int
    shape: list[int]
    order: list[int] | None = None
    reshaped: bool = False


def _new_rows(graph: _Graph, operator: Any, caches: set[int]) -> _NewRows | None:
    """What a choice writes into one of the caches; None for any other operator, and for other forms of it.

    Of several rows it is what is gathered for each place of the cache, perhaps with its axes in another order.
    """
    if kind_of(graph.model, operator) != _SELECT or int(operator.inputs[2]) not in caches:
        return None
    cache, new = graph.shape(operator.inputs[2]), int(operator.inputs[1])
    if graph.shape(new)[_LENGTH_AXIS] == 1:
        return _NewRows(new, graph.shape(new))
    guard = graph.maker(new, _SELECT)  # litert-torch 0.10 makes rows outside NaN
    spread = int(guard.inputs[1]) if guard is not None else new
    turned = graph.maker(spread, _TRANSPOSE, _RESHAPE)
    gather = graph.maker(int(turned.inputs[0]) if turned is not None else spread, *_GATHERS)
    if gather is None:
        return None
    rows = int(gather.inputs[0])
    sizes = graph.shape(rows)
    if turned is None:
        found = _NewRows(rows, sizes)
    elif kind_of(graph.model, turned) == _TRANSPOSE:
        order = graph.integers(turned.inputs[1]) or []
        found = _NewRows(rows, [sizes[axis] for axis in order], order)
    else:  # of one head: rows of heads that are one after the other
        found = _NewRows(rows, [1, 1, sizes[0], cache[3]] if sizes[1:-1] == [1, 1] else [], reshaped=True)
    expected = [*cache[:_LENGTH_AXIS], *found.shape[_LENGTH_AXIS : _LENGTH_AXIS + 1], cache[3]]
    return found if found.shape == expected else None


def _rows(graph: _Graph, new: _NewRows) -> tuple[int, list[Any]]:
    """The tensor of new rows with the axes of the cache, and the operators that make it."""
    if new.order is None and not new.reshaped:
        return new.tensor, []
    before = graph.maker(new.tensor, _TRANSPOSE)
    first = graph.integers(before.inputs[1]) if before is not None else None
    if before is not None and first and new.order and [first[axis] for axis in new.order] == [0, 1, 2, 3]:
        return int(before.inputs[0]), []
    source = graph.subgraph.tensors[new.tensor]
    made = add_tensor(graph.subgraph, source.name + b";rows", source.type, new.shape)
    how = add_shape(graph.model, graph.subgraph, source.name + b";rows_order", new.order or new.shape)
    return made, [make_operator(graph.model, _TRANSPOSE if new.order else _RESHAPE, [new.tensor, how], [made])]


def _start(model: Any, subgraph: Any, position: int) -> tuple[int, list[Any]]:
    """Where new rows go, int32 [0, 0, position, 0], and the operators that make it."""
    int32 = schema.TensorType.INT32
    name = subgraph.tensors[position].name
    none = add_tensor(subgraph, name + b";first", int32, [1], add_buffer(model, np.zeros(1, np.int32)))
    start = add_tensor(subgraph, name + b";start", int32, [4])
    joined = make_operator(model, schema.BuiltinOperator.CONCATENATION, [none, none, position, none], [start])
    return start, [joined]


def read_as_it_lies(model: Any) -> None:
    """Let products of activations read the cache itself, not what was copied of it to be transposed or reshaped.

    XNNPACK's products take a matrix in either order and any number of axes before it; in ai-edge-litert 2.3 a
    TRANSPOSE, or a RESHAPE, of what is no tensor of its own copies all of it.
    """
    for subgraph in model.subgraphs:
        graph = _Graph(model, subgraph)
        operators: list[Any] = []
        for operator in subgraph.operators:
            product = kind_of(model, operator) == _PRODUCT
            operators += _direct_product(graph, operator) if product else [operator]
        subgraph.operators = operators
        drop_unread_operators(subgraph)


def _direct_product(graph: _Graph, operator: Any) -> list[Any]:
    """A product that reads what its second operand was reshaped and transposed of, as far as it can."""
    options, given = operator.builtinOptions, int(operator.inputs[1])
    source, adjoint = given, options.adjY
    shape = graph.shape(given)
    while (before := graph.maker(source, _RESHAPE, _TRANSPOSE)) is not None:
        origin = int(before.inputs[0])
        sizes = graph.shape(origin)
        if kind_of(graph.model, before) == _TRANSPOSE:
            if graph.integers(before.inputs[1]) != _last_two_exchanged(len(sizes)):
                break
            adjoint = not adjoint
        elif not _same_matrices(sizes, graph.shape(source)):
            break
        source = origin
    if source == given:
        return [operator]
    options.adjY = adjoint
    first, output = int(operator.inputs[0]), int(operator.outputs[0])
    leading = graph.shape(source)[:-2]
    if leading == shape[:-2]:
        operator.inputs = [first, source]
        return [operator]
    made, name = graph.shape(output), graph.subgraph.tensors[output].name
    taken, before_operators = _reshaped(graph, first, name + b";first", [*leading, *graph.shape(first)[-2:]])
    kind = graph.subgraph.tensors[output].type
    result = add_tensor(graph.subgraph, name + b";whole", kind, [*leading, *made[-2:]])
    operator.inputs, operator.outputs = [taken, source], [result]
    to_shape = add_shape(graph.model, graph.subgraph, name + b";shape", made)
    return [*before_operators, operator, make_operator(graph.model, _RESHAPE, [result, to_shape], [output])]


def _last_two_exchanged(rank: int) -> list[int]:
    return [*range(rank - 2), rank - 1, rank - 2]


def _same_matrices(before: list[int], after: list[int]) -> bool:
    """Whether a RESHAPE of these sizes leaves each matrix, and only adds or takes axes of size 1 before them."""
    return before[-2:] == after[-2:] and [n for n in before[:-2] if n > 1] == [n for n in after[:-2] if n > 1]


def _reshaped(graph: _Graph, index: int, name: bytes, shape: list[int]) -> tuple[int, list[Any]]:
    """A tensor in another shape, from what it was itself reshaped of, and the operators that make it."""
    before = graph.maker(index, _RESHAPE)
    origin = int(before.inputs[0]) if before is not None else index
    found = add_tensor(graph.subgraph, name, graph.subgraph.tensors[index].type, shape)
    to_shape = add_shape(graph.model, graph.subgraph, name + b"_shape", shape)
    return found, [make_operator(graph.model, _RESHAPE, [origin, to_shape], [found])]

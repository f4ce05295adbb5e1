"""The same computation in fewer operators, and short names where nobody reads them: what converters leave to do.

Every signature of a file brings its operators and tensors into memory, each with its name (all-MiniLM-L6-v2 with
five lengths: 367 operators and 190 kB of names a signature), and operators cost time of their own where texts are
short. Shapes change, numbers do not, but for rounding.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils

from edgekit.export.tflite_edit import (
    add_buffer,
    add_shape,
    add_tensor,
    constant_of,
    drop_unread_buffers,
    drop_unread_codes,
    drop_unread_operators,
    make_operator,
)
from edgekit.export.tflite_fewer import scale_queries, subtract_means
from edgekit.export.tflite_graph import Graph, Shape
from edgekit.export.tflite_writer import write_model

_OP = schema.BuiltinOperator
#: operators of one number each, which give a tensor of the same shape
_EACH = {_OP.ADD, _OP.SUB, _OP.MUL, _OP.DIV, _OP.RSQRT, _OP.SQRT, _OP.MAXIMUM}
#: before the name of a class
_MODULES = re.compile(rb"(?<![\w.])(?:[a-z_]\w*\.){2,}(?=[A-Z])")


def simplify(path: Path) -> None:
    """Rewrite a float32 file of a model without states, in place."""
    model = flatbuffer_utils.read_model(str(path))
    for place, subgraph in enumerate(model.subgraphs):
        graph = Graph(model, subgraph)
        for rewrite in (_merge_additions, _narrow_masks, _keep_axes, _keep_batch, subtract_means, scale_queries):
            rewrite(graph)
            drop_unread_operators(subgraph)
        _drop_tensors(model, place)
        _shorten_names(subgraph, place)
    drop_unread_buffers(model)
    drop_unread_codes(model)
    write_model(path, model)


def _shorten_names(subgraph: Any, place: int) -> None:
    """Names of the first signature without the modules of classes, where they still tell tensors apart; in the others
    they need only do that, for quantizers.

    `torch.nn.modules.linear.Linear_query`, in the names of all that the layer gives, says no more than Linear_query.
    """
    names = [_MODULES.sub(b"", tensor.name) for tensor in subgraph.tensors]
    if place:
        names = [f"{place}.{index}".encode() for index in range(len(names))]
    elif len(set(names)) < len(names):
        return
    for tensor, name in zip(subgraph.tensors, names, strict=True):
        tensor.name = name


def _drop_tensors(model: Any, place: int) -> None:
    """Leave out the tensors that nothing gives or reads, and number the others anew."""
    subgraph = model.subgraphs[place]
    ports = [entry for d in model.signatureDefs or () if d.subgraphIndex == place for entry in (*d.inputs, *d.outputs)]
    lists = [(owner, side) for owner in (*subgraph.operators, subgraph) for side in ("inputs", "outputs")]
    used = {int(i) for owner, side in lists for i in getattr(owner, side)} | {int(port.tensorIndex) for port in ports}
    kept = sorted(used - {-1})
    numbers = {old: new for new, old in enumerate(kept)} | {-1: -1}
    subgraph.tensors = [subgraph.tensors[index] for index in kept]
    for owner, side in lists:
        setattr(owner, side, [numbers[int(index)] for index in getattr(owner, side)])
    for port in ports:
        port.tensorIndex = numbers[int(port.tensorIndex)]


def _merge_additions(graph: Graph) -> None:
    """x + constant + constant → x + constant: embeddings of positions and of the only type of token."""
    for outer in graph.of_kind(_OP.ADD):
        found = _plus_constant(graph, outer)
        inner = graph.giver(found[0]) if found else None
        within = _plus_constant(graph, inner) if inner is not None and graph.kind(inner) == _OP.ADD else None
        if not found or not within or len(graph.readers(found[0])) > 1 or graph.is_output(found[0]):
            continue
        values = (found[1] + within[1]).astype(np.float32)
        if np.broadcast_shapes(values.shape, graph.shape(within[0])) != graph.shape(int(outer.outputs[0])):
            continue
        name = graph.subgraph.tensors[int(outer.outputs[0])].name + b";constant"
        buffer = add_buffer(graph.model, values)
        constant = add_tensor(graph.subgraph, name, schema.TensorType.FLOAT32, list(values.shape), buffer)
        outer.inputs = [within[0], constant]


def _plus_constant(graph: Graph, addition: Any) -> tuple[int, Any] | None:
    """The tensor and the constant that an operator adds; None where it does not, or does more."""
    options = addition.builtinOptions
    if options is not None and getattr(options, "fusedActivationFunction", False):
        return None
    first, second = (int(index) for index in addition.inputs)
    for tensor, constant in ((first, second), (second, first)):
        values = constant_of(graph.model, graph.subgraph, constant)
        if values is not None and values.size > 1 and graph.values(tensor) is None:
            return tensor, values
    return None


def _narrow_masks(graph: Graph) -> None:
    """A mask of what each token sees, where each sees the same, as a mask of one row.

    So transformers writes "all tokens and those that are no padding": a table of length² that no fast kernel makes.
    """
    for gather in graph.of_kind(_OP.GATHER_ND):
        _as_reshape(graph, gather)
    for both in graph.of_kind(_OP.LOGICAL_AND):
        first, second = (int(index) for index in both.inputs)
        for mask, constant in ((first, second), (second, first)):
            values, given = graph.values(constant), int(both.outputs[0])
            shape = graph.shape(mask)
            if values is not None and np.all(values) and _can_be(graph, given, shape):
                _spread(graph, given, shape)
                graph.read_instead(given, mask)
                break


def _as_reshape(graph: Graph, gather: Any) -> None:
    """Gathering all of a tensor in its own order only changes its shape."""
    source, output = int(gather.inputs[0]), int(gather.outputs[0])
    indices, shape = graph.values(int(gather.inputs[1])), graph.shape(source)
    if indices is None or indices.shape[-1] != len(shape) or indices.size // len(shape) != np.prod(shape):
        return
    order = np.ravel_multi_index(tuple(np.moveaxis(indices, -1, 0)), shape)
    if not np.array_equal(order.ravel(), np.arange(np.prod(shape))):
        return
    name = graph.subgraph.tensors[output].name + b";shape"
    to = add_shape(graph.model, graph.subgraph, name, graph.shape(output))
    graph.replace(gather, make_operator(graph.model, _OP.RESHAPE, [source, to], [output]))


def _keep_axes(graph: Graph) -> None:
    """Means of rows with an axis of 1 in the place of the row, as they are used in norms, instead of reshaping them."""
    means = [op for op in graph.of_kind(_OP.MEAN) if _wide(graph, op)]
    shapes = {int(op.outputs[0]): _wide(graph, op) for op in means}
    _widen(graph, means, shapes)


def _wide(graph: Graph, mean: Any) -> Shape | None:
    """What the shape would be with the axis that a mean of rows takes away; None for other means."""
    axes, shape = graph.values(int(mean.inputs[1])), graph.shape(int(mean.inputs[0]))
    options = mean.builtinOptions
    if (options is not None and options.keepDims) or axes is None or not shape:
        return None
    taken = {int(axis) % len(shape) for axis in axes.ravel()}  # with the last, converters take axes of 1
    if len(shape) - 1 not in taken or any(shape[axis] != 1 for axis in taken - {len(shape) - 1}):
        return None
    return (*shape[:-1], 1)


def _widen(graph: Graph, means: list[Any], shapes: dict[int, Shape | None]) -> None:
    """Give means, and what is computed from them number by number, wide shapes; drop the reshapes to these."""
    for operator in graph.subgraph.operators:
        if graph.kind(operator) in _EACH:
            found = {shapes.get(int(i)) for i in operator.inputs if not graph.is_scalar(int(i))}
            if len(found) == 1 and None not in found:
                shapes[int(operator.outputs[0])] = found.pop()
    while True:
        wrong = [index for index in shapes if not _stays(graph, index, shapes)]
        if not wrong:
            break
        for index in wrong:
            del shapes[index]
    for mean in means:
        mean.builtinOptionsType, mean.builtinOptions = schema.BuiltinOptions.ReducerOptions, schema.ReducerOptionsT()
        mean.builtinOptions.keepDims = int(mean.outputs[0]) in shapes
    for index, shape in shapes.items():
        assert shape is not None
        graph.set_shape(index, shape)
        for reader in graph.readers(index):
            if graph.kind(reader) == _OP.RESHAPE:
                graph.read_instead(int(reader.outputs[0]), index)


def _stays(graph: Graph, index: int, shapes: dict[int, Shape | None]) -> bool:
    """Whether all that a tensor is computed from is widened, and all that reads it takes it so."""
    giver = graph.giver(index)
    if graph.is_output(index):
        return False
    if graph.kind(giver) in _EACH and any(int(i) not in shapes and not graph.is_scalar(int(i)) for i in giver.inputs):
        return False
    for reader in graph.readers(index):
        output = int(reader.outputs[0])
        reshaped = graph.kind(reader) == _OP.RESHAPE and graph.shape(output) == shapes[index]
        if not (reshaped and not graph.is_output(output)) and output not in shapes:
            return False
    return True


def _keep_batch(graph: Graph) -> None:
    """Products of activations with the axis of the batch, of 1, that converters reshape away before and after."""
    for product in graph.of_kind(_OP.BATCH_MATMUL):
        sources = [_without_batch(graph, int(index)) for index in product.inputs]
        output = int(product.outputs[0])
        shape = (1, *graph.shape(output))
        if all(source is not None for source in sources) and _can_be(graph, output, shape):
            product.inputs = sources
            _spread(graph, output, shape)
            graph.set_shape(output, shape)


def _without_batch(graph: Graph, index: int) -> int | None:
    """The tensor that a reshape took a first axis of 1 from to give this one."""
    giver = graph.giver(index)
    if giver is None or graph.kind(giver) != _OP.RESHAPE:
        return None
    source = int(giver.inputs[0])
    return source if graph.shape(source) == (1, *graph.shape(index)) else None


def _can_be(graph: Graph, index: int, shape: Shape) -> bool:
    """Whether a tensor can be of another shape, and all that is computed from it stay what it is where it ends."""
    if graph.is_output(index):
        return False
    return all(_takes(graph, reader, index, shape) for reader in graph.readers(index))


def _takes(graph: Graph, reader: Any, index: int, shape: Shape) -> bool:
    kind, output = graph.kind(reader), int(reader.outputs[0])
    others = [int(i) for i in reader.inputs if int(i) != index]
    if kind == _OP.RESHAPE:
        return int(np.prod(shape)) == int(np.prod(graph.shape(index)))
    if kind == _OP.SELECT_V2 and int(reader.inputs[0]) != index:
        return False
    if kind not in _EACH and kind != _OP.SELECT_V2:
        return False
    if all(graph.is_scalar(i) for i in others):
        return _can_be(graph, output, shape)
    return _broadcast(shape, *map(graph.shape, others)) == graph.shape(output)


def _broadcast(*shapes: Shape) -> Shape | None:
    try:
        return tuple(int(size) for size in np.broadcast_shapes(*shapes))
    except ValueError:
        return None


def _spread(graph: Graph, index: int, shape: Shape) -> None:
    """Give what is computed from a tensor number by number its new shape; drop the reshapes to that shape."""
    for reader in graph.readers(index):
        output = int(reader.outputs[0])
        others = [int(i) for i in reader.inputs if int(i) != index]
        if graph.kind(reader) == _OP.RESHAPE:
            if graph.shape(output) == shape and not graph.is_output(output):
                graph.read_instead(output, index)
        elif all(graph.is_scalar(i) for i in others):
            _spread(graph, output, shape)
            graph.set_shape(output, shape)

"""TFLite files of several lengths: a long constant that begins with a shorter length's, joined of it and the rest.

So are embeddings of positions, which every length has as far as it goes. Only the longest length pays, with a copy for
each text: its table is about half of what all keep, and few texts are that long.
"""

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgekit.export.tflite_edit import add_buffer, add_tensor, make_operator

_JOIN = schema.BuiltinOperator.CONCATENATION
#: smaller constants are not worth an operator
_SMALLEST_BYTES = 4096


def share_prefixes(model: Any) -> None:
    """Let the longest length of a file join its long constants of the next shorter one's and what follows in them."""
    graphs = model.subgraphs
    if len(graphs) < 2 or any(len(graph.operators) != len(graphs[0].operators) for graph in graphs):
        return
    for place in reversed(range(len(graphs[0].operators))):  # what is put in does not move what comes before
        ports = min(len(graph.operators[place].inputs) for graph in graphs)
        for port in range(ports):
            _share(model, place, port)


def _share(model: Any, place: int, port: int) -> None:
    """Join the constant that one operator reads at one of its inputs, where it begins with that of another length."""
    found = []
    for graph in model.subgraphs:
        tensor = graph.tensors[graph.operators[place].inputs[port]]
        data = model.buffers[tensor.buffer].data
        if data is None:
            return
        found.append((len(data), graph, tensor, bytes(data)))
    (_, _, shorter, begin), (size, graph, longer, data) = sorted(found, key=lambda each: each[0])[-2:]
    axis = _axis(shorter, longer)
    if axis is None or not _SMALLEST_BYTES <= len(begin) < size or not data.startswith(begin):
        return
    rest = [int(size) for size in longer.shape]
    rest[axis] -= int(shorter.shape[axis])
    parts = [
        _tensor(graph, longer, b";begin", list(map(int, shorter.shape)), shorter.buffer),
        _tensor(graph, longer, b";rest", rest, add_buffer(model, np.frombuffer(data[len(begin) :], np.uint8))),
    ]
    joined = _tensor(graph, longer, b";joined", [int(size) for size in longer.shape], 0)
    operator = graph.operators[place]
    operator.inputs = [joined if at == port else int(index) for at, index in enumerate(operator.inputs)]
    join = make_operator(model, _JOIN, parts, [joined])
    join.builtinOptions.axis = axis
    graph.operators.insert(place, join)


def _axis(shorter: Any, longer: Any) -> int | None:
    """The one axis that two constants of one type differ in, where nothing but axes of 1 comes before; else None."""
    shapes = [[int(size) for size in tensor.shape] if tensor.shape is not None else [] for tensor in (shorter, longer)]
    if shorter.type != longer.type or _is_quantized(longer) or len(shapes[0]) != len(shapes[1]):
        return None
    differing = [axis for axis, sizes in enumerate(zip(*shapes, strict=True)) if sizes[0] != sizes[1]]
    return differing[0] if len(differing) == 1 and max(shapes[1][: differing[0]], default=1) == 1 else None


def _is_quantized(tensor: Any) -> bool:
    return tensor.quantization is not None and tensor.quantization.scale is not None


def _tensor(graph: Any, like: Any, suffix: bytes, shape: list[int], buffer: int) -> int:
    return add_tensor(graph, like.name + suffix, like.type, shape, buffer)

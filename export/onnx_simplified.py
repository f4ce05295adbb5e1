"""Graphs of models that write, with the same numbers by fewer operators, as ONNX Runtime has them."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from onnx import helper, numpy_helper

from edgekit.sources.writers_onnx import IN_PLACE

_ATTENTION, _MICROSOFT = "GroupQueryAttention", "com.microsoft"
_PAST, _PRESENT, _SOURCE = "past_key_values", "present", ".encoder."
_ELEMENTWISE = frozenset({"Add", "Mul", "Div", "Pow", "Sqrt", "Sigmoid", "Gelu", "Relu"})


def simplify_writer(model: Any) -> None:
    """Join each norm by root mean squares with the sum before it, and products that read the same."""
    divide_by_roots(model)
    join_sums(model)
    pack_projections(model)
    pack_pairs(model)
    _remove_unread(model.graph)


def mark_cache(model: Any) -> None:
    """Note in the metadata of a model whether its cache may stay where it is; as the runner reads it."""
    if _keeps_in_place(model.graph):
        helper.set_model_props(model, {IN_PLACE: "1"})


def divide_by_roots(model: Any) -> None:
    """Write x · (1 / √v) as x / √v: only so does ONNX Runtime 1.31 know a norm by root mean squares."""
    roots = {node.output[0] for node in model.graph.node if node.op_type == "Sqrt"}
    inverse = {n.output[0]: n.input[0] for n in model.graph.node if n.op_type == "Reciprocal" and n.input[0] in roots}
    for node in model.graph.node:
        others = [name for name in node.input if name not in inverse]
        if node.op_type == "Mul" and len(others) == 1:
            root = next(inverse[name] for name in node.input if name in inverse)
            node.op_type = "Div"
            node.input[:] = [*others, root]


class _Norm(NamedTuple):
    """A norm by root mean squares: the node that gives it, the name of its weights, what is added to the mean."""

    last: Any
    weight: str
    epsilon: float


def join_sums(model: Any) -> None:
    """Make a sum of two tensors of one shape, and the norm by root mean squares of it, one operator that gives both.

    ONNX Runtime 1.31 does so by itself for LayerNormalization alone.
    """
    graph = model.graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    readers, shaped = _readers(graph), _hidden_states(graph, constants)
    for node in list(graph.node):
        norm = _norm_of(node.output[0], readers, constants) if node.op_type == "Add" else None
        if norm is not None and shaped.issuperset(node.input):
            (total,) = node.output
            node.op_type, node.domain = "SkipSimplifiedLayerNormalization", _MICROSOFT
            node.input.append(norm.weight)
            node.output[:] = [norm.last.output[0], "", "", total]
            node.attribute.append(helper.make_attribute("epsilon", norm.epsilon))
            graph.node.remove(norm.last)


def _norm_of(name: str, readers: Mapping[str, Sequence[Any]], constants: Mapping[str, Any]) -> _Norm | None:
    """The norm of a tensor, if that is read by one."""

    def follow(value: str, kind: str) -> Any:
        return next((node for node in readers.get(value, ()) if node.op_type == kind and value == node.input[0]), None)

    found, value = [], name
    for kind in ("Pow", "ReduceMean", "Add", "Sqrt"):
        node = follow(value, kind)
        if node is None:
            return None
        found.append(node)
        value = node.output[0]
    power, mean, added, _ = found
    division = next((n for n in readers.get(value, ()) if n.op_type == "Div" and list(n.input) == [name, value]), None)
    if division is None:
        return None
    scaled = next((n for n in readers.get(division.output[0], ()) if n.op_type == "Mul"), None)
    numbers = [constants.get(node.input[1]) for node in (power, mean, added) if len(node.input) > 1]
    if scaled is None or len(numbers) < 3 or any(number is None or number.size != 1 for number in numbers):
        return None
    exponent, axis, epsilon = (float(np.asarray(number).item()) for number in numbers)
    weight = next((each for each in scaled.input if each in constants and constants[each].ndim == 1), None)
    kept = all(helper.get_attribute_value(a) for a in mean.attribute if a.name == "keepdims")
    alone = len(readers[division.output[0]]) == 1
    if weight is None or not kept or not alone or (exponent, axis) != (2, -1):
        return None
    return _Norm(scaled, weight, epsilon)


def _hidden_states(graph: Any, constants: Mapping[str, Any]) -> set[str]:
    """The tensors [batch, length, …] of a graph, as far as its operators say that they are such.

    They begin as rows of a table by ids, whose own shape is [batch, length].
    """
    inputs = {value.name for value in graph.input if len(value.type.tensor_type.shape.dim) == 2}
    found: set[str] = set()
    fitting: set[str] = {name for name, value in constants.items() if value.ndim <= 1}  # to be added to one such

    def shape_of(node: Any) -> set[str]:
        kind, first = node.op_type, node.input[0]
        if kind == "Gather" and getattr(constants.get(first), "ndim", 0) == 2:
            return found if node.input[1] in inputs else fitting
        if kind == "ReduceMean":
            return fitting if first in found else set()
        if kind == "MatMul":
            return found if first in found and getattr(constants.get(node.input[1]), "ndim", 0) == 2 else set()
        if kind in (_ATTENTION, "LayerNormalization"):
            return found
        if kind in _ELEMENTWISE and all(name in found or name in fitting for name in node.input):
            return found if found.intersection(node.input) else fitting
        return set()

    for node in graph.node:
        if node.input:
            shape_of(node).add(node.output[0])
    return found


class _Product(NamedTuple):
    """A product with a matrix, what is added to it ("": nothing), and the nodes and the output of both."""

    read: str
    matrix: str
    bias: str
    nodes: tuple[Any, ...]
    output: str

    @property
    def like(self) -> tuple[str, bool]:
        """What products that can be packed have in common."""
        return self.read, bool(self.bias)


def pack_projections(model: Any) -> None:
    """Make queries, keys and values one product where an attention reads those of one tensor."""
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    readers, makers = _readers(graph), _makers(graph)
    for attention in [node for node in graph.node if node.op_type == _ATTENTION]:
        names = list(attention.input[:3])
        products = [product for name in names if (product := _product(name, makers, constants)) is not None]
        alone = all(len(readers[name]) == 1 for name in names)
        if alone and len(products) == 3 and len({product.like for product in products}) == 1:
            attention.input[:3] = [_pack(products, graph, constants), "", ""]


def pack_pairs(model: Any) -> None:
    """Make two products of one tensor, as gate and values of a gated MLP are, one that is split.

    What is read is rounded once then, where weights are integers, and threads wait for each other once.
    """
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    makers = _makers(graph)
    found: dict[str, list[_Product]] = {}
    shifted = {name for node in graph.node if node.op_type == "Add" for name in node.input}
    for node in graph.node:
        product = _product(node.output[0], makers, constants) if node.op_type in ("MatMul", "Add") else None
        if product is not None and (product.bias or product.output not in shifted):
            found.setdefault(product.read, []).append(product)
    for products in found.values():
        if len(products) == 2 and len({product.like for product in products}) == 1:
            packed = _pack(products, graph, constants)
            sizes = np.array([constants[product.matrix].dims[1] for product in products])
            graph.initializer.append(numpy_helper.from_array(sizes, f"{packed}_sizes"))
            names = [product.output for product in products]
            split = helper.make_node("Split", [packed, f"{packed}_sizes"], names, name=f"{packed}_split", axis=-1)
            place = next(index for index, node in enumerate(graph.node) if packed in node.output)
            graph.node.insert(place + 1, split)


def _product(name: str, makers: Mapping[str, Any], constants: Mapping[str, Any]) -> _Product | None:
    node, bias, nodes = makers.get(name), "", []
    if node is not None and node.op_type == "Add":
        sides = [each for each in node.input if each in constants]
        others = [each for each in node.input if each not in constants]
        if len(sides) != 1 or len(constants[sides[0]].dims) != 1:
            return None
        nodes, bias, node = [node], sides[0], makers.get(others[0])
    if node is None or node.op_type != "MatMul" or len(getattr(constants.get(node.input[1]), "dims", ())) != 2:
        return None
    return _Product(node.input[0], node.input[1], bias, (node, *nodes), name)


def _pack(products: Sequence[_Product], graph: Any, constants: dict[str, Any]) -> str:
    """Put the packed product in the place of the first of `products`, and return its name."""
    name = f"{products[0].output}_packed"
    matrix = _joined([product.matrix for product in products], graph, constants)
    made = [helper.make_node("MatMul", [products[0].read, matrix], [name], name=name)]
    if products[0].bias:
        bias = _joined([product.bias for product in products], graph, constants)
        made.append(helper.make_node("Add", [name, bias], [f"{name}_shifted"], name=f"{name}_shifted"))
    place = next(index for index, node in enumerate(graph.node) if node.output[0] == products[0].nodes[0].output[0])
    for node in (node for product in products for node in product.nodes):
        graph.node.remove(node)
    for node in reversed(made):
        graph.node.insert(place, node)
    return str(made[-1].output[0])


def _joined(names: Sequence[str], graph: Any, constants: dict[str, Any]) -> str:
    """The name of these constants side by side; layers that share weights share it too."""
    name = f"{'.'.join(names)}_packed"
    if name not in constants:
        values = np.concatenate([numpy_helper.to_array(constants[each]) for each in names], axis=-1)
        constants[name] = numpy_helper.from_array(values, name)
        graph.initializer.append(constants[name])
    return name


def _makers(graph: Any) -> dict[str, Any]:
    return {output: node for node in graph.node for output in node.output}


def _readers(graph: Any) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            found.setdefault(name, []).append(node)
    return found


def _remove_unread(graph: Any) -> None:
    """Leave out nodes and constants that nothing reads."""
    read = {value.name for value in graph.output}
    kept: list[Any] = []
    for node in reversed(graph.node):
        if read.intersection(node.output):
            kept.append(node)
            read.update(node.input)
    constants = [tensor for tensor in graph.initializer if tensor.name in read]
    for field, values in ((graph.node, kept[::-1]), (graph.initializer, constants)):
        del field[:]
        field.extend(values)


def _keeps_in_place(graph: Any) -> bool:
    """Whether each part of the cache goes into an attention and nowhere else, and comes out of it."""
    readers, outputs = _readers(graph), {value.name for value in graph.output}
    pasts = [v.name for v in graph.input if v.name.startswith(_PAST) and _SOURCE not in v.name]
    for name in pasts:
        nodes = readers.get(name, [])
        if len(nodes) != 1 or nodes[0].op_type != _ATTENTION or name not in nodes[0].input[3:5]:
            return False
        present = nodes[0].output[list(nodes[0].input).index(name) - 2]
        if present != _PRESENT + name[len(_PAST) :] or present not in outputs:
            return False
    return bool(pasts)

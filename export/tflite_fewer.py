"""Norms and attention of a TFLite file in fewer operators, and the same numbers but for rounding.

Every operator takes about 3 kB of memory in each signature (ai-edge-litert 2.3), and time where texts are short.
"""

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgekit.export.tflite_edit import add_buffer, add_tensor, make_operator, replace_constant
from edgekit.export.tflite_graph import Graph

_OP = schema.BuiltinOperator


def subtract_means(graph: Graph) -> None:
    """x · r + (0 − r · mean) → (x − mean) · r: norms as converters write them, by two operators less."""
    for addition in graph.of_kind(_OP.ADD):
        first, second = (int(index) for index in addition.inputs)
        found = _parts_of_norm(graph, first, second) or _parts_of_norm(graph, second, first)
        if found is None or _is_fused(addition):
            continue
        x, mean, factor = found
        output = graph.subgraph.tensors[int(addition.outputs[0])]
        centred = add_tensor(graph.subgraph, output.name + b";centred", output.type, [*graph.shape(x)])
        product = make_operator(graph.model, _OP.MUL, [centred, factor], list(addition.outputs))
        graph.replace(addition, make_operator(graph.model, _OP.SUB, [x, mean], [centred]), product)


def _parts_of_norm(graph: Graph, scaled: int, shift: int) -> tuple[int, int, int] | None:
    """x, its mean, and the factor r of a sum of two tensors that is x · r + (0 − r · mean); None for any other sum."""
    product, negated = _made_by(graph, scaled, _OP.MUL), _made_by(graph, shift, _OP.SUB)
    zero = None if negated is None else graph.values(int(negated.inputs[0]))
    if product is None or zero is None or np.any(zero):
        return None
    shifted = _made_by(graph, int(negated.inputs[1]), _OP.MUL)
    if shifted is None:
        return None
    for factor, mean in (list(map(int, shifted.inputs)), list(map(int, shifted.inputs))[::-1]):
        others = [index for index in map(int, product.inputs) if index != factor]
        giver = _made_by(graph, mean, _OP.MEAN)
        if len(others) == 1 and giver is not None and int(giver.inputs[0]) == others[0]:
            return others[0], mean, factor
    return None


def _made_by(graph: Graph, index: int, kind: int) -> Any:
    """The operator of a kind that gives a tensor; None where another does, or it does more."""
    giver = graph.giver(index)
    return giver if giver is not None and graph.kind(giver) == kind and not _is_fused(giver) else None


def _is_fused(operator: Any) -> bool:
    return bool(getattr(operator.builtinOptions, "fusedActivationFunction", False))


def scale_queries(graph: Graph) -> None:
    """Fold the factor of attention scores into the weights of what gives the queries."""
    for scaling in graph.of_kind(_OP.MUL):
        for scores, constant in (list(map(int, scaling.inputs)), list(map(int, scaling.inputs))[::-1]):
            query = _query_of(graph, scores) if graph.is_scalar(constant) else None
            if query is not None and not _is_fused(scaling) and not graph.is_output(int(scaling.outputs[0])):
                _scale(graph, query, graph.values(constant).ravel()[0])
                graph.read_instead(int(scaling.outputs[0]), scores)
                break


def _query_of(graph: Graph, scores: int) -> Any:
    """The product with weights that gives the first of two activations whose product these scores are."""
    index, found = scores, None
    for kind in (_OP.BATCH_MATMUL, _OP.TRANSPOSE, _OP.RESHAPE, _OP.FULLY_CONNECTED):
        found = _made_by(graph, index, kind)
        if found is None or len(graph.readers(index)) > 1 or graph.is_output(index):
            return None
        index = int(found.inputs[0])
    constants = [int(place) for place in list(getattr(found, "inputs", ()))[1:] if place >= 0]
    return found if all(graph.values(place) is not None for place in constants) else None


def _scale(graph: Graph, product: Any, factor: Any) -> None:
    inputs = [int(index) for index in product.inputs]
    for place, index in enumerate(inputs[1:], 1):
        if index >= 0:
            buffer = add_buffer(graph.model, graph.values(index) * factor)
            inputs[place] = replace_constant(graph.subgraph, index, buffer)
    product.inputs = inputs

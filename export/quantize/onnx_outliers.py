"""Outliers of an ONNX file: channels and tokens with large values, balanced so that int8 with one scale fits all.

onnxruntime quantizes what a matrix product reads with one scale for all channels and tokens. So a channel that is far
beyond the others is divided by a factor, which its row of the matrix is multiplied by (SmoothQuant, arXiv:2211.10438);
and where tokens still differ, each is divided by its own largest value, and the product multiplied by that again.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import helper, numpy_helper

from edgekit.export.quantize.balance import has_outliers, input_factors, real_rows, some_steps
from edgekit.export.quantize.evidence import Floats
from edgekit.proof.golden import Step

#: in a model with outliers, what is balanced: a largest channel or token so many times the median one
_UNEVEN, _UNEVEN_TOKENS = 3.0, 2.5
#: of factors; best of 0.5 to 0.8 on all-MiniLM-L6-v2 with scales that are fixed, and that are each text's own
_STRENGTH = {False: 0.7, True: 0.5}
#: added to names of new tensors
_BALANCED, _TOKENS = "_balanced", "_by_token"
_AXIS, _LEAST = "edgekit_last_axis", "edgekit_least"


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """The largest magnitude of each channel, and of each token, of what a product reads."""

    channels: Floats
    tokens: Floats


def balance_outliers(model: Any, steps: Sequence[Step], *, dynamic: bool) -> None:
    """Balance the products of a model in whose channels `steps` show outliers; nothing changes where they show none.

    `dynamic`: each text has a scale of its own, which its tokens share; else one was fixed for all texts. A matrix that
    several products read stays as it is.
    """
    seen = _watch(model, steps)
    if not any(has_outliers(found.channels) for found in seen.values()):
        return
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for name, found in seen.items():
        readers = [node for node in _products(model) if node.input[0] == name]
        matrices = [numpy_helper.to_array(constants[node.input[1]]) for node in readers]
        if has_outliers(found.channels, _UNEVEN):
            factors = input_factors(found.channels, [matrix.T for matrix in matrices], _STRENGTH[dynamic])
            for node, matrix in zip(readers, matrices, strict=True):
                scaled = np.ascontiguousarray(matrix * factors[:, None], np.float32)
                constants[node.input[1]].CopyFrom(numpy_helper.from_array(scaled, node.input[1]))
            _divide_channels(model, name, readers, factors)
    if dynamic:
        uneven = [name for name, found in _watch(model, steps).items() if has_outliers(found.tokens, _UNEVEN_TOKENS)]
        for name in uneven:
            _divide_tokens(model, name, [node for node in _products(model) if node.input[0] == name])


def _products(model: Any) -> list[Any]:
    """Products with a constant matrix that nothing else reads."""
    constants = {tensor.name: len(tensor.dims) for tensor in model.graph.initializer}
    readers = Counter(name for node in model.graph.node for name in node.input)
    return [
        node
        for node in model.graph.node
        if node.op_type == "MatMul"
        and node.input[0] not in constants
        and constants.get(node.input[1]) == 2
        and readers[node.input[1]] == 1
    ]


def _watch(model: Any, steps: Sequence[Step]) -> dict[str, _Seen]:
    """Run the steps with what products read as outputs of the graph."""
    import onnx
    import onnxruntime

    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    names = list(dict.fromkeys(node.input[0] for node in _products(model)))
    known = {value.name for value in watched.graph.output}
    watched.graph.output.extend(
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names if name not in known
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(watched.SerializeToString(), options, providers=["CPUExecutionProvider"])
    channels: dict[str, Floats] = {}
    tokens: dict[str, list[Floats]] = {name: [] for name in names}
    for step in some_steps(steps):
        for name, values in zip(names, session.run(names, dict(step.inputs)), strict=True):
            rows = np.abs(real_rows(values, step))
            channels[name] = np.maximum(rows.max(axis=0), channels.get(name, 0))
            tokens[name].append(rows.max(axis=1))
    return {name: _Seen(channels=channels[name], tokens=np.concatenate(tokens[name])) for name in names if steps}


def _divide_channels(model: Any, name: str, readers: list[Any], factors: Floats) -> None:
    inverse = numpy_helper.from_array((1 / factors).astype(np.float32), f"{name}{_BALANCED}_factors")
    model.graph.initializer.append(inverse)
    output = f"{name}{_BALANCED}"
    _insert_before(model, readers[0], [helper.make_node("Mul", [name, inverse.name], [output], name=output)])
    for node in readers:
        node.input[0] = output


def _divide_tokens(model: Any, name: str, readers: list[Any]) -> None:
    """x @ W as (x / r @ W) · r, r the largest magnitude of each row of x."""
    _add_constants(model)
    size, largest, safe, output = (f"{name}{_TOKENS}{part}" for part in ("_size", "_largest", "_divisor", ""))
    nodes = [
        helper.make_node("Abs", [name], [size], name=size),
        helper.make_node("ReduceMax", [size, _AXIS], [largest], name=largest, keepdims=1),
        helper.make_node("Max", [largest, _LEAST], [safe], name=safe),
        helper.make_node("Div", [name, safe], [output], name=output),
    ]
    _insert_before(model, readers[0], nodes)
    for node in readers:
        given, made = node.output[0], f"{node.output[0]}{_TOKENS}"
        node.input[0], node.output[0] = output, made
        place = list(model.graph.node).index(node) + 1
        model.graph.node.insert(place, helper.make_node("Mul", [made, safe], [given], name=f"{made}_restored"))


def _add_constants(model: Any) -> None:
    if not any(tensor.name == _AXIS for tensor in model.graph.initializer):
        model.graph.initializer.append(numpy_helper.from_array(np.array([-1], np.int64), _AXIS))
        model.graph.initializer.append(numpy_helper.from_array(np.array(1e-6, np.float32), _LEAST))


def _insert_before(model: Any, node: Any, added: list[Any]) -> None:
    place = list(model.graph.node).index(node)
    for offset, each in enumerate(added):
        model.graph.node.insert(place + offset, each)

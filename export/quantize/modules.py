"""Which module of the source model a constant or operator of an exported file belongs to.

Converters rename, transpose, scale and merge, each in its own way. Weights are recognised by their values, which no
converter changes; operators without weights by what flows into them. So one way serves every target and route.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.export.quantize.evidence import Floats, is_matrix
from edgekit.model.config import TransformerConfig
from edgekit.model.weights import Weights, parameter_shapes

#: products of two activations inside attention, by what flows into them
SCORES, HEADS = "attention.scores", "attention.heads"
_PROJECTIONS = ("attention.query", "attention.key", "attention.value")
#: the module that normalises the input of each of these
_NORM_BEFORE = {**dict.fromkeys(_PROJECTIONS, "attention_norm"), "ffn.up": "ffn_norm", "classifier": "final_norm"}
#: operators that only move numbers: what they give is still their input
_MOVES = frozenset(["RESHAPE", "TRANSPOSE", "CAST", "EXPAND_DIMS", "SQUEEZE", "UNSQUEEZE"])
_PRODUCTS = frozenset({"BATCH_MATMUL", "MATMUL"})
#: modules whose output is added to the residual stream
_INTO_STREAM = ("attention.output", "ffn.down")
_STREAM, _NORM = "(stream)", "(norm)"  # between blocks; between the stream and the next weight


@dataclass(frozen=True, kw_only=True)
class Node:
    """One operator: its name in the file, its kind in capitals, and the names of what it reads and gives."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    constants: tuple[str, ...]
    outputs: tuple[str, ...]


def source_modules(config: TransformerConfig) -> tuple[str, ...]:
    """Every module that a scheme can be given to, in the order of the computation.

    Named as in the model; `attention.scores` and `attention.heads` are the two products of activations in attention
    (with the softmax between them).
    """
    modules: list[str] = []
    for name in parameter_shapes(config):
        module = name.rsplit(".", 1)[0]
        if module not in modules:
            modules.append(module)
        if module.endswith("attention.value") and name.endswith("bias"):
            block = module.removesuffix("attention.value")
            modules += [block + SCORES, block + HEADS]
    return tuple(modules)


def match_weights(weights: Weights, constants: Mapping[str, Floats]) -> dict[str, str]:
    """The module of each matrix among a file's float constants: one that holds its weight.

    Equal up to a transposition, a factor for each input (the scale of attention or the weights of a norm, folded into a
    projection), axes of length 1, rows that a shorter sequence does not need, and the column of zeros that makes the
    width of an int4 table even.
    """
    matrices = {name.rsplit(".", 1)[0]: value for name, value in weights.items() if is_matrix(value.shape)}
    found = {}
    for name, constant in constants.items():
        if is_matrix(constant.shape):
            flat = np.squeeze(constant)
            module = next((m for m, weight in matrices.items() if _same(flat, np.squeeze(weight))), None)
            if module:
                found[name] = module
    return found


def _same(constant: NDArray[np.float32], weight: NDArray[np.float32]) -> bool:
    return any(_is_scaled(c, weight) for c in (constant, constant.T))


def _is_scaled(constant: NDArray[np.float32], weight: NDArray[np.float32]) -> bool:
    """Whether a constant is the weight [out, in], or its first rows, with a factor for each input."""
    if constant.shape[1] == weight.shape[1] + 1 and not np.any(constant[:, -1]):
        constant = constant[:, :-1]
    if constant.shape[1] != weight.shape[1] or len(constant) > len(weight):
        return False
    rows = weight[: len(constant)].astype(np.float64)
    if len(constant) < len(weight):
        return bool(np.array_equal(constant, rows))
    factors = np.sum(constant * rows, axis=0) / np.maximum(np.sum(rows * rows, axis=0), 1e-30)
    return bool(np.allclose(constant, rows * factors, rtol=1e-4, atol=1e-5 * float(np.max(np.abs(constant)))))


def assign_nodes(nodes: Sequence[Node], owners: Mapping[str, str]) -> dict[str, str]:
    """The module of each operator, by its name; those of none (the mask, residual additions) are left out.

    `owners` are the modules of constants, as `match_weights` gives them; `nodes` are in the order of computation.
    """
    of_tensor: dict[str, str] = {}
    found: dict[str, str] = {}
    for node in nodes:
        owner = _owner(node, owners, of_tensor)
        if owner:
            of_tensor.update(dict.fromkeys(node.outputs, owner))
            found[node.name] = owner
    norms = {output: node for node in nodes if found.get(node.name) == _NORM for output in node.outputs}
    for node in nodes:
        if any(constant in owners for constant in node.constants):
            _claim_norm(node, found[node.name], norms, found)
    return {name: owner for name, owner in found.items() if owner not in (_STREAM, _NORM)}


def _owner(node: Node, owners: Mapping[str, str], of_tensor: Mapping[str, str]) -> str | None:
    weight = next((owners[name] for name in node.constants if name in owners), None)
    if weight:
        return weight
    given = [of_tensor[name] for name in node.inputs if name in of_tensor]
    if not given:
        return None
    if not node.constants and len(node.inputs) == 2:
        if node.kind in _PRODUCTS:
            return _product(given)
        if node.kind == "ADD" and len(given) == 2 and any(g.endswith(_INTO_STREAM) for g in given):
            return _STREAM
    first = given[0]
    if _NORM in given:
        return _NORM
    if (first == _STREAM or first.startswith("embed.")) and node.kind not in _MOVES:
        return first if node.kind == "ADD" and node.constants else _NORM
    return first


def _product(given: Sequence[str]) -> str:
    """The product of two activations: scores of queries and keys, or heads of scores and values."""
    for owner in given:
        for projection in ("attention.query", "attention.key"):
            if owner.endswith(projection):
                return owner.removesuffix(projection) + SCORES
    block = next((owner.removesuffix(SCORES) for owner in given if owner.endswith(SCORES)), None)
    return given[0] if block is None else block + HEADS


def _claim_norm(node: Node, module: str, norms: Mapping[str, Node], found: dict[str, str]) -> None:
    """Give the operators between the stream and a weight to the norm that stands before that weight."""
    suffix = next((suffix for suffix in _NORM_BEFORE if module.endswith(suffix)), None)
    if suffix is None:
        return
    name = module.removesuffix(suffix) + _NORM_BEFORE[suffix]
    waiting = list(node.inputs)
    while waiting:
        before = norms.get(waiting.pop())
        if before and found[before.name] == _NORM:
            found[before.name] = name
            waiting += before.inputs

"""A head that scores tokens by the token table, in the form that quantizers of ONNX know: a matrix of its own."""

from typing import Any

import numpy as np
from onnx import TensorProto, numpy_helper

_HEAD = "_head"


def untie_heads(model: Any) -> None:
    """Give each product with a transposed float32 constant that constant as it reads it.

    onnxruntime 1.31's quantizers pass over products with what another node gives. The table would be stored in
    integers, for its rows are looked up, and unpacked whole for the product in every run: of a model of 15 M parameters
    whose table has 3 M, that took more time than all other products.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer if _is_matrix(tensor)}
    turned = {node.output[0]: node.input[0] for node in model.graph.node if _turns(node, constants)}
    heads = {}
    for node in model.graph.node:
        if node.op_type == "MatMul" and (table := turned.get(node.input[1])):
            heads[table] = node.input[1] = f"{table}{_HEAD}"
    for table, head in heads.items():
        values = np.ascontiguousarray(numpy_helper.to_array(constants[table]).T)
        model.graph.initializer.append(numpy_helper.from_array(values, head))
    read = {name for node in model.graph.node for name in node.input} | {each.name for each in model.graph.output}
    for node in [node for node in model.graph.node if node.output[0] in turned and node.output[0] not in read]:
        model.graph.node.remove(node)


def _is_matrix(tensor: Any) -> bool:
    return tensor.data_type == TensorProto.FLOAT and len(tensor.dims) == 2


def _turns(node: Any, constants: dict[str, Any]) -> bool:
    """Whether a node swaps the two axes of one of the constants."""
    return node.op_type == "Transpose" and node.input[0] in constants

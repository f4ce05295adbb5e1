"""The operators of an exported file in the order of computation, whatever its format."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgekit.export.quantize.modules import Node


def tflite_nodes(path: Path) -> list[Node]:
    """The operators of a TFLite file; a node is named by its first output, as ai-edge-quantizer's scopes begin."""
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model(str(path))
    kinds = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}

    def walk() -> Iterator[Node]:
        for subgraph in model.subgraphs:
            for operator in subgraph.operators:
                code = model.operatorCodes[operator.opcodeIndex]
                inputs = [subgraph.tensors[index] for index in operator.inputs if index >= 0]
                outputs = tuple(subgraph.tensors[index].name.decode() for index in operator.outputs)
                yield _node(
                    outputs[0],
                    kinds[max(code.builtinCode, code.deprecatedBuiltinCode)],
                    [(t.name.decode(), model.buffers[t.buffer].data is not None) for t in inputs],
                    outputs,
                )

    return list(walk())


def onnx_nodes(model: Any) -> list[Node]:
    """The operators of a loaded ONNX model, by their own names."""
    constants = {tensor.name for tensor in model.graph.initializer}
    return [
        _node(node.name, node.op_type.upper(), [(name, name in constants) for name in node.input], tuple(node.output))
        for node in model.graph.node
    ]


def _node(name: str, kind: str, inputs: list[tuple[str, bool]], outputs: tuple[str, ...]) -> Node:
    return Node(
        name=name,
        kind=kind,
        inputs=tuple(given for given, constant in inputs if not constant),
        constants=tuple(given for given, constant in inputs if constant),
        outputs=outputs,
    )

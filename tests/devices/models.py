"""Files that divide ids by mask, [1, 4] each, made by hand for each runtime: 0/0 gives NaN."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

SHAPE = (1, 4)


def write_tflite(path: Path, shapes: Mapping[str, tuple[int, int]] | None = None) -> Path:
    """A file with one signature, or with one for each of these shapes, each on a subgraph of its own."""
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    def opcode(code: int) -> schema.OperatorCodeT:
        made = schema.OperatorCodeT()
        made.builtinCode = made.deprecatedBuiltinCode = code
        made.version = 1
        return made

    shapes = shapes or {"serving_default": SHAPE}
    model = schema.ModelT()
    model.version, model.buffers = 3, [schema.BufferT()]
    model.subgraphs = [_division(shape) for shape in shapes.values()]
    model.signatureDefs = [_signature(name, place) for place, name in enumerate(shapes)]
    model.operatorCodes = [opcode(schema.BuiltinOperator.CAST), opcode(schema.BuiltinOperator.DIV)]
    path.write_bytes(flatbuffer_utils.convert_object_to_bytearray(model))
    return path


def _division(shape: tuple[int, int]) -> object:
    from ai_edge_litert import schema_py_generated as schema

    def tensor(name: str, kind: int) -> schema.TensorT:
        made = schema.TensorT()
        made.name, made.type, made.shape, made.buffer = name.encode(), kind, list(shape), 0
        return made

    def operator(code: int, inputs: list[int], output: int, options: object, kind: int) -> schema.OperatorT:
        made = schema.OperatorT()
        made.opcodeIndex, made.inputs, made.outputs = code, inputs, [output]
        made.builtinOptions, made.builtinOptionsType = options, kind
        return made

    integer, real = schema.TensorType.INT32, schema.TensorType.FLOAT32
    graph = schema.SubGraphT()
    kinds = [("ids", integer), ("mask", integer), ("a", real), ("b", real), ("logits", real)]
    graph.tensors = [tensor(name, kind) for name, kind in kinds]
    graph.inputs, graph.outputs = [0, 1], [4]
    graph.operators = [
        operator(0, [0], 2, schema.CastOptionsT(), schema.BuiltinOptions.CastOptions),
        operator(0, [1], 3, schema.CastOptionsT(), schema.BuiltinOptions.CastOptions),
        operator(1, [2, 3], 4, schema.DivOptionsT(), schema.BuiltinOptions.DivOptions),
    ]
    return graph


def _signature(name: str, subgraph: int) -> object:
    from ai_edge_litert import schema_py_generated as schema

    def port(named: str, index: int) -> schema.TensorMapT:
        made = schema.TensorMapT()
        made.name, made.tensorIndex = named.encode(), index
        return made

    entry = schema.SignatureDefT()
    entry.signatureKey, entry.subgraphIndex = name.encode(), subgraph
    entry.inputs, entry.outputs = [port("ids", 0), port("mask", 1)], [port("logits", 4)]
    return entry


def write_onnx(path: Path) -> Path:
    """Takes int64, as most ONNX files of text models do."""
    import onnx
    from onnx import TensorProto, helper

    nodes = [helper.make_node("Cast", [name], [f"{name}_f"], to=TensorProto.FLOAT) for name in ("ids", "mask")]
    nodes.append(helper.make_node("Div", ["ids_f", "mask_f"], ["logits"]))
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, SHAPE) for name in ("ids", "mask")]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, SHAPE)]
    graph = helper.make_graph(nodes, "divide", inputs, outputs)
    opset = helper.make_opsetid("", 18)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=9), path)
    return path


def write_pt2(path: Path) -> Path:
    import torch

    class Divide(torch.nn.Module):
        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"logits": ids.float() / mask.float()}

    inputs = {name: torch.ones(SHAPE, dtype=torch.int32) for name in ("ids", "mask")}
    torch.export.save(torch.export.export(Divide(), (), kwargs=inputs), path)
    return path


def write_savedmodel(path: Path) -> Path:
    import tensorflow as tf

    specs = [tf.TensorSpec(SHAPE, tf.int32, name=name) for name in ("ids", "mask")]
    module = tf.Module()
    module.divide = tf.function(
        lambda ids, mask: {"logits": tf.cast(ids, tf.float32) / tf.cast(mask, tf.float32)}, input_signature=specs
    )
    tf.saved_model.save(module, str(path), signatures={"serving_default": module.divide})
    return path


def write_steps(path: Path, *steps: dict[str, np.ndarray]) -> Path:
    arrays = {f"{i:05d}/serving_default/in/{name}": v for i, step in enumerate(steps) for name, v in step.items()}
    with path.open("wb") as stream:
        np.savez(stream, **arrays)
    return path


def integers(*values: int, dtype: type = np.int32) -> np.ndarray:
    return np.array([values], dtype=dtype)

"""TFLite files of a few operators, written by hand: what rules are for stands in them and nothing else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils

_TYPES = {"float32": "FLOAT32", "int32": "INT32", "int64": "INT64", "int8": "INT8", "bool": "BOOL"}


@dataclass(frozen=True, kw_only=True)
class Op:
    """An operator by its name in the schema, and the names of its tensors."""

    kind: str
    inputs: Sequence[str]
    outputs: Sequence[str]


def write_tflite(
    path: Path,
    tensors: Mapping[str, tuple[str, tuple[int, ...]]],
    ops: Sequence[Op],
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    constants: Mapping[str, Any] | None = None,
) -> Path:
    """A file of one signature; a size of -1 is not fixed."""
    model = schema.ModelT()
    model.version, model.buffers = 3, [schema.BufferT()]
    graph = schema.SubGraphT()
    places = {name: place for place, name in enumerate(tensors)}
    graph.tensors = []
    for name, (dtype, shape) in tensors.items():
        made = schema.TensorT()
        made.name, made.type, made.buffer = name.encode(), getattr(schema.TensorType, _TYPES[dtype]), 0
        made.shape = [max(1, size) for size in shape]
        made.shapeSignature = list(shape) if min(shape, default=0) < 0 else None
        if constants and name in constants:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.asarray(constants[name], dtype).tobytes(), np.uint8)
            made.buffer = len(model.buffers)
            model.buffers.append(buffer)
        graph.tensors.append(made)
    kinds = list(dict.fromkeys(op.kind for op in ops))
    model.operatorCodes = [_opcode(getattr(schema.BuiltinOperator, kind)) for kind in kinds]
    graph.operators = [_operator(op, kinds, places) for op in ops]
    graph.inputs, graph.outputs = [places[name] for name in inputs], [places[name] for name in outputs]
    model.subgraphs, model.signatureDefs = [graph], [_signature(places, inputs, outputs)]
    path.write_bytes(flatbuffer_utils.convert_object_to_bytearray(model))
    return path


def _opcode(code: int) -> Any:
    made = schema.OperatorCodeT()
    made.builtinCode, made.deprecatedBuiltinCode, made.version = code, min(code, 127), 1
    return made


def _operator(op: Op, kinds: list[str], places: Mapping[str, int]) -> Any:
    made = schema.OperatorT()
    made.opcodeIndex = kinds.index(op.kind)
    made.inputs, made.outputs = [places[name] for name in op.inputs], [places[name] for name in op.outputs]
    return made


def _signature(places: Mapping[str, int], inputs: Sequence[str], outputs: Sequence[str]) -> Any:
    def entry(name: str) -> Any:
        made = schema.TensorMapT()
        made.name, made.tensorIndex = name.encode(), places[name]
        return made

    made = schema.SignatureDefT()
    made.signatureKey, made.subgraphIndex = b"serving_default", 0
    made.inputs, made.outputs = [entry(name) for name in inputs], [entry(name) for name in outputs]
    return made

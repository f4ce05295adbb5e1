"""The operators of a TFLite or ONNX file with the types and shapes of what they take and give, for rules to look at."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.errors import BundleError, RefusedError
from edgekit.export.describe_tflite import describe_tflite
from edgekit.extras import require


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """A value: dtype as numpy names it, shape with None for what is not fixed; `largest` magnitude of a constant."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]
    constant: bool = False
    largest: float | None = None


@dataclass(frozen=True, kw_only=True)
class Node:
    """An operator: the format's own name of its kind."""

    kind: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    @property
    def output(self) -> str:
        """The name of its first output."""
        return self.outputs[0].name if self.outputs else ""


def read_graph(path: Path) -> list[Node]:
    """All operators of a file, in order.

    Raises BundleError for a file that can't be read, RefusedError for another format.
    """
    if path.suffix == ".tflite":
        describe_tflite(path)  # says what is wrong with a broken one
        return list(_tflite(path))
    if path.suffix == ".onnx":
        return list(_onnx(path))
    raise RefusedError(f"{path} is neither a .tflite nor an .onnx file")


def _tflite(path: Path) -> Iterator[Node]:
    from ai_edge_litert import schema_py_generated as schema

    content = path.read_bytes()
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    kinds = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    types = {value: name.lower() for name, value in vars(schema.TensorType).items() if isinstance(value, int)}
    for graph in model.subgraphs:
        known = [_tflite_tensor(tensor, model.buffers, types) for tensor in graph.tensors]
        for operator in graph.operators or []:
            code = model.operatorCodes[operator.opcodeIndex]
            name = kinds.get(max(code.builtinCode, code.deprecatedBuiltinCode), "")
            yield Node(
                kind=code.customCode.decode() if code.customCode else name,
                inputs=tuple(known[i] for i in operator.inputs if i >= 0),
                outputs=tuple(known[i] for i in operator.outputs if i >= 0),
            )


def _tflite_tensor(tensor: Any, buffers: Sequence[Any], types: dict[int, str]) -> Tensor:
    signed = tensor.shapeSignature if tensor.shapeSignature is not None else tensor.shape
    sizes = tensor.shape if signed is None or not len(signed) else signed
    data, dtype = buffers[tensor.buffer].data, types[tensor.type]
    constant = (data is not None and len(data) > 0) or buffers[tensor.buffer].offset > 1
    values = np.frombuffer(bytes(data), dtype) if constant and data is not None and dtype.startswith("float") else None
    return Tensor(
        name=tensor.name.decode(errors="replace"),
        dtype=dtype,
        shape=tuple(None if size < 0 else int(size) for size in (sizes if sizes is not None else ())),
        constant=constant,
        largest=_largest(values),
    )


def _onnx(path: Path) -> Iterator[Node]:
    model = load_onnx(path)
    onnx = require("onnx", f"reading {path.name}")
    known: dict[str, Tensor] = {}
    for value in (*model.graph.input, *model.graph.value_info, *model.graph.output):
        tensor = value.type.tensor_type
        shape = tuple(d.dim_value if d.WhichOneof("value") == "dim_value" else None for d in tensor.shape.dim)
        known[value.name] = Tensor(name=value.name, dtype=_dtype(onnx, tensor.elem_type), shape=shape)
    for constant in model.graph.initializer:
        known[constant.name] = _onnx_constant(onnx, constant)
    for node in model.graph.node:
        if node.op_type == "Constant":
            held = next((each.t for each in node.attribute if each.name == "value"), None)
            if held is not None:
                known[node.output[0]] = _onnx_constant(onnx, held, node.output[0])
            continue
        unknown = {name: Tensor(name=name, dtype="unknown", shape=()) for name in (*node.input, *node.output) if name}
        every = unknown | known
        yield Node(
            kind=node.op_type,
            inputs=tuple(every[name] for name in node.input if name),
            outputs=tuple(every[name] for name in node.output if name),
        )


def load_onnx(path: Path) -> Any:
    """An ONNX model with the shapes that onnx itself infers; raises BundleError where it can't be read."""
    onnx = require("onnx", f"reading {path.name}")
    from google.protobuf.message import DecodeError

    try:
        return onnx.shape_inference.infer_shapes(onnx.load(path, load_external_data=False))
    except (OSError, DecodeError, ValueError, onnx.shape_inference.InferenceError) as error:
        raise BundleError(f"{path} can't be read as an ONNX file: {error}") from error


def _onnx_constant(onnx: Any, tensor: Any, name: str = "") -> Tensor:
    dtype = _dtype(onnx, tensor.data_type)
    values = onnx.numpy_helper.to_array(tensor) if dtype in ("float16", "float32", "float64") else None
    shape = tuple(int(size) for size in tensor.dims)
    return Tensor(name=name or tensor.name, dtype=dtype, shape=shape, constant=True, largest=_largest(values))


def _dtype(onnx: Any, code: int) -> str:
    name: str = onnx.TensorProto.DataType.Name(code)
    return {"FLOAT": "float32", "DOUBLE": "float64"}.get(name, name.lower())


def _largest(values: Any) -> float | None:
    return None if values is None or values.size == 0 else float(np.max(np.abs(values)))

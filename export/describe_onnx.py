"""Reads an ONNX file without running it; weights in other files are refused."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgekit.errors import BundleError
from edgekit.export.describe import (
    FileDescription,
    PortDescription,
    SignatureDescription,
    TensorDescription,
    summarize,
)
from edgekit.extras import require

SIGNATURE = "serving_default"  # ONNX graphs have no name for their entry: the one that edgekit gives everywhere


def describe_onnx(path: Path) -> FileDescription:
    """Describe an .onnx file, or a folder of them; its version is that of the default operator set.

    Raises BundleError where it is truncated, corrupt, or keeps weights elsewhere, MissingExtraError without onnx.
    """
    onnx = require("onnx", f"reading {path.name}")
    if path.is_dir():
        return _describe_folder(onnx, path)
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(path, load_external_data=False)
    except OSError as error:
        raise BundleError(f"can't read {path}: {error.strerror}") from error
    except (DecodeError, ValueError) as error:
        raise BundleError(f"{path} is truncated or not an ONNX file") from error
    if not model.graph.node or not model.graph.output:
        raise BundleError(f"{path} is not an ONNX model: it holds no graph")
    try:
        return summarize(
            path=path,
            format_name="onnx",
            version=f"opset {_opset(model)}",
            signatures=[_signature(onnx, model.graph)],
            operators=[node.op_type for node in model.graph.node],
            tensors=list(_constants(onnx, model.graph)),
        )
    except (BundleError, ValueError, TypeError, KeyError) as error:
        raise BundleError(f"{path} is broken: {error}") from error


def _describe_folder(onnx: Any, folder: Path) -> FileDescription:
    """All graphs of a folder; weights that they share are counted once."""
    from edgekit.export.onnx_folder import FILES, read_folder

    models = read_folder(folder)
    found = {name: models[file] for name, file in FILES.items() if file in models}
    if not found:
        raise BundleError(f"{folder} holds no ONNX file that edgekit knows: {', '.join(FILES.values())}")
    tensors: dict[tuple[str, tuple[int, ...], int], TensorDescription] = {}
    for model in found.values():
        for tensor, kept in zip(_constants(onnx, model.graph), _contents(onnx, model.graph), strict=True):
            tensors.setdefault((tensor.dtype, tensor.shape, hash(kept)), tensor)
    return summarize(
        path=folder,
        format_name="onnx",
        version=f"opset {_opset(next(iter(found.values())))}",
        signatures=[_signature(onnx, model.graph, name) for name, model in found.items()],
        operators=[node.op_type for model in found.values() for node in model.graph.node],
        tensors=list(tensors.values()),
    )


def _contents(onnx: Any, graph: Any) -> Iterator[bytes]:
    """The values of each constant, as `_constants` goes through them."""
    for tensor in _tensors(graph):
        yield onnx.numpy_helper.to_array(tensor[0]).tobytes()


def _opset(model: Any) -> int:
    return next((int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)


def _signature(onnx: Any, graph: Any, name: str = SIGNATURE) -> SignatureDescription:
    stored = {tensor.name for tensor in graph.initializer}
    return SignatureDescription(
        name=name,
        inputs=tuple(_port(onnx, value) for value in graph.input if value.name not in stored),
        outputs=tuple(_port(onnx, value) for value in graph.output),
    )


def _port(onnx: Any, value: Any) -> PortDescription:
    tensor = value.type.tensor_type
    shape = tuple(d.dim_param if d.WhichOneof("value") == "dim_param" else d.dim_value for d in tensor.shape.dim)
    return PortDescription(name=value.name, dtype=_dtype(onnx, tensor.elem_type), shape=shape)


def _constants(onnx: Any, graph: Any) -> Iterator[TensorDescription]:
    for tensor, name in _tensors(graph):
        yield _constant(onnx, tensor, name)


def _tensors(graph: Any) -> Iterator[tuple[Any, str]]:
    for tensor in graph.initializer:
        yield tensor, tensor.name
    for node in graph.node:
        for attribute in node.attribute if node.op_type == "Constant" else ():
            if attribute.name == "value":
                yield attribute.t, node.output[0]


def _constant(onnx: Any, tensor: Any, name: str) -> TensorDescription:
    if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
        raise BundleError(
            f"it keeps the weight {name!r} in another file; edgekit takes one file with its weights inside"
        )
    shape, dtype = tuple(tensor.dims), _dtype(onnx, tensor.data_type)
    bits = _bits(onnx, tensor.data_type)
    expected = math.ceil(math.prod(shape) * bits / 8)
    if tensor.raw_data and len(tensor.raw_data) != expected:
        raise BundleError(
            f"the weight {name!r} has {len(tensor.raw_data)} bytes, {dtype} {list(shape)} needs {expected}"
        )
    return TensorDescription(name=name, dtype=dtype, shape=shape, bytes=expected)


def _dtype(onnx: Any, code: int) -> str:
    name: str = onnx.TensorProto.DataType.Name(code)
    return {"FLOAT": "float32", "DOUBLE": "float64"}.get(name, name.lower())


def _bits(onnx: Any, code: int) -> int:
    name = onnx.TensorProto.DataType.Name(code)
    if name in ("INT4", "UINT4", "FLOAT4E2M1"):
        return 4
    if name in ("INT2", "UINT2"):
        return 2
    return int(onnx.helper.tensor_dtype_to_np_dtype(code).itemsize) * 8

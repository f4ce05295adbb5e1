"""Reads a TFLite file by its schema, without TensorFlow and without running it."""

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

_IDENTIFIER = b"TFL3"
#: bits of one element, by the schema's name
_BITS = {
    "FLOAT64": 64, "INT64": 64, "UINT64": 64, "COMPLEX64": 64, "COMPLEX128": 128,
    "FLOAT32": 32, "INT32": 32, "UINT32": 32,
    "FLOAT16": 16, "BFLOAT16": 16, "INT16": 16, "UINT16": 16,
    "INT8": 8, "UINT8": 8, "BOOL": 8, "FLOAT8_E4M3FN": 8, "FLOAT8_E5M2": 8,
    "INT4": 4, "UINT4": 4, "INT2": 2,
}  # fmt: skip


def describe_tflite(path: Path) -> FileDescription:
    """Describe a .tflite file; its version is that of the schema.

    Raises BundleError where it is truncated, corrupt or something else, MissingExtraError without ai-edge-litert.
    """
    require("ai_edge_litert", f"reading {path.name}")
    from ai_edge_litert import schema_py_generated as schema

    content = _read(path)
    try:
        model = schema.ModelT.InitFromPackedBuf(content, 0)
        reader = _Reader(schema, model, content)
        return summarize(
            path=path,
            format_name="tflite",
            version=str(model.version),
            signatures=list(reader.signatures()),
            operators=list(reader.operators()),
            tensors=list(reader.constants()),
        )
    except BundleError as error:
        raise BundleError(f"{path} is broken: {error}") from error
    except Exception as error:
        raise BundleError(f"{path} is truncated or broken: its tables lead outside the file") from error


def _read(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BundleError(f"can't read {path}: {error.strerror}") from error
    if content[4:8] != _IDENTIFIER:
        raise BundleError(f"{path} is not a TFLite file: it does not begin as one")
    return content


class _Reader:
    """Walks an unpacked model; subgraphs' names are the signatures', where there are any."""

    def __init__(self, schema: Any, model: Any, content: bytes) -> None:
        self.model, self.content = model, content
        self.type_names = _names(schema.TensorType)
        self.operator_names = _names(schema.BuiltinOperator)

    def signatures(self) -> Iterator[SignatureDescription]:
        for definition in self.model.signatureDefs or []:
            tensors = self.model.subgraphs[definition.subgraphIndex].tensors
            yield SignatureDescription(
                name=definition.signatureKey.decode(),
                inputs=tuple(self._port(tensors, entry) for entry in definition.inputs or []),
                outputs=tuple(self._port(tensors, entry) for entry in definition.outputs or []),
            )

    def operators(self) -> Iterator[str]:
        for subgraph in self.model.subgraphs:
            for operator in subgraph.operators or []:
                code = self.model.operatorCodes[operator.opcodeIndex]
                if code.customCode:
                    yield code.customCode.decode()
                else:
                    yield self.operator_names[max(code.builtinCode, code.deprecatedBuiltinCode)]

    def constants(self) -> Iterator[TensorDescription]:
        seen: set[int] = set()
        for subgraph in self.model.subgraphs:
            for tensor in subgraph.tensors:
                size = self._stored_bytes(tensor.buffer)
                if size and tensor.buffer not in seen:
                    seen.add(tensor.buffer)
                    yield self._constant(tensor, size)

    def _port(self, tensors: Any, entry: Any) -> PortDescription:
        tensor = tensors[entry.tensorIndex]
        signed = tensor.shapeSignature if _length(tensor.shapeSignature) else tensor.shape
        return PortDescription(
            name=entry.name.decode(), dtype=self.type_names[tensor.type].lower(), shape=_shape(signed)
        )

    def _stored_bytes(self, index: int) -> int:
        buffer = self.model.buffers[index]
        if buffer.offset > 1:  # weights behind the flatbuffer, as files beyond 2 GB have them
            if buffer.offset + buffer.size > len(self.content):
                raise BundleError("its weights end beyond the end of the file")
            return int(buffer.size)
        return _length(buffer.data)

    def _constant(self, tensor: Any, size: int) -> TensorDescription:
        name, dtype, shape = tensor.name.decode(errors="replace"), self.type_names[tensor.type], _shape(tensor.shape)
        if dtype in _BITS:
            expected = math.ceil(math.prod(shape) * _BITS[dtype] / 8)
            if size != expected and not tensor.sparsity:
                raise BundleError(f"the tensor {name!r} has {size} bytes, {dtype} {list(shape)} needs {expected}")
        return TensorDescription(name=name, dtype=dtype.lower(), shape=shape, bytes=size)


def _names(enumeration: Any) -> dict[int, str]:
    return {value: name for name, value in vars(enumeration).items() if isinstance(value, int)}


def _length(values: Any) -> int:
    return 0 if values is None else len(values)


def _shape(values: Any) -> tuple[int, ...]:
    return () if values is None else tuple(int(value) for value in values)

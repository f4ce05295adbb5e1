"""Reads a Core ML package: what can be checked without macOS, which is everything but the numbers.

The specification is read again, and each weight is looked up in the blob file: its header must be there and agree in
type and size with what the program declares (edgekit.mil.blobs).
"""

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
from edgekit.mil.blobs import BlobFiles
from edgekit.mil.failures import MilError
from edgekit.mil.package import package_paths

SIGNATURE = "serving_default"  # a package of one function has no name for it: the one that edgekit gives everywhere
SPEC = Path("Data", "com.apple.CoreML", "model.mlmodel")


def describe_mlpackage(path: Path) -> FileDescription:
    """Describe an .mlpackage folder that holds an ML program, or a folder of them; its version is the specification's.

    Raises BundleError where a file is missing, truncated or disagrees with the others, MissingExtraError without
    coremltools.
    """
    packages = package_paths(path)
    specs = {name: read_specification(package) for name, package in packages.items()}
    proto = require("coremltools", f"reading {path.name}").proto
    operations = {name: list(_all_of(spec)) for name, spec in specs.items()}
    try:
        return summarize(
            path=path,
            format_name="coreml",
            version=_version(next(iter(specs.values()))),
            signatures=[
                _signature(proto, name, each)
                for only, spec in specs.items()
                for name, each in _described(spec.description, only or SIGNATURE)
            ],
            operators=[each.type for own in operations.values() for each in own if each.type != "const"],
            tensors=[
                tensor
                for name, package in packages.items()
                for tensor in _Weights(package, proto.MIL_pb2).constants(operations[name])
            ],
        )
    except (BundleError, MilError, KeyError, ValueError) as error:
        raise BundleError(f"{path} is broken: {error}") from error


def _version(spec: Any) -> str:
    return f"{spec.specificationVersion} ({spec.mlProgram.functions[min(spec.mlProgram.functions)].opset})"


def _all_of(spec: Any) -> Iterator[Any]:
    for _, function in sorted(spec.mlProgram.functions.items()):
        yield from all_operations(function)


def read_specification(path: Path) -> Any:
    """The specification of an .mlpackage that holds an ML program, as coremltools' protobuf message.

    Raises BundleError where it is missing, truncated or of another kind, MissingExtraError without coremltools.
    """
    try:
        content = (path / SPEC).read_bytes()
    except OSError as error:
        raise BundleError(f"can't read {path / SPEC}: {error.strerror}") from error
    proto = require("coremltools", f"reading {path.name}").proto.Model_pb2
    from google.protobuf.message import DecodeError

    try:
        spec = proto.Model.FromString(content)
    except DecodeError as error:
        raise BundleError(f"{path / SPEC} is truncated or not a Core ML specification") from error
    if spec.WhichOneof("Type") != "mlProgram" or not spec.mlProgram.functions:
        raise BundleError(f"{path} holds no ML program")
    return spec


def all_operations(function: Any) -> Iterator[Any]:
    """The operations of a function of a specification, those inside branches and loops included."""
    yield from _operations(function.block_specializations[function.opset])


def _operations(block: Any) -> Iterator[Any]:
    for operation in block.operations:
        yield operation
        for inner in operation.blocks:
            yield from _operations(inner)


def _described(description: Any, only: str) -> Iterator[tuple[str, Any]]:
    """Name and description of each function, the default one first; a package of one describes itself, as `only`."""
    if not description.functions:
        yield only, description
    default = description.defaultFunctionName
    for function in sorted(description.functions, key=lambda each: each.name != default):
        yield function.name, function


def _signature(proto: Any, name: str, description: Any) -> SignatureDescription:
    names = proto.FeatureTypes_pb2.ArrayFeatureType.ArrayDataType.Name

    def port(feature: Any) -> PortDescription:
        array = feature.type.multiArrayType
        return PortDescription(
            name=feature.name,
            dtype=names(array.dataType).lower(),
            shape=tuple(array.shape),
            enumerated=tuple(sorted(tuple(each.shape) for each in array.enumeratedShapes.shapes)),
        )

    return SignatureDescription(
        name=name,
        inputs=tuple(port(feature) for feature in description.input),
        outputs=tuple(port(feature) for feature in description.output),
    )


class _Weights:
    """The constants of a program that live in blob files inside the package."""

    def __init__(self, package: Path, mil: Any) -> None:
        self.blobs = BlobFiles((package / SPEC).parent)
        self.type_name = mil.DataType.Name

    def constants(self, operations: list[Any]) -> Iterator[TensorDescription]:
        """Each constant once, checked against its blob."""
        seen: set[tuple[str, int]] = set()
        for operation in operations:
            # Compressed weights of iOS 18 are arguments of their constexpr operation; all others are attributes.
            arguments = [a.value for given in operation.inputs.values() for a in given.arguments if a.HasField("value")]
            for value in (*operation.attributes.values(), *arguments):
                blob = value.blobFileValue
                if value.WhichOneof("value") != "blobFileValue" or (blob.fileName, blob.offset) in seen:
                    continue
                seen.add((blob.fileName, blob.offset))
                name = operation.outputs[0].name if operation.outputs else operation.type
                yield self._constant(name, value.type.tensorType, blob)

    def _constant(self, name: str, tensor: Any, blob: Any) -> TensorDescription:
        dtype = self.type_name(tensor.dataType)
        shape = tuple(int(dimension.constant.size) for dimension in tensor.dimensions)
        content = self.blobs.locate(name, blob.fileName, blob.offset, dtype, shape)
        return TensorDescription(name=name, dtype=dtype.lower(), shape=shape, bytes=len(content))

"""What is in an exported file: signatures, operators, and where the bytes are."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from edgekit.errors import BundleError
from edgekit.export.jobs import WeightCount

LARGEST_SHOWN = 10


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PortDescription(_Record):
    """One input or output as the file declares it; -1 and names stand for dimensions that are not fixed.

    `enumerated` are all shapes of a Core ML input that takes several, of which `shape` is the default.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    enumerated: tuple[tuple[int, ...], ...] = ()


class SignatureDescription(_Record):
    """One entry point of a file."""

    name: str
    inputs: tuple[PortDescription, ...]
    outputs: tuple[PortDescription, ...]


class TensorDescription(_Record):
    """One constant of a file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int


class FileDescription(_Record):
    """A file's signatures, operators by type, constants by dtype, and its largest constants.

    `version` is the format's own (schema, opset, specification); `size_bytes` counts the file, or all files of the
    folder. Constants that several tensors share are counted once.
    """

    format: str
    version: str
    size_bytes: int
    signatures: tuple[SignatureDescription, ...]
    operators: dict[str, int]
    weights: dict[str, WeightCount]
    largest: tuple[TensorDescription, ...]


def describe_file(path: Path) -> FileDescription:
    """Describe a .tflite, .onnx, .mlpackage, .pt2 or SavedModel; only the last loads a framework, and none is run.

    Raises BundleError, one clear line, for a file that is missing, truncated, corrupt or of no known kind, and
    MissingExtraError where the library that reads its format is not installed.
    """
    if not path.exists():
        raise BundleError(f"there is no file {path}")
    if path.suffix == ".tflite":
        from edgekit.export.describe_tflite import describe_tflite

        return describe_tflite(path)
    if path.suffix == ".onnx":
        from edgekit.export.describe_onnx import describe_onnx

        return describe_onnx(path)
    if path.suffix == ".mlpackage":
        from edgekit.export.describe_coreml import describe_mlpackage

        return describe_mlpackage(path)
    if path.suffix == ".pt2":
        from edgekit.export.describe_reference import describe_pt2

        return describe_pt2(path)
    if (path / "saved_model.pb").is_file():
        from edgekit.export.describe_reference import describe_savedmodel

        return describe_savedmodel(path)
    raise BundleError(f"{path} is no file that edgekit knows: .tflite, .onnx, .mlpackage, .pt2 or a SavedModel folder")


def summarize(
    *,
    path: Path,
    format_name: str,
    version: str,
    signatures: Iterable[SignatureDescription],
    operators: Iterable[str],
    tensors: Iterable[TensorDescription],
) -> FileDescription:
    """Put a description together: count operators and weights, and pick the largest constants."""
    kept = list(tensors)
    return FileDescription(
        format=format_name,
        version=version,
        size_bytes=size_on_disk(path),
        signatures=tuple(signatures),
        operators=dict(sorted(Counter(operators).items(), key=lambda item: (-item[1], item[0]))),
        weights=_count(kept),
        largest=tuple(sorted(kept, key=lambda t: (-t.bytes, t.name))[:LARGEST_SHOWN]),
    )


def _count(tensors: list[TensorDescription]) -> dict[str, WeightCount]:
    counts: dict[str, WeightCount] = {}
    for dtype in sorted({tensor.dtype for tensor in tensors}):
        of_dtype = [tensor for tensor in tensors if tensor.dtype == dtype]
        counts[dtype] = WeightCount(
            tensors=len(of_dtype),
            elements=sum(_elements(tensor.shape) for tensor in of_dtype),
            bytes=sum(tensor.bytes for tensor in of_dtype),
        )
    return counts


def _elements(shape: tuple[int, ...]) -> int:
    elements = 1
    for size in shape:
        elements *= size
    return elements


def size_on_disk(path: Path) -> int:
    """Bytes of a file, or of all files of a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())

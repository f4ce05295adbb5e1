"""Programs of single operations, built by coremltools' own builder, written by its own exporter, and evaluated."""

import logging
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

logging.getLogger("coremltools").setLevel(logging.ERROR)

import coremltools as ct  # noqa: E402
from coremltools.converters.mil import Builder as mb  # noqa: E402, N813  # its own documentation's name for it
from coremltools.converters.mil.backend.mil.load import MILProtoExporter  # noqa: E402
from coremltools.converters.mil.mil import types  # noqa: E402
from coremltools.proto import FeatureTypes_pb2, Model_pb2  # noqa: E402

from edgekit.mil.blobs import BlobFiles  # noqa: E402
from edgekit.mil.evaluator import Evaluator  # noqa: E402
from edgekit.mil.package import Package  # noqa: E402
from edgekit.mil.values import Precision  # noqa: E402

TARGETS = {15: ct.target.iOS15, 16: ct.target.iOS16, 17: ct.target.iOS17, 18: ct.target.iOS18}
_TYPES = {
    "float32": types.fp32,
    "float16": types.fp16,
    "int32": types.int32,
    "bool": types.bool,
    "int8": types.int8,
    "uint8": types.uint8,
    "int16": types.int16,
    "uint16": types.uint16,
}
_ARRAYS = FeatureTypes_pb2.ArrayFeatureType.ArrayDataType
_DESCRIBED = {"float32": _ARRAYS.FLOAT32, "float16": _ARRAYS.FLOAT16, "int32": _ARRAYS.INT32}

Build = Callable[..., Any]


def evaluator_of(
    build: Build,
    inputs: Mapping[str, np.ndarray],
    *,
    ios: int = 17,
    precision: Precision = "program",
    states: Any = None,
) -> Evaluator:
    """The evaluator of the program that `build` makes of placeholders for `inputs` (and of state specs)."""
    specs = [mb.TensorSpec(shape=value.shape, dtype=_TYPES[value.dtype.name]) for value in inputs.values()]
    specs += [mb.StateTensorSpec(shape, dtype=types.fp16) for shape in (states or {}).values()]
    names = [*inputs, *(states or {})]
    scope: dict[str, Any] = {"build": build}
    exec(f"def main({', '.join(names)}): return build({', '.join(f'{n}={n}' for n in names)})", scope)
    program = mb.program(input_specs=specs, opset_version=TARGETS[ios])(scope["main"])
    folder = tempfile.TemporaryDirectory(prefix="edgekit-test-mil-")
    weights = Path(folder.name) / "weights"
    weights.mkdir()
    exporter = MILProtoExporter(program, str(weights), TARGETS[ios].value)
    model = Model_pb2.Model(specificationVersion=TARGETS[ios].value)
    model.mlProgram.CopyFrom(exporter.export())
    del exporter  # closes the blob file
    for name, value in inputs.items():
        feature = model.description.input.add(name=name)
        feature.type.multiArrayType.shape.extend(value.shape)
        feature.type.multiArrayType.dataType = _DESCRIBED.get(value.dtype.name, _ARRAYS.INT32)
    for output in program.functions["main"].outputs:
        model.description.output.add(name=output.name).type.multiArrayType.dataType = _ARRAYS.FLOAT32
    package = Package(path=Path(folder.name), specification=model, blobs=BlobFiles(Path(folder.name)))
    evaluator = Evaluator({"": package}, precision=precision)
    evaluator.keep_alive = folder  # type: ignore[attr-defined]  # the mapped weights lie there
    return evaluator


def evaluate(
    build: Build, *, ios: int = 17, precision: Precision = "program", **inputs: np.ndarray
) -> list[np.ndarray]:
    """The outputs of the program that `build` makes, on these inputs, in order."""
    described = {
        name: value if value.dtype.name in _DESCRIBED else value.astype(np.int32) for name, value in inputs.items()
    }

    def cast_back(**given: Any) -> Any:
        return build(
            **{
                name: mb.cast(x=var, dtype=inputs[name].dtype.name) if described[name] is not inputs[name] else var
                for name, var in given.items()
            }
        )

    evaluator = evaluator_of(cast_back, described, ios=ios, precision=precision)
    return list(evaluator.run(described).values())


def one(build: Build, *, ios: int = 17, precision: Precision = "program", **inputs: np.ndarray) -> np.ndarray:
    """The only output of a program."""
    (output,) = evaluate(build, ios=ios, precision=precision, **inputs)
    return output


def same(produced: np.ndarray, expected: Any, *, relative: float = 1e-5, absolute: float = 1e-6) -> None:
    """Equal in shape, and in values to float32's precision."""
    reference = expected.detach().numpy() if isinstance(expected, torch.Tensor) else np.asarray(expected)
    assert produced.shape == reference.shape
    np.testing.assert_allclose(produced, reference, rtol=relative, atol=absolute)


def floats(*shape: int, seed: int = 0, low: float = -2.0, high: float = 2.0) -> np.ndarray:
    """Random float32 values in a range."""
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)


def integers(*shape: int, seed: int = 0, low: int = -9, high: int = 9) -> np.ndarray:
    """Random int32 values in a range, `high` not among them."""
    return np.random.default_rng(seed).integers(low, high, shape).astype(np.int32)

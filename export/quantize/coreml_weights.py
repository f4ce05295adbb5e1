"""The weights of a Core ML package as numbers: float32 ones as they are, compressed ones unpacked by coremltools."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from coremltools.converters.mil.frontend.milproto.load import load as load_program
from coremltools.converters.mil.mil import types
from coremltools.models import MLModel

from edgekit.export.quantize.evidence import Floats, StoredWeight, nearest_step

_SUFFIXES = ("_quantized", "_palettized")


def float_weights(path: Path) -> dict[str, Floats]:
    """The float32 constants of a package by the names of their operations: coremltools' quantizers go by these.

    The value of an operation may have another: a constant that was folded is transpose_5 from transpose_5_1.
    """
    return {
        operation.name: np.asarray(operation.outputs[0].val)
        for operation in _operations(path)
        if operation.op_type == "const" and getattr(operation.outputs[0].val, "dtype", None) == np.float32
    }


def quantized_weights(path: Path, source: dict[str, Floats]) -> dict[str, StoredWeight]:
    """The compressed constants of a package by the names that they had before; `source` are the float32 ones."""
    found: dict[str, StoredWeight] = {}
    for operation in _operations(path):
        if not operation.op_type.startswith("constexpr_"):
            continue
        name = operation.name
        for suffix in _SUFFIXES:
            name = name.removesuffix(suffix)
        values = np.asarray(operation.materialized_val_inference(), np.float32)
        if name in source:
            found[name] = StoredWeight(values=values, **_step(operation, values.shape, source[name]))
    return found


def _step(operation: Any, shape: tuple[int, ...], source: Floats) -> dict[str, Any]:
    """Stored dtype and step of one compressed constant."""
    if operation.op_type == "constexpr_lut_to_dense":
        table = np.asarray(operation.lut.val)
        return {"dtype": f"palette{int(np.log2(table.size))}", "step": nearest_step(source, table)}
    if operation.op_type == "constexpr_affine_dequantize":
        scale = np.asarray(operation.scale.val).ravel()
        broadcast = [1] * len(shape)
        broadcast[int(operation.axis.val)] = scale.size
        return {"dtype": "int8", "step": np.broadcast_to(scale.reshape(broadcast), shape)}
    scale = np.asarray(operation.scale.val)
    for axis, size in enumerate(shape):
        scale = np.repeat(scale, size // scale.shape[axis], axis=axis)
    return {"dtype": types.builtin_to_string(operation.data.dtype), "step": scale}  # numpy has int8 for int4


def _operations(path: Path) -> Iterator[Any]:
    model = MLModel(str(path), skip_model_load=True)
    spec = model.get_spec()
    program = load_program(spec, spec.specificationVersion, model.weights_dir)
    for function in program.functions.values():
        yield from function.operations

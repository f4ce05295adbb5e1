"""What a package says about its inputs and outputs, and whether an input is what it says."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from edgekit.mil.failures import MilError
from edgekit.mil.program import Function
from edgekit.mil.values import Array

_ARRAY_TYPES = {"FLOAT16": "float16", "FLOAT32": "float32", "DOUBLE": "float64", "INT32": "int32", "INT8": "int8"}
_INTEGERS = ("int8", "int32", "int64")

#: one size: fixed, or the least and the most (None: any)
Size = int | tuple[int, int | None]


@dataclass(frozen=True, kw_only=True)
class Port:
    """One input or output: numpy's name of its type, and the shapes that it may have.

    `shapes` has one entry, or one for each enumerated shape; an array in a dictionary or a text has none.
    """

    dtype: str
    shapes: tuple[tuple[Size, ...], ...]
    default: float | None = None

    @property
    def shape(self) -> tuple[int | None, ...]:
        """The shape with None for what is not fixed."""
        columns = zip(*self.shapes, strict=False)
        return tuple(c[0] if isinstance(c[0], int) and len(set(c)) == 1 else None for c in columns)

    def takes(self, shape: tuple[int, ...]) -> bool:
        """Whether an array may have this shape."""
        return any(
            len(shape) == len(sizes) and all(_fits(given, size) for given, size in zip(shape, sizes, strict=True))
            for sizes in self.shapes
        )

    def shapes_text(self) -> str:
        """The shapes as people read them."""
        return " or ".join("[" + ", ".join(_size_text(size) for size in sizes) + "]" for sizes in self.shapes)


def input_ports(description: Any, function: Function) -> dict[str, Port]:
    """The inputs of a function, states excepted.

    Raises MilError("load-failed") for an image or another input that is no array.
    """
    ports = {}
    for feature in description.input:
        if feature.type.WhichOneof("Type") != "multiArrayType":
            kind = str(feature.type.WhichOneof("Type")).removesuffix("Type")
            raise MilError(
                "load-failed", f"the input {feature.name!r} is of the type {kind}: edgekit evaluates arrays only"
            )
        if feature.name not in function.inputs:
            raise MilError("load-failed", f"the program lacks the input {feature.name!r} that the package describes")
        ports[feature.name] = _port(feature)
    return ports


def state_ports(function: Function) -> dict[str, Port]:
    """The states of a function: what they hold between calls."""
    return {
        name: Port(dtype=np.dtype(declared.dtype).name, shapes=(tuple(size or 1 for size in declared.shape or ()),))
        for name, declared in function.inputs.items()
        if declared.is_state
    }


def output_ports(description: Any) -> dict[str, Port]:
    """The outputs of a function; a class label is a text, its probabilities an array."""
    return {
        feature.name: _port(feature)
        if feature.type.WhichOneof("Type") == "multiArrayType"
        else Port(dtype="str" if feature.type.WhichOneof("Type") == "stringType" else "float32", shapes=())
        for feature in description.output
    }


def check_input(name: str, port: Port, value: Array | None) -> Array:
    """An input as the package takes it; integers of another width are converted where they fit.

    Raises MilError("bad-input"): it is missing, or its shape or type is not what the package says.
    """
    if value is None:
        if port.default is None or None in port.shape:
            raise MilError("bad-input", f"the input {name!r} is missing")
        return np.full([size or 1 for size in port.shape], port.default, dtype=port.dtype)
    if not port.takes(value.shape):
        raise MilError(
            "bad-input", f"the input {name!r} has the shape {list(value.shape)}, the package takes {port.shapes_text()}"
        )
    if value.dtype.name == port.dtype:
        return value
    if value.dtype.kind == "f" and port.dtype.startswith("float"):
        return value.astype(port.dtype)
    if value.dtype.name not in _INTEGERS or port.dtype not in _INTEGERS:
        raise MilError("bad-input", f"the input {name!r} is {value.dtype.name}, the package takes {port.dtype}")
    limits = np.iinfo(port.dtype)
    if value.size and (value.min() < limits.min or value.max() > limits.max):
        raise MilError("bad-input", f"the input {name!r} has values beyond {port.dtype}")
    return value.astype(port.dtype)


def _port(feature: Any) -> Port:
    from coremltools.proto import FeatureTypes_pb2

    array = feature.type.multiArrayType
    dtype = _ARRAY_TYPES[FeatureTypes_pb2.ArrayFeatureType.ArrayDataType.Name(array.dataType)]
    flexibility, default = array.WhichOneof("ShapeFlexibility"), array.WhichOneof("defaultOptionalValue")
    shapes: tuple[tuple[Size, ...], ...]
    if flexibility == "enumeratedShapes":
        shapes = tuple(tuple(int(size) for size in each.shape) for each in array.enumeratedShapes.shapes)
    elif flexibility == "shapeRange":
        shapes = (tuple(_range(each) for each in array.shapeRange.sizeRanges),)
    else:
        shapes = (tuple(int(size) for size in array.shape),)
    optional = feature.type.isOptional
    value = float(getattr(array, default)) if default else 0.0
    return Port(dtype=dtype, shapes=shapes, default=value if optional else None)


def _range(size: Any) -> Size:
    least, most = int(size.lowerBound), int(size.upperBound)
    return least if least == most else (least, None if most < 0 else most)


def _fits(given: int, size: Size) -> bool:
    if isinstance(size, int):
        return given == size
    return given >= size[0] and (size[1] is None or given <= size[1])


def _size_text(size: Size) -> str:
    if isinstance(size, int):
        return str(size)
    return f"{size[0]} or more" if size[1] is None else f"{size[0]} to {size[1]}"

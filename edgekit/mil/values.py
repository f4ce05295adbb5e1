"""Types of a program's values, and how a computed value is rounded to the type that the program declares.

Names of types and the packing of integers of less than a byte are those of coremltools' MIL.proto and of MILBlob's
StorageFormat.hpp.
"""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgekit.mil.failures import MilError

Array = NDArray[Any]
#: `program`: every value rounded to the type that the program declares; `fp32`: floats stay in float32
Precision = Literal["program", "fp32"]


class DataType(NamedTuple):
    """One element type: its name in numpy where it has one, its bits, and the code that blob files give it."""

    dtype: Any
    bits: int
    code: int | None = None


#: MIL's name → what it is; integers of less than a byte are unpacked to numpy's smallest of their sign
DATA_TYPES = {
    "BOOL": DataType(np.bool_, 8),
    "STRING": DataType(np.str_, 0),
    "FLOAT16": DataType(np.float16, 16, 1),
    "FLOAT32": DataType(np.float32, 32, 2),
    "UINT8": DataType(np.uint8, 8, 3),
    "INT8": DataType(np.int8, 8, 4),
    "INT16": DataType(np.int16, 16, 6),
    "UINT16": DataType(np.uint16, 16, 7),
    "INT4": DataType(np.int8, 4, 8),
    "UINT1": DataType(np.uint8, 1, 9),
    "UINT2": DataType(np.uint8, 2, 10),
    "UINT4": DataType(np.uint8, 4, 11),
    "UINT3": DataType(np.uint8, 3, 12),
    "UINT6": DataType(np.uint8, 6, 13),
    "INT32": DataType(np.int32, 32, 14),
    "UINT32": DataType(np.uint32, 32, 15),
    "INT64": DataType(np.int64, 64),
    "UINT64": DataType(np.uint64, 64),
}


@dataclass(frozen=True, kw_only=True)
class ValueType:
    """The declared type of a value: MIL's name of its elements, and its shape with None for what is not fixed.

    `shape` is None where not even the rank is (or for a dictionary, whose `data_type` is "DICTIONARY").
    """

    data_type: str
    shape: tuple[int | None, ...] | None
    is_state: bool = False

    @property
    def dtype(self) -> Any:
        """Numpy's type of the elements."""
        return DATA_TYPES[self.data_type].dtype


@dataclass(frozen=True, kw_only=True)
class PackedIntegers:
    """Integers of less than a byte as they are stored: the first lies in the lowest bits of the first byte."""

    content: NDArray[np.uint8]
    data_type: str
    shape: tuple[int, ...]

    def unpack(self) -> Array:
        """The integers, one a byte."""
        signed = self.data_type.startswith("INT")
        return unpack_bits(self.content, DATA_TYPES[self.data_type].bits, self.shape, signed=signed)


def unpack_bits(content: NDArray[np.uint8], bits: int, shape: tuple[int, ...], *, signed: bool = False) -> Array:
    """The `bits` wide integers that are packed in bytes, lowest bits first, as an array of `shape`."""
    count = int(np.prod(shape, dtype=np.int64))
    values: Array
    if bits == 8:
        values = content[:count]
    elif 8 % bits == 0:
        steps = np.arange(0, 8, bits, dtype=np.uint8)
        values = ((content[:, None] >> steps) & np.uint8(2**bits - 1)).reshape(-1)[:count]
    else:
        flat = np.unpackbits(content, bitorder="little")[: count * bits].reshape(count, bits)
        values = (flat << np.arange(bits, dtype=np.uint8)).sum(axis=1, dtype=np.uint8)
    if signed:
        shift = np.uint8(8 - bits)
        values = (values << shift).view(np.int8) >> shift.view(np.int8)
    return values.reshape(shape)


def round_to(value: Any, declared: ValueType, precision: Precision) -> Array:
    """A computed value in its declared type; floats stay float32 in `fp32`. What overflows becomes infinite."""
    array = np.asarray(value)
    if declared.data_type == "DICTIONARY":
        return array
    dtype = declared.dtype
    if precision == "fp32" and dtype == np.float16:
        dtype = np.float32
    if array.dtype == dtype or dtype is np.str_:
        return array
    with np.errstate(over="ignore", invalid="ignore"):
        return array.astype(dtype)


def check_shape(array: Array, declared: ValueType) -> None:
    """Raise MilError where a value has not the shape that the program declares for it."""
    if declared.shape is None or (
        len(declared.shape) == array.ndim
        and all(d in (None, s) for d, s in zip(declared.shape, array.shape, strict=True))
    ):
        return
    raise MilError("run-failed", f"it gave the shape {list(array.shape)}, the program declares {shape_text(declared)}")


def shape_text(declared: ValueType) -> str:
    """A declared shape as people read it."""
    return str([("any" if size is None else size) for size in declared.shape or ()]).replace("'", "")

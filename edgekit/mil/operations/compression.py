"""Compressed weights: scales and offsets (by channel, by block), palettes, sparsity, and these joined.

iOS 16 keeps packed bytes beside a shape, iOS 18 integers of less than a byte; which form it is shows in the arguments.
"""

from typing import Any

import numpy as np

from edgekit.mil.registry import operation
from edgekit.mil.values import Array, PackedIntegers, unpack_bits


@operation()
def constexpr_affine_dequantize(quantized_data: Any, zero_point: Array, scale: Array, axis: Array) -> Array:
    """(data - zero_point) · scale, each one value or one for each place along `axis`."""
    data = _unpacked(quantized_data)
    along = [1] * data.ndim
    along[int(axis)] = -1
    offset, factor = (each.reshape(along) if each.ndim else each for each in (zero_point, scale))
    return (data.astype(np.float32) - offset.astype(np.float32)) * factor


@operation()
def constexpr_blockwise_shift_scale(data: Any, scale: Array, offset: Any = None) -> Array:
    """(data - offset) · scale, with one scale and offset for each block; blocks follow from the shapes."""
    values = _unpacked(data).astype(np.float32)
    blocks, factors = _blocks(values, scale), _between(scale)
    if offset is not None:
        blocks = blocks - _between(_unpacked(offset).astype(np.float32))
    return (blocks * factors).reshape(values.shape)


@operation()
def constexpr_lut_to_dense(indices: Any, lut: Array, shape: Any = None, vector_axis: Array | None = None) -> Array:
    """The value (or vector, along `vector_axis`) of a palette for each index; blocks have palettes of their own."""
    if shape is not None:  # iOS 16: one palette, packed bytes
        sizes = tuple(int(size) for size in shape)
        return lut[unpack_bits(indices, int(np.log2(lut.size)), sizes)]
    return _looked_up(_unpacked(indices), lut, vector_axis)


@operation()
def constexpr_sparse_to_dense(nonzero_data: Any, mask: Any, shape: Any = None) -> Array:
    """The values at the places that the mask names, zeros elsewhere."""
    present = _unpacked(mask)
    if shape is not None:  # iOS 16: the mask is packed bytes
        present = unpack_bits(present, 1, tuple(int(size) for size in shape))
    return _dense(_unpacked(nonzero_data), present)


@operation()
def constexpr_lut_to_sparse(
    indices_mask: Any, indices_nonzero_data: Any, lut: Array, vector_axis: Array | None = None
) -> tuple[Array, Array]:
    """A palette's values for the indices that there are: the mask, and the values at its places."""
    mask = _unpacked(indices_mask)
    values = _looked_up(_dense(_unpacked(indices_nonzero_data), mask), lut, vector_axis)
    if vector_axis is not None:
        mask = np.repeat(mask, lut.shape[-1], axis=int(vector_axis))
    return mask, values[mask != 0]


@operation()
def constexpr_sparse_blockwise_shift_scale(
    data_mask: Any, nonzero_data: Any, scale: Array, offset: Any = None
) -> tuple[Array, Array]:
    """Scaled values for those that there are: the mask, and the values at its places."""
    mask = _unpacked(data_mask)
    values = constexpr_blockwise_shift_scale(_dense(_unpacked(nonzero_data), mask), scale, offset)
    return mask, values[mask != 0]


@operation()
def constexpr_cast(source_val: Array, output_dtype: Array) -> Array:
    """float16 as float32."""
    del output_dtype
    return source_val


@operation()
def quantize(
    input: Array, scale: Array, output_dtype: Array, zero_point: Array | None = None, axis: Array | None = None
) -> Array:
    """round(input / scale) + zero_point, within the integers of `output_dtype`."""
    limits = np.iinfo(str(output_dtype))
    shifted = np.round(input / _along(scale, input, axis))
    if zero_point is not None:
        shifted = shifted + _along(zero_point, input, axis)
    return np.clip(shifted, limits.min, limits.max)


@operation()
def dequantize(input: Array, scale: Array, zero_point: Array | None = None, axis: Array | None = None) -> Array:
    """(input - zero_point) · scale."""
    values = input.astype(np.float32)
    if zero_point is not None:
        values = values - _along(zero_point, input, axis).astype(np.float32)
    return values * _along(scale, input, axis)


def _unpacked(values: Any) -> Array:
    return values.unpack() if isinstance(values, PackedIntegers) else values


def _along(parameter: Array, x: Array, axis: Array | None) -> Array:
    if axis is None or parameter.ndim == 0:
        return parameter
    shape = [1] * x.ndim
    shape[int(axis)] = -1
    return parameter.reshape(shape)


def _blocks(values: Array, scale: Array) -> Array:
    """[…, blocks, elements of one, …] for each axis."""
    shape: list[int] = []
    for size, count in zip(values.shape, scale.shape, strict=True):
        if size % count:
            raise ValueError(f"{size} elements are not in {count} blocks of one size")
        shape += [count, size // count]
    return values.reshape(shape)


def _between(scale: Array) -> Array:
    """One axis of size 1 behind each."""
    return scale.reshape([size for count in scale.shape for size in (count, 1)])


def _looked_up(indices: Array, lut: Array, vector_axis: Array | None) -> Array:
    """Palettes are [blocks along each axis…, values, elements of a vector]."""
    blocks = lut.shape[:-2]
    numbers = np.arange(int(np.prod(blocks))).reshape(blocks)
    for axis, (size, count) in enumerate(zip(indices.shape, blocks, strict=True)):
        numbers = np.repeat(numbers, size // count, axis=axis)
    vectors = lut.reshape(-1, *lut.shape[-2:])[numbers, indices]
    if vector_axis is None or lut.shape[-1] == 1:
        return vectors[..., 0]
    along = int(vector_axis) % indices.ndim
    shape = list(indices.shape)
    shape[along] *= lut.shape[-1]
    return np.moveaxis(vectors, -1, along + 1).reshape(shape)


def _dense(nonzero: Array, mask: Array) -> Array:
    dense = np.zeros(mask.shape, nonzero.dtype)
    dense[mask != 0] = nonzero
    return dense

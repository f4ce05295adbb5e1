"""Operations that give the same values another shape or order."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgekit.mil.registry import operation
from edgekit.mil.values import Array


@operation(moves=True)
def identity(x: Any) -> Any:
    """`x`."""
    return x


@operation(moves=True)
def shape(x: Array) -> Array:
    """The sizes of `x`."""
    return np.array(x.shape, np.int32)


@operation(moves=True)
def reshape(x: Array, shape: Array) -> Array:
    """`x` in row-major order in another shape: 0 keeps the size of that axis, one -1 takes what is left."""
    sizes = [int(size) for size in shape]
    if 0 in sizes and x.size:
        if len(sizes) != x.ndim:
            raise ValueError(f"a 0 in the shape {sizes} keeps a size, but x has {x.ndim} axes")
        sizes = [size or x.shape[axis] for axis, size in enumerate(sizes)]
    return x.reshape(sizes)


@operation(moves=True)
def reshape_like(x: Array, ref_tensors: Any, begins: Array, ends: Array, end_masks: Array) -> Array:
    """`x` in a shape put together from axes of other tensors."""
    references = ref_tensors if isinstance(ref_tensors, list) else [ref_tensors]
    sizes: list[int] = []
    for reference, begin, end, masked in zip(references, begins, ends, end_masks, strict=True):
        sizes += reference.shape[int(begin) : None if masked else int(end)]
    return x.reshape(sizes)


@operation(moves=True)
def flatten2d(x: Array, axis: Array | int = 1) -> Array:
    """Two axes: those before `axis`, and the others."""
    return x.reshape(int(np.prod(x.shape[: int(axis)], dtype=np.int64)), -1)


@operation(moves=True)
def expand_dims(x: Array, axes: Array) -> Array:
    """New axes of size 1."""
    return np.expand_dims(x, tuple(int(axis) for axis in axes))


@operation(moves=True)
def squeeze(x: Array, axes: Array | None = None) -> Array:
    """Without the axes of size 1 (of those named, if any); others stay, as in PyTorch."""
    named = range(x.ndim) if axes is None else [int(axis) % x.ndim for axis in axes]
    return np.squeeze(x, tuple(axis for axis in named if x.shape[axis] == 1))


@operation(moves=True)
def transpose(x: Array, perm: Array) -> Array:
    """The axes in another order."""
    return np.transpose(x, [int(axis) for axis in perm])


@operation(moves=True)
def concat(values: list[Array], axis: Array, interleave: Array | bool = False) -> Array:
    """Tensors one after the other along an axis, or their slices in turns."""
    along = int(axis)
    if not interleave:
        return np.concatenate([np.atleast_1d(value) for value in values], axis=along)
    stacked = np.stack(values, axis=along % values[0].ndim + 1)
    sizes = list(values[0].shape)
    sizes[along] *= len(values)
    return stacked.reshape(sizes)


@operation(moves=True)
def stack(values: list[Array], axis: Array) -> Array:
    """Tensors along a new axis."""
    return np.stack(values, axis=int(axis))


@operation(moves=True)
def split(
    x: Array, axis: Array, num_splits: Array | None = None, split_sizes: Array | Sequence[int] | None = None
) -> tuple[Array, ...]:
    """Parts along an axis: of these sizes, or so many of one size."""
    if split_sizes is None:
        if num_splits is None:
            raise ValueError("it has neither num_splits nor split_sizes")
        return tuple(np.split(x, int(num_splits), axis=int(axis)))
    ends = np.cumsum([int(size) for size in split_sizes])
    return tuple(np.split(x, ends[:-1], axis=int(axis)))


@operation(moves=True)
def tile(x: Array, reps: Array) -> Array:
    """Repeated so often along each axis."""
    return np.tile(x, [int(each) for each in reps])


@operation(moves=True)
def reverse(x: Array, axes: Array | None = None) -> Array:
    """Back to front along these axes, or all."""
    return np.flip(x, None if axes is None else tuple(int(axis) for axis in axes))


@operation(moves=True)
def pad(x: Array, pad: Array, mode: Array | str = "constant", constant_val: Array | float = 0.0) -> Array:
    """With so many elements before and after on each of the last axes."""
    widths = [(0, 0)] * (x.ndim - len(pad) // 2) + [(int(a), int(b)) for a, b in np.reshape(pad, (-1, 2))]
    if mode == "constant":
        return np.pad(x, widths, constant_values=x.dtype.type(constant_val))
    return np.pad(x, widths, mode="edge" if mode == "replicate" else "reflect")


@operation(moves=True)
def depth_to_space(x: Array, block_size: Array) -> Array:
    """Channels as blocks of pixels, the block's place being the slowest part of the channel."""
    n, c, h, w = x.shape
    b = int(block_size)
    return x.reshape(n, b, b, c // b**2, h, w).transpose(0, 3, 4, 1, 5, 2).reshape(n, c // b**2, h * b, w * b)


@operation(moves=True)
def space_to_depth(x: Array, block_size: Array) -> Array:
    """Blocks of pixels as channels: the inverse of depth_to_space."""
    n, c, h, w = x.shape
    b = int(block_size)
    return x.reshape(n, c, h // b, b, w // b, b).transpose(0, 3, 5, 1, 2, 4).reshape(n, c * b**2, h // b, w // b)


@operation(moves=True)
def pixel_shuffle(x: Array, upscale_factor: Array) -> Array:
    """Channels as blocks of pixels, as PyTorch orders them."""
    n, c, h, w = x.shape
    f = int(upscale_factor)
    return x.reshape(n, c // f**2, f, f, h, w).transpose(0, 1, 4, 2, 5, 3).reshape(n, c // f**2, h * f, w * f)


@operation(moves=True)
def pixel_unshuffle(x: Array, downscale_factor: Array) -> Array:
    """Blocks of pixels as channels, as PyTorch orders them."""
    n, c, h, w = x.shape
    f = int(downscale_factor)
    return x.reshape(n, c, h // f, f, w // f, f).transpose(0, 1, 3, 5, 2, 4).reshape(n, c * f**2, h // f, w // f)


@operation(moves=True)
def sliding_windows(x: Array, axis: Array, size: Array, stride: Array | int = 1) -> Array:
    """All windows along an axis, as a new axis behind it."""
    along = int(axis) % x.ndim
    windows = np.lib.stride_tricks.sliding_window_view(x, int(size), axis=along)
    windows = np.moveaxis(windows, -1, along + 1)
    return windows[(slice(None),) * along + (slice(None, None, int(stride)),)]

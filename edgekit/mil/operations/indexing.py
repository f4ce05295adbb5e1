"""Operations that read or write at indices.

From iOS 17 on, an index out of bounds is undefined behaviour on a device: here it is an error, because a result that
depends on it is worth nothing. Negative indices count from the end, as they do before iOS 17.
"""

from typing import Any

import numpy as np

from edgekit.mil.registry import operation
from edgekit.mil.values import Array

_MODES: dict[str, Any] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "max": np.maximum,
    "min": np.minimum,
}


@operation(moves=True)
def gather(
    x: Array,
    indices: Array,
    axis: Array | int = 0,
    batch_dims: Array | int = 0,
    validate_indices: Array | bool = False,
) -> Array:
    """Slices of `x` along an axis, within each of the first `batch_dims` axes."""
    del validate_indices
    along, batch = int(axis) % x.ndim, int(batch_dims)
    chosen = _in_bounds(indices, x.shape[along])
    if batch == 0:
        return np.take(x, chosen, axis=along)
    lead = x.shape[:batch]
    rows = x.reshape(-1, *x.shape[batch:])
    picked = chosen.reshape(len(rows), *chosen.shape[batch:])
    taken = [np.take(row, each, axis=along - batch) for row, each in zip(rows, picked, strict=True)]
    return np.stack(taken).reshape(*lead, *taken[0].shape)


@operation(moves=True)
def gather_along_axis(x: Array, indices: Array, axis: Array | int = 0, validate_indices: Array | bool = False) -> Array:
    """The element of each index along an axis, all other indices being the same."""
    del validate_indices
    return np.take_along_axis(x, _in_bounds(indices, x.shape[int(axis)]), axis=int(axis))


@operation(moves=True)
def gather_nd(x: Array, indices: Array, batch_dims: Array | int = 0, validate_indices: Array | bool = False) -> Array:
    """The slice of `x` at each index vector, which lies along the last axis of `indices`."""
    del validate_indices
    batch = int(batch_dims)
    lead = np.indices(indices.shape[:-1], sparse=True)[:batch]
    places = [_in_bounds(indices[..., i], x.shape[batch + i]) for i in range(indices.shape[-1])]
    return x[(*lead, *places)]


@operation()
def scatter(
    data: Array,
    indices: Array,
    updates: Array,
    axis: Array | int = 0,
    mode: Array | str = "add",
    validate_indices: Array | bool = False,
) -> Array:
    """`data` with the slices of `updates` written at `indices` along an axis."""
    del validate_indices
    along = int(axis) % data.ndim
    places = (slice(None),) * along + (_in_bounds(indices, data.shape[along]),)
    return _updated(data, places, updates, str(mode))


@operation()
def scatter_along_axis(
    data: Array,
    indices: Array,
    updates: Array,
    axis: Array | int = 0,
    mode: Array | str = "add",
    validate_indices: Array | bool = False,
) -> Array:
    """`data` with each update written at its index along an axis, all other indices being the same."""
    del validate_indices
    along = int(axis) % data.ndim
    places: list[Any] = list(np.indices(indices.shape, sparse=True))
    places[along] = _in_bounds(indices, data.shape[along])
    return _updated(data, tuple(places), updates, str(mode))


@operation()
def scatter_nd(
    data: Array,
    indices: Array,
    updates: Array,
    mode: Array | str = "add",
    validate_indices: Array | bool = False,
) -> Array:
    """`data` with slices written at each index vector, which lies along the last axis of `indices`."""
    del validate_indices
    places = tuple(_in_bounds(indices[..., i], data.shape[i]) for i in range(indices.shape[-1]))
    return _updated(data, places, updates, str(mode))


@operation(moves=True)
def slice_by_index(
    x: Array,
    begin: Array,
    end: Array,
    stride: Array | None = None,
    begin_mask: Array | None = None,
    end_mask: Array | None = None,
    squeeze_mask: Array | None = None,
) -> Array:
    """x[begin:end:stride] along each axis; masked ends are open, squeezed axes are indexed."""
    return x[_slices(x, begin, end, stride, begin_mask, end_mask, squeeze_mask)]


@operation()
def slice_update(
    x: Array,
    update: Array,
    begin: Array,
    end: Array,
    stride: Array | None = None,
    begin_mask: Array | None = None,
    end_mask: Array | None = None,
    squeeze_mask: Array | None = None,
) -> Array:
    """`x` with `update` written to the slice that slice_by_index would read."""
    result = x.copy()
    result[_slices(x, begin, end, stride, begin_mask, end_mask, squeeze_mask)] = update
    return result


@operation(moves=True)
def slice_by_size(x: Array, begin: Array, size: Array) -> Array:
    """So many elements (-1: all that are left) from `begin` on along each axis."""
    starts = [
        int(first) % max(length, 1) if first < 0 else int(first) for first, length in zip(begin, x.shape, strict=True)
    ]
    ends = [None if count == -1 else first + int(count) for first, count in zip(starts, size, strict=True)]
    return x[tuple(slice(first, last) for first, last in zip(starts, ends, strict=True))]


@operation(moves=True)
def non_zero(x: Array) -> Array:
    """The index vector of each element that is not zero."""
    return np.argwhere(x)


@operation()
def one_hot(
    indices: Array,
    one_hot_vector_size: Array,
    axis: Array | int = -1,
    on_value: Array | float = 1,
    off_value: Array | float = 0,
) -> Array:
    """A new axis with `on_value` at each index; an index out of bounds has no place on it."""
    places = np.arange(int(one_hot_vector_size))
    along = int(axis) % (indices.ndim + 1)
    places = places.reshape([-1] + [1] * (indices.ndim - along))
    return np.where(np.expand_dims(indices, along) == places, on_value, off_value)


def _slices(x: Array, begin: Array, end: Array, stride: Any, begin_mask: Any, end_mask: Any, squeeze_mask: Any) -> Any:
    def flag(mask: Any, axis: int) -> bool:
        return mask is not None and bool(mask[axis])

    slices: list[Any] = []
    for axis in range(x.ndim):
        first, last = int(begin[axis]), int(end[axis])
        if flag(squeeze_mask, axis):
            slices.append(0 if flag(begin_mask, axis) else first)
            continue
        step = 1 if stride is None else int(stride[axis])
        slices.append(slice(None if flag(begin_mask, axis) else first, None if flag(end_mask, axis) else last, step))
    return tuple(slices)


def _in_bounds(indices: Array, size: int) -> Array:
    chosen = indices.astype(np.int64)
    if chosen.size and (chosen.min() < -size or chosen.max() >= size):
        raise IndexError(f"indices from {chosen.min()} to {chosen.max()} are out of bounds for {size} elements")
    return np.where(chosen < 0, chosen + size, chosen)


def _updated(data: Array, places: Any, updates: Array, mode: str) -> Array:
    result = data.copy()
    if mode == "update":
        result[places] = updates
    elif mode in _MODES:
        if mode == "div" and result.dtype.kind == "i":
            raise ValueError("integers can't be divided in place")
        _MODES[mode].at(result, places, updates)
    else:
        raise ValueError(f"its mode {mode} is unknown")
    return result

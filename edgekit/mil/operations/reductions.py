"""Operations that make one value of many: along `axes` (all without any), or along one `axis`."""

from collections.abc import Callable
from typing import Any

import numpy as np

from edgekit.mil.registry import operation
from edgekit.mil.values import Array


def _log_sum_exp(x: Array, axis: Any, keepdims: bool) -> Array:
    largest = np.max(x, axis=axis, keepdims=True)
    shift = np.where(np.isfinite(largest), largest, 0)
    sums = np.log(np.sum(np.exp(x - shift), axis=axis, keepdims=True)) + shift
    return sums if keepdims else np.squeeze(sums, axis=axis)


_REDUCTIONS: dict[str, Callable[..., Array]] = {
    "reduce_l1_norm": lambda x, **how: np.sum(np.abs(x), **how),
    "reduce_l2_norm": lambda x, **how: np.sqrt(np.sum(np.square(x), **how)),
    "reduce_log_sum": lambda x, **how: np.log(np.sum(x, **how)),
    "reduce_log_sum_exp": _log_sum_exp,
    "reduce_max": np.max,
    "reduce_mean": np.mean,
    "reduce_min": np.min,
    "reduce_prod": np.prod,
    "reduce_sum": np.sum,
    "reduce_sum_square": lambda x, **how: np.sum(np.square(x), **how),
}


def _register() -> None:
    for name, reduce in _REDUCTIONS.items():

        def compute(
            x: Array, axes: Array | None = None, keep_dims: Array | bool = False, reduce: Any = reduce
        ) -> Array:
            axis = tuple(range(x.ndim)) if axes is None else tuple(int(each) for each in np.ravel(axes))
            return reduce(x, axis=axis, keepdims=bool(keep_dims))

        operation(name)(compute)


_register()


@operation()
def reduce_argmax(x: Array, axis: Array | int = -1, keep_dims: Array | bool = False, **_: Any) -> Array:
    """The index of the largest element, the first of equals."""
    return np.argmax(x, axis=int(axis), keepdims=bool(keep_dims))


@operation()
def reduce_argmin(x: Array, axis: Array | int = -1, keep_dims: Array | bool = False, **_: Any) -> Array:
    """The index of the smallest element, the first of equals."""
    return np.argmin(x, axis=int(axis), keepdims=bool(keep_dims))


@operation()
def cumsum(x: Array, axis: Array | int = 0, exclusive: Array | bool = False, reverse: Array | bool = False) -> Array:
    """Sums of all elements so far along an axis; `exclusive` leaves out the element itself."""
    along = int(axis)
    given = np.flip(x, along) if reverse else x
    sums = np.cumsum(given, axis=along, dtype=x.dtype)
    if exclusive:
        sums = sums - given
    return np.flip(sums, along) if reverse else sums


@operation(moves=True)
def argsort(x: Array, axis: Array | int = -1, ascending: Array | bool = False) -> Array:
    """The indices that sort, largest first unless `ascending`; equals stay in order."""
    return _sorted_indices(x, int(axis), bool(ascending))


@operation(moves=True)
def topk(
    x: Array,
    k: Array | int = 1,
    axis: Array | int = -1,
    ascending: Array | bool = False,
    sort: Array | bool = True,
    return_indices: Array | bool = True,
    output_indices_dtype: Array | str = "int32",
) -> Any:
    """The `k` largest (smallest if `ascending`) elements along an axis (-1: all), and where they were."""
    del sort, output_indices_dtype
    along, count = int(axis), int(k)
    indices = _sorted_indices(x, along, bool(ascending))
    if count >= 0:
        indices = np.take(indices, np.arange(count), axis=along)
    values = np.take_along_axis(x, indices, axis=along)
    return (values, indices) if return_indices else values


def _sorted_indices(x: Array, axis: int, ascending: bool) -> Array:
    if ascending:
        return np.argsort(x, axis=axis, kind="stable")
    backwards = np.argsort(np.flip(x, axis), axis=axis, kind="stable")  # equals stay in order when flipped back
    return np.flip(x.shape[axis] - 1 - backwards, axis)

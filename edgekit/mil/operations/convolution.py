"""Convolutions and pooling, of one to three spatial axes behind batch and channels."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgekit.mil.registry import operation
from edgekit.mil.values import Array

_Sizes = Sequence[int]


@operation()
def conv(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    strides: Array | None = None,
    pad_type: Array | str = "valid",
    pad: Array | None = None,
    dilations: Array | None = None,
    groups: Array | int = 1,
) -> Array:
    """The weights (out channels, in channels / groups, kernel) at every place, as a product of matrices."""
    kernel, axes = weight.shape[2:], x.ndim - 2
    steps, spread = _integers(strides, axes), _integers(dilations, axes)
    reach = [(size - 1) * by + 1 for size, by in zip(kernel, spread, strict=True)]
    widths = _padding(str(pad_type), pad, x.shape[2:], reach, steps)
    windows = _windows(np.pad(x, [(0, 0), (0, 0), *widths]), reach, steps, spread)
    sizes, parts = windows.shape[2 : 2 + axes], int(groups)
    columns = np.moveaxis(windows, 1, 1 + axes).reshape(len(x), math.prod(sizes), parts, -1)
    rows = weight.reshape(parts, len(weight) // parts, -1)
    product = np.matmul(rows, columns.transpose(0, 2, 3, 1)).reshape(len(x), len(weight), *sizes)
    return product if bias is None else product + bias.reshape(1, -1, *[1] * axes)


@operation()
def conv_transpose(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    pad: Array | None = None,
    output_shape: Array | None = None,
    pad_type: Array | str = "valid",
    strides: Array | None = None,
    dilations: Array | None = None,
    groups: Array | int = 1,
) -> Array:
    """The gradient of a convolution: each input spreads its weights (in channels, out channels / groups, kernel)."""
    axes, parts = x.ndim - 2, int(groups)
    steps, spread = _integers(strides, axes), _integers(dilations, axes)
    reach = [(size - 1) * by + 1 for size, by in zip(weight.shape[2:], spread, strict=True)]
    apart = np.zeros((*x.shape[:2], *((n - 1) * s + 1 for n, s in zip(x.shape[2:], steps, strict=True))), x.dtype)
    apart[(slice(None), slice(None), *(slice(None, None, step) for step in steps))] = x
    flipped = np.flip(weight, tuple(range(2, weight.ndim)))
    flipped = flipped.reshape(parts, len(weight) // parts, *weight.shape[1:]).swapaxes(1, 2)
    flipped = flipped.reshape(-1, len(weight) // parts, *weight.shape[2:])
    around = np.pad(apart, [(0, 0), (0, 0), *((size - 1, size - 1) for size in reach)])
    whole = conv(around, flipped, bias, dilations=np.array(spread), groups=parts)
    cut = _transposed_cut(whole.shape[2:], x.shape[2:], steps, str(pad_type), pad, output_shape)
    return whole[(slice(None), slice(None), *cut)]


@operation()
def max_pool(
    x: Array,
    kernel_sizes: Array,
    pad_type: Array | str = "valid",
    strides: Array | None = None,
    pad: Array | None = None,
    ceil_mode: Array | bool = False,
) -> Array:
    """The largest value in each window; what lies outside counts for nothing."""
    windows, axes = _pooled(x, kernel_sizes, strides, str(pad_type), pad, bool(ceil_mode), -np.inf)
    return windows.max(axis=axes)


@operation()
def avg_pool(
    x: Array,
    kernel_sizes: Array,
    pad_type: Array | str = "valid",
    strides: Array | None = None,
    pad: Array | None = None,
    exclude_padding_from_average: Array | bool = False,
    ceil_mode: Array | bool = False,
) -> Array:
    """The mean of each window; padding counts as zeros, or not at all."""
    how = (kernel_sizes, strides, str(pad_type), pad, bool(ceil_mode))
    windows, axes = _pooled(x, *how, 0.0)
    if not exclude_padding_from_average:
        return windows.mean(axis=axes, dtype=np.float32)
    counted, _ = _pooled(np.ones_like(x), *how, 0.0)
    return windows.sum(axis=axes) / counted.sum(axis=axes)


def _pooled(
    x: Array, kernel: Array, strides: Array | None, pad_type: str, pad: Array | None, ceil_mode: bool, outside: float
) -> tuple[Array, tuple[int, ...]]:
    sizes, axes = [int(size) for size in kernel], x.ndim - 2
    steps = _integers(strides, axes)
    widths = _padding(pad_type, pad, x.shape[2:], sizes, steps)
    if ceil_mode:
        widths = [
            (a, b + _missing(n, a, b, k, s)) for n, (a, b), k, s in zip(x.shape[2:], widths, sizes, steps, strict=True)
        ]
    padded = np.pad(x, [(0, 0), (0, 0), *widths], constant_values=x.dtype.type(outside))
    windows = _windows(padded, sizes, steps, [1] * axes)
    return windows, tuple(range(2 + axes, windows.ndim))


def _missing(size: int, before: int, after: int, kernel: int, step: int) -> int:
    """How much is missing to a last window that begins inside, where sizes are rounded up as in PyTorch."""
    count = math.ceil((size + before + after - kernel) / step) + 1
    if (count - 1) * step >= size + before:
        count -= 1
    return max(0, (count - 1) * step + kernel - size - before - after)


def _windows(x: Array, reach: _Sizes, steps: _Sizes, spread: _Sizes) -> Array:
    """[batch, channels, places…, kernel…]: a view, nothing is copied."""
    axes = tuple(range(2, x.ndim))
    windows = np.lib.stride_tricks.sliding_window_view(x, tuple(reach), axis=axes)
    places = tuple(slice(None, None, step) for step in steps)
    inside = tuple(slice(None, None, by) for by in spread)
    return windows[(slice(None), slice(None), *places, *inside)]


def _padding(pad_type: str, pad: Array | None, sizes: _Sizes, reach: _Sizes, steps: _Sizes) -> list[tuple[int, int]]:
    if pad_type == "valid":
        return [(0, 0)] * len(sizes)
    if pad_type == "custom":
        if pad is None:
            raise ValueError("it has custom padding, but no pad")
        return [(int(before), int(after)) for before, after in np.reshape(pad, (-1, 2))]
    if pad_type not in ("same", "same_lower"):
        raise ValueError(f"its padding {pad_type} is unknown")
    totals = [max(0, s * math.ceil(n / s) - n + k - s) for n, k, s in zip(sizes, reach, steps, strict=True)]
    halves = [(total // 2, total - total // 2) for total in totals]
    return [(b, a) for a, b in halves] if pad_type == "same_lower" else halves


def _transposed_cut(
    whole: _Sizes, given: _Sizes, steps: _Sizes, pad_type: str, pad: Array | None, output_shape: Array | None
) -> list[slice]:
    if pad_type == "custom" and pad is not None:
        before = [int(each) for each in np.reshape(pad, (-1, 2))[:, 0]]
        after = [int(each) for each in np.reshape(pad, (-1, 2))[:, 1]]
        ends = [size - last for size, last in zip(whole, after, strict=True)]
    elif pad_type == "same":
        wanted = [n * s for n, s in zip(given, steps, strict=True)]
        before = [(size - want) // 2 for size, want in zip(whole, wanted, strict=True)]
        ends = [first + want for first, want in zip(before, wanted, strict=True)]
    else:
        before, ends = [0] * len(whole), list(whole)
    if output_shape is not None:
        ends = [first + int(size) for first, size in zip(before, output_shape[2:], strict=True)]
    if any(end > size or first < 0 for first, end, size in zip(before, ends, whole, strict=True)):
        raise ValueError("its output is larger than what its input reaches")
    return [slice(first, end) for first, end in zip(before, ends, strict=True)]


def _integers(values: Any, axes: int) -> list[int]:
    return [1] * axes if values is None else [int(value) for value in values]

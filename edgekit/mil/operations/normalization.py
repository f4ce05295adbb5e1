"""Normalizations; statistics are those of the values given, but for batch_norm's, which are constants."""

import numpy as np

from edgekit.mil.operations.activations import by_channel
from edgekit.mil.registry import operation
from edgekit.mil.values import Array


@operation()
def layer_norm(
    x: Array,
    axes: Array | None = None,
    gamma: Array | None = None,
    beta: Array | None = None,
    epsilon: Array | float = 1e-5,
) -> Array:
    """(x - mean) / √(variance + epsilon) · gamma + beta, along `axes`."""
    along = tuple(range(x.ndim)) if axes is None else tuple(sorted(int(axis) % x.ndim for axis in axes))
    shape = [size if axis in along else 1 for axis, size in enumerate(x.shape)]
    centred = x - np.mean(x, axis=along, keepdims=True)
    variance = np.mean(np.square(centred), axis=along, keepdims=True)
    normal = centred / np.sqrt(variance + np.float32(epsilon))
    scaled = normal if gamma is None else normal * gamma.reshape(shape)
    return scaled if beta is None else scaled + beta.reshape(shape)


@operation()
def batch_norm(
    x: Array,
    mean: Array,
    variance: Array,
    gamma: Array | None = None,
    beta: Array | None = None,
    epsilon: Array | float = 1e-5,
) -> Array:
    """With a mean and a variance for each channel."""
    normal = (x - by_channel(mean, x)) / np.sqrt(by_channel(variance, x) + np.float32(epsilon))
    return _scaled(normal, gamma, beta)


@operation()
def instance_norm(
    x: Array, gamma: Array | None = None, beta: Array | None = None, epsilon: Array | float = 1e-5
) -> Array:
    """Each channel of each example by itself."""
    return _scaled(layer_norm(x, np.arange(2, x.ndim), epsilon=epsilon), gamma, beta)


@operation()
def l2_norm(x: Array, epsilon: Array | float = 1e-6) -> Array:
    """x / √(sum of squares + epsilon), over the last three axes."""
    sums = np.sum(np.square(x), axis=(-3, -2, -1), keepdims=True)
    return x / np.sqrt(sums + np.float32(epsilon))


@operation()
def local_response_norm(
    x: Array, size: Array, alpha: Array | float = 1e-4, beta: Array | float = 0.75, k: Array | float = 1.0
) -> Array:
    """x / (k + alpha / size · sum of squares of the neighbouring channels)^beta."""
    count = int(size)
    before = count // 2
    widths = [(0, 0), (before, count - 1 - before), *[(0, 0)] * (x.ndim - 2)]
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(np.square(x), widths), count, axis=1)
    return x / np.power(np.float32(k) + np.float32(alpha) / count * windows.sum(axis=-1), np.float32(beta))


def _scaled(x: Array, gamma: Array | None, beta: Array | None) -> Array:
    scaled = x if gamma is None else x * by_channel(gamma, x)
    return scaled if beta is None else scaled + by_channel(beta, x)

"""Activation functions; parameters of channels lie along the second axis."""

import math

import numpy as np

from edgekit.mil.operations.erf import erf
from edgekit.mil.registry import operation
from edgekit.mil.values import Array


@operation()
def relu(x: Array) -> Array:
    """max(x, 0)."""
    return np.maximum(x, 0)


@operation()
def relu6(x: Array) -> Array:
    """min(max(x, 0), 6)."""
    return np.clip(x, 0, 6)


@operation()
def clamped_relu(x: Array, alpha: Array, beta: Array) -> Array:
    """min(beta, x) of what is positive, min(beta, alpha · x) of what is not."""
    return np.minimum(np.where(x >= 0, x, alpha * x), beta)


@operation()
def thresholded_relu(x: Array, alpha: Array) -> Array:
    """`x` where it is at least `alpha`, else 0."""
    return np.where(x >= alpha, x, 0)


@operation()
def leaky_relu(x: Array, alpha: Array) -> Array:
    """`x`, or alpha · x where it is negative."""
    return np.where(x >= 0, x, alpha * x)


@operation()
def prelu(x: Array, alpha: Array) -> Array:
    """leaky_relu with an alpha for each channel."""
    return np.where(x > 0, x, by_channel(alpha, x) * x)


@operation()
def elu(x: Array, alpha: Array) -> Array:
    """`x`, or alpha · (eˣ - 1) where it is negative."""
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


@operation()
def sigmoid(x: Array) -> Array:
    """1 / (1 + e⁻ˣ)."""
    return 0.5 * (1 + np.tanh(0.5 * x))


@operation()
def sigmoid_hard(x: Array, alpha: Array, beta: Array) -> Array:
    """alpha · x + beta between 0 and 1."""
    return np.clip(alpha * x + beta, 0, 1)


@operation()
def silu(x: Array) -> Array:
    """x · sigmoid(x)."""
    return x * sigmoid(x)


@operation()
def gelu(x: Array, mode: Array | str = "EXACT") -> Array:
    """x · Φ(x), exactly or by the approximation that `mode` names."""
    if mode == "EXACT":
        return 0.5 * x * (1 + erf(x * np.float32(math.sqrt(0.5))))
    if mode == "TANH_APPROXIMATION":
        return 0.5 * x * (1 + np.tanh(np.float32(math.sqrt(2 / math.pi)) * (x + np.float32(0.044715) * x**3)))
    if mode == "SIGMOID_APPROXIMATION":
        return x * sigmoid(np.float32(1.702) * x)
    raise ValueError(f"its mode {mode!s} is unknown")


@operation()
def softmax(x: Array, axis: Array | int = -1) -> Array:
    """eˣ as a share of its sum along an axis."""
    exponentials = np.exp(x - np.max(x, axis=int(axis), keepdims=True))
    return exponentials / np.sum(exponentials, axis=int(axis), keepdims=True)


@operation()
def softplus(x: Array) -> Array:
    """log(1 + eˣ)."""
    return np.logaddexp(x, np.float32(0))


@operation()
def softplus_parametric(x: Array, alpha: Array, beta: Array) -> Array:
    """alpha · log(1 + e^(beta · x)), by channel."""
    return by_channel(alpha, x) * np.logaddexp(by_channel(beta, x) * x, np.float32(0))


@operation()
def softsign(x: Array) -> Array:
    """x / (1 + |x|)."""
    return x / (1 + np.abs(x))


@operation()
def scaled_tanh(x: Array, alpha: Array, beta: Array) -> Array:
    """alpha · tanh(beta · x)."""
    return alpha * np.tanh(beta * x)


@operation()
def linear_activation(x: Array, alpha: Array, beta: Array) -> Array:
    """alpha · x + beta."""
    return alpha * x + beta


def by_channel(parameter: Array, x: Array) -> Array:
    """A parameter of each channel in the shape that is broadcast to `x`."""
    return parameter.reshape(1, -1, *[1] * (x.ndim - 2))

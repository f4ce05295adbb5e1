"""Matrix products: summed in float32, whatever the program's own type is."""

import math

import numpy as np

from edgekit.mil.operations.activations import softmax
from edgekit.mil.registry import operation
from edgekit.mil.values import Array


@operation()
def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """x · weightᵀ + bias."""
    product = np.matmul(x.reshape(-1, x.shape[-1]), weight.T).reshape(*x.shape[:-1], len(weight))
    return product if bias is None else product + bias


@operation()
def matmul(x: Array, y: Array, transpose_x: Array | bool = False, transpose_y: Array | bool = False) -> Array:
    """Products of the matrices in the last two axes, the others broadcast."""
    left = np.swapaxes(x, -1, -2) if transpose_x and x.ndim > 1 else x
    right = np.swapaxes(y, -1, -2) if transpose_y and y.ndim > 1 else y
    return np.matmul(_packed(left), _packed(right))


@operation()
def einsum(values: list[Array], equation: Array | str) -> Array:
    """Einstein's sum over two tensors."""
    return np.einsum(str(equation), *values, optimize=True)


@operation()
def scaled_dot_product_attention(query: Array, key: Array, value: Array, attn_mask: Array | None = None) -> Array:
    """softmax(query · keyᵀ / √width + mask) · value; a mask of booleans says what is attended to."""
    scores = np.matmul(_packed(query), np.swapaxes(_packed(key), -1, -2)) / np.float32(math.sqrt(query.shape[-1]))
    if attn_mask is not None:
        allowed = attn_mask.dtype == np.bool_
        scores = np.where(attn_mask, scores, -np.inf) if allowed else scores + attn_mask
    return np.matmul(softmax(scores.astype(np.float32)), _packed(value))


def _packed(x: Array) -> Array:
    """With one of the last two axes contiguous: numpy is slow with other matrices, as BLAS can't take them."""
    ordered = x.ndim < 2 or x.itemsize in x.strides[-2:]
    return x if ordered else np.ascontiguousarray(x)

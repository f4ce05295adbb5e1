"""Operations that make values of their own, and what is left: bands, classes."""

from typing import Any

import numpy as np

from edgekit.mil.registry import operation
from edgekit.mil.values import Array


@operation()
def fill(shape: Array, value: Array | float = 0.0) -> Array:
    """One value everywhere."""
    return np.full([int(size) for size in shape], value)


@operation()
def fill_like(ref_tensor: Array, value: Array | float = 0.0) -> Array:
    """One value everywhere, in the shape of another tensor."""
    return np.full(ref_tensor.shape, value)


@operation()
def range_1d(start: Array, end: Array, step: Array) -> Array:
    """Values from `start` on in steps, `end` not among them."""
    return np.arange(start.item(), end.item(), step.item())


@operation(moves=True)
def band_part(x: Array, lower: Array | int = -1, upper: Array | int = -1) -> Array:
    """The band around the diagonal of each matrix, zeros elsewhere; a negative width keeps all of that side."""
    rows, columns = np.arange(x.shape[-2])[:, None], np.arange(x.shape[-1])
    kept = np.ones(x.shape[-2:], np.bool_)
    if int(lower) >= 0:
        kept &= rows - columns <= int(lower)
    if int(upper) >= 0:
        kept &= columns - rows <= int(upper)
    return np.where(kept, x, x.dtype.type(0))


@operation()
def classify(probabilities: Array, classes: Any) -> tuple[Array, Array]:
    """The class of the largest probability, and the probabilities in the order of the classes."""
    flat = probabilities.reshape(-1)
    return np.asarray(classes)[int(np.argmax(flat))], flat

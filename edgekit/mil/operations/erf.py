"""The error function, which numpy lacks."""

import math
from functools import cache

import numpy as np
from numpy.polynomial import Chebyshev

from edgekit.mil.values import Array

_LIMIT = 4.0  # beyond, erf is 1 in float32
_DEGREE = 26


def erf(x: Array) -> Array:
    """erf of float32 values, to within 1e-7: a Chebyshev series of erf(√t)/√t, fitted to Python's own `math.erf`."""
    clipped = np.clip(x, -_LIMIT, _LIMIT).astype(np.float64)
    result = clipped * _series()(clipped * clipped)
    return np.where(np.abs(x) >= _LIMIT, np.sign(x), result).astype(np.float32)


@cache
def _series() -> Chebyshev:
    def quotient(t: Array) -> Array:
        return np.array([math.erf(math.sqrt(v)) / math.sqrt(v) if v > 0 else 2 / math.sqrt(math.pi) for v in t])

    return Chebyshev.interpolate(quotient, _DEGREE, domain=[0.0, _LIMIT**2])

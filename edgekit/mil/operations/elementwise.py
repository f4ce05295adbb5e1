"""Operations that compute each element from those at its place in the inputs; shapes are broadcast as in numpy."""

from typing import Any

import numpy as np

from edgekit.mil.operations.erf import erf
from edgekit.mil.registry import operation
from edgekit.mil.values import Array

_BINARY: dict[str, Any] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "pow": np.power,
    "floor_div": np.floor_divide,
    "mod": np.mod,
    "equal": np.equal,
    "not_equal": np.not_equal,
    "greater": np.greater,
    "greater_equal": np.greater_equal,
    "less": np.less,
    "less_equal": np.less_equal,
    "logical_and": np.logical_and,
    "logical_or": np.logical_or,
    "logical_xor": np.logical_xor,
    "real_div": np.true_divide,
}
_UNARY: dict[str, Any] = {
    "abs": np.abs,
    "acos": np.arccos,
    "asin": np.arcsin,
    "atan": np.arctan,
    "atanh": np.arctanh,
    "ceil": np.ceil,
    "cos": np.cos,
    "cosh": np.cosh,
    "erf": erf,
    "exp": np.exp,
    "exp2": np.exp2,
    "floor": np.floor,
    "logical_not": np.logical_not,
    "round": np.round,
    "sign": np.sign,
    "sin": np.sin,
    "sinh": np.sinh,
    "sqrt": np.sqrt,
    "square": np.square,
    "tan": np.tan,
    "tanh": np.tanh,
}


def _register() -> None:
    for name, function in _BINARY.items():
        operation(name)(lambda x, y, function=function: function(x, y))
    for name, function in _UNARY.items():
        operation(name)(lambda x, function=function: function(x))


_register()


@operation()
def cast(x: Array, dtype: Array) -> Array:
    """The value is rounded to its declared type by the evaluator, as every value is; floats lose their fraction."""
    del dtype
    return x


@operation()
def clip(x: Array, alpha: Array, beta: Array) -> Array:
    """`x` between `alpha` and `beta`."""
    return np.clip(x, alpha, beta)


@operation()
def threshold(x: Array, alpha: Array) -> Array:
    """`x`, or `alpha` where that is larger."""
    return np.maximum(x, alpha)


@operation()
def log(x: Array, epsilon: Array | float = 1e-45) -> Array:
    """The natural logarithm of x + epsilon."""
    return np.log(x + np.float32(epsilon))


@operation()
def inverse(x: Array, epsilon: Array | float = 1e-4) -> Array:
    """1 / (x + epsilon)."""
    return 1 / (x + np.float32(epsilon))


@operation()
def rsqrt(x: Array, epsilon: Array | float = 1e-12) -> Array:
    """1 / √(x + epsilon)."""
    return 1 / np.sqrt(x + np.float32(epsilon))


@operation(moves=True)
def select(cond: Array, a: Array, b: Array) -> Array:
    """`a` where `cond`, else `b`."""
    return np.where(cond, a, b)

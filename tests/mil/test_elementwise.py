"""Element by element operations and activations, beside torch."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.mil.programs import floats, integers, mb, one, same

BINARY: dict[str, Callable[..., Any]] = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "real_div": torch.div,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "floor_div": torch.floor_divide,
    "mod": torch.remainder,
    "equal": torch.eq,
    "not_equal": torch.ne,
    "greater": torch.gt,
    "greater_equal": torch.ge,
    "less": torch.lt,
    "less_equal": torch.le,
}
UNARY: dict[str, Callable[..., Any]] = {
    name: getattr(torch, name)
    for name in (
        "abs", "atan", "ceil", "cos", "cosh", "erf", "exp", "exp2", "floor", "round", "sign", "sin", "sinh", "square",
        "tan", "tanh", "sigmoid", "relu",
    )
} | {
    "relu6": F.relu6, "silu": F.silu, "softplus": F.softplus, "softsign": F.softsign,
    "gelu": F.gelu,
}  # fmt: skip
WITH_PARAMETERS: dict[str, tuple[dict[str, float], Callable[..., Any]]] = {
    "clip": ({"alpha": -0.5, "beta": 0.75}, lambda x: torch.clamp(x, -0.5, 0.75)),
    "threshold": ({"alpha": 0.25}, lambda x: torch.clamp(x, min=0.25)),
    "elu": ({"alpha": 0.7}, lambda x: F.elu(x, 0.7)),
    "leaky_relu": ({"alpha": 0.1}, lambda x: F.leaky_relu(x, 0.1)),
    "clamped_relu": ({"alpha": 0.1, "beta": 0.5}, lambda x: torch.clamp(F.leaky_relu(x, 0.1), max=0.5)),
    "thresholded_relu": ({"alpha": 0.3}, lambda x: torch.where(x >= 0.3, x, 0.0)),
    "sigmoid_hard": ({"alpha": 0.3, "beta": 0.4}, lambda x: torch.clamp(0.3 * x + 0.4, 0, 1)),
    "scaled_tanh": ({"alpha": 1.5, "beta": 0.5}, lambda x: 1.5 * torch.tanh(0.5 * x)),
    "linear_activation": ({"alpha": 1.5, "beta": 0.5}, lambda x: 1.5 * x + 0.5),
}


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("kind", ["float32", "int32"])
def test_binary_operations(name: str, kind: str) -> None:
    make = floats if kind == "float32" else integers
    x, y = make(3, 4, seed=1), make(3, 4, seed=2)
    y[0] = x[0]  # some are equal
    y = np.where(y == 0, np.ones_like(y), y)
    expected = BINARY[name](torch.from_numpy(x), torch.from_numpy(y))
    if kind == "int32" and name == "real_div":
        expected = expected.trunc()  # the program declares integers
    same(one(lambda x, y: getattr(mb, name)(x=x, y=y), x=x, y=y), expected)


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_shapes_are_broadcast(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    other = [data.draw(st.sampled_from([1, size])) for size in shape][data.draw(st.integers(0, len(shape) - 1)) :]
    x, y = floats(*shape, seed=1), floats(*other, seed=2)
    name = data.draw(st.sampled_from(["add", "mul", "maximum", "less"]))
    x, y = (x, y) if data.draw(st.booleans()) else (y, x)
    expected = BINARY[name](torch.from_numpy(x), torch.from_numpy(y))
    same(one(lambda x, y: getattr(mb, name)(x=x, y=y), x=x, y=y), expected)


def test_power() -> None:
    x, y = floats(3, 4, low=0.1), floats(4, seed=2)
    same(one(lambda x, y: mb.pow(x=x, y=y), x=x, y=y), torch.pow(torch.from_numpy(x), torch.from_numpy(y)))


@pytest.mark.parametrize("name", ["logical_and", "logical_or", "logical_xor"])
def test_logic(name: str) -> None:
    x, y = integers(3, 4, low=0, high=2), integers(3, 4, low=0, high=2, seed=1)

    def build(x: Any, y: Any) -> Any:
        return getattr(mb, name)(x=mb.cast(x=x, dtype="bool"), y=mb.cast(x=y, dtype="bool"))

    same(one(build, x=x, y=y), getattr(torch, name)(torch.from_numpy(x), torch.from_numpy(y)))


def test_logical_not_and_select() -> None:
    x, a, b = integers(3, 4, low=0, high=2), floats(3, 4), floats(3, 4, seed=1)

    def build(x: Any, a: Any, b: Any) -> Any:
        return mb.select(cond=mb.logical_not(x=mb.cast(x=x, dtype="bool")), a=a, b=b)

    same(one(build, x=x, a=a, b=b), np.where(x == 0, a, b))


@pytest.mark.parametrize("name", UNARY)
def test_unary_operations(name: str) -> None:
    x = floats(4, 5, low=-4, high=4)
    x[0, :3] = [0.0, 0.5, 1.5]  # halves are rounded to even
    same(one(lambda x: getattr(mb, name)(x=x), x=x), UNARY[name](torch.from_numpy(x)))


@pytest.mark.parametrize("name", ["acos", "asin", "atanh"])
def test_functions_of_what_is_below_one(name: str) -> None:
    x = floats(4, 5, low=-0.95, high=0.95)
    same(one(lambda x: getattr(mb, name)(x=x), x=x), getattr(torch, name)(torch.from_numpy(x)))


@pytest.mark.parametrize(
    ("name", "reference"),
    [("sqrt", torch.sqrt), ("log", torch.log), ("rsqrt", torch.rsqrt), ("inverse", lambda x: 1 / (x + 1e-4))],
)
def test_functions_of_what_is_positive(name: str, reference: Callable[..., Any]) -> None:
    x = floats(4, 5, low=0.01, high=9)
    same(one(lambda x: getattr(mb, name)(x=x), x=x), reference(torch.from_numpy(x)))


@pytest.mark.parametrize("name", ["log", "rsqrt", "inverse"])
def test_epsilons_are_added(name: str) -> None:
    x = np.zeros((3,), np.float32)
    expected = {"log": np.log(0.5), "rsqrt": 0.5**-0.5, "inverse": 2.0}[name]
    same(one(lambda x: getattr(mb, name)(x=x, epsilon=0.5), x=x), np.full(3, expected))


@pytest.mark.parametrize("name", WITH_PARAMETERS)
def test_operations_with_parameters(name: str) -> None:
    parameters, reference = WITH_PARAMETERS[name]
    x = floats(4, 5)
    same(one(lambda x: getattr(mb, name)(x=x, **parameters), x=x), reference(torch.from_numpy(x)))


@pytest.mark.parametrize("mode", ["TANH_APPROXIMATION", "SIGMOID_APPROXIMATION"])
def test_approximate_gelu(mode: str) -> None:
    x = floats(4, 5)
    tensor = torch.from_numpy(x)
    expected = F.gelu(tensor, approximate="tanh") if mode.startswith("TANH") else tensor * torch.sigmoid(1.702 * tensor)
    same(one(lambda x: mb.gelu(x=x, mode=mode), x=x), expected)


def test_parameters_by_channel() -> None:
    x, alpha, beta = floats(2, 3, 4, 5), floats(3, low=0.1), floats(3, low=0.1, seed=1)
    tensor, a, b = (torch.from_numpy(each) for each in (x, alpha, beta))
    same(one(lambda x: mb.prelu(x=x, alpha=alpha), x=x), F.prelu(tensor, a))
    a, b = a.reshape(1, 3, 1, 1), b.reshape(1, 3, 1, 1)
    same(one(lambda x: mb.softplus_parametric(x=x, alpha=alpha, beta=beta), x=x), a * F.softplus(b * tensor))


@given(rank=st.integers(1, 4), data=st.data())
@settings(max_examples=20, deadline=None)
def test_softmax_along_any_axis(rank: int, data: st.DataObject) -> None:
    x = floats(*range(2, 2 + rank), low=-50, high=50)
    axis = data.draw(st.integers(-rank, rank - 1))
    same(one(lambda x: mb.softmax(x=x, axis=axis), x=x), torch.softmax(torch.from_numpy(x), axis))


def test_erf_is_exact_to_float32() -> None:
    x = np.linspace(-6, 6, 20001).astype(np.float32)
    produced = one(lambda x: mb.erf(x=x), x=x)
    np.testing.assert_allclose(produced, torch.erf(torch.from_numpy(x).double()).numpy(), rtol=0, atol=1.2e-7)
    small = (np.logspace(-30, -2, 200)).astype(np.float32)
    np.testing.assert_allclose(one(lambda x: mb.erf(x=x), x=small), torch.erf(torch.from_numpy(small)), rtol=3e-7)


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        ("int32", [-1.75, -0.5, 0.0, 0.5, 1.75]),
        ("bool", [-1.75, 0.0, 0.25]),
        ("fp16", [1 / 3, 65504.0, 1e-8]),
        ("uint8", [0.0, 7.9, 255.0]),
        ("int16", [-300.7, 300.7]),
    ],
)
def test_casts(dtype: str, values: list[float]) -> None:
    x = np.array(values, np.float32)
    kind = {"fp16": np.float16}.get(dtype) or np.dtype(dtype)
    same(one(lambda x: mb.cast(x=x, dtype=dtype), x=x), x.astype(kind))

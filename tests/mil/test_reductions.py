"""Reductions, sums so far and sorting, beside torch."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.mil.programs import evaluate, floats, integers, mb, one, same

REDUCTIONS: dict[str, Callable[..., Any]] = {
    "reduce_sum": torch.sum,
    "reduce_mean": torch.mean,
    "reduce_max": torch.amax,
    "reduce_min": torch.amin,
    "reduce_l1_norm": lambda x, dim, keepdim: x.abs().sum(dim, keepdim),
    "reduce_l2_norm": lambda x, dim, keepdim: x.square().sum(dim, keepdim).sqrt(),
    "reduce_log_sum": lambda x, dim, keepdim: x.sum(dim, keepdim).log(),
    "reduce_log_sum_exp": torch.logsumexp,
    "reduce_sum_square": lambda x, dim, keepdim: x.square().sum(dim, keepdim),
}


@pytest.mark.parametrize("name", REDUCTIONS)
@given(data=st.data())
@settings(max_examples=8, deadline=None)
def test_reductions_along_any_axes(name: str, data: st.DataObject) -> None:
    rank = data.draw(st.integers(1, 4))
    x = floats(*range(2, 2 + rank), low=0.1, high=3)
    axes = data.draw(st.lists(st.integers(0, rank - 1), min_size=1, max_size=rank, unique=True))
    axes = [axis - rank if data.draw(st.booleans()) else axis for axis in axes]
    keep = data.draw(st.booleans())
    produced = one(lambda x: getattr(mb, name)(x=x, axes=axes, keep_dims=keep), x=x)
    same(np.asarray(produced), REDUCTIONS[name](torch.from_numpy(x), dim=axes, keepdim=keep))


def test_reductions_of_everything() -> None:
    x = floats(2, 3, low=0.5)
    same(one(lambda x: mb.reduce_prod(x=x), x=x), np.prod(x))
    same(one(lambda x: mb.reduce_sum(x=x, keep_dims=True), x=x), np.full((1, 1), x.sum()))
    same(one(lambda x: mb.reduce_prod(x=x, axes=[-1], keep_dims=False), x=x), torch.from_numpy(x).prod(-1))


def test_the_logarithm_of_a_sum_of_large_exponentials_is_finite() -> None:
    x = np.array([[1000.0, 1000.0], [-1000.0, -1001.0]], np.float32)
    same(one(lambda x: mb.reduce_log_sum_exp(x=x, axes=[1]), x=x), torch.logsumexp(torch.from_numpy(x), 1))


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("keep", [False, True])
def test_the_place_of_the_largest_and_smallest(axis: int, keep: bool) -> None:
    x = floats(3, 4)
    for name in ("argmax", "argmin"):
        produced = one(lambda x, n=name: getattr(mb, f"reduce_{n}")(x=x, axis=axis, keep_dims=keep), x=x)
        assert produced.dtype == np.int32
        same(produced, getattr(torch, name)(torch.from_numpy(x), axis, keepdim=keep))


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("kind", ["float32", "int32"])
def test_sums_so_far(axis: int, kind: str) -> None:
    x = (floats if kind == "float32" else integers)(3, 4)
    sums = torch.cumsum(torch.from_numpy(x), axis, dtype=torch.from_numpy(x).dtype)
    same(one(lambda x: mb.cumsum(x=x, axis=axis), x=x), sums)
    same(one(lambda x: mb.cumsum(x=x, axis=axis, exclusive=True), x=x), sums - torch.from_numpy(x))
    backwards = torch.cumsum(torch.from_numpy(x).flip(axis), axis, dtype=sums.dtype).flip(axis)
    same(one(lambda x: mb.cumsum(x=x, axis=axis, reverse=True), x=x), backwards)


@pytest.mark.parametrize("ascending", [False, True])
@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize("ios", [15, 16, 17])
def test_sorting(ascending: bool, axis: int, ios: int) -> None:
    x = floats(4, 5)
    tensor = torch.from_numpy(x)
    values, indices = evaluate(lambda x: mb.topk(x=x, k=3, axis=axis, ascending=ascending), x=x, ios=ios)
    expected = torch.topk(tensor, 3, axis, largest=not ascending)
    same(values, expected.values)
    same(indices, expected.indices)
    order = torch.argsort(tensor, axis, descending=not ascending)
    same(one(lambda x: mb.argsort(x=x, axis=axis, ascending=ascending), x=x, ios=ios), order)


def test_equals_stay_in_order() -> None:
    x = np.array([1, 2, 2, 1, 2], np.float32)
    same(one(lambda x: mb.argsort(x=x), x=x), [1, 2, 4, 0, 3])
    same(one(lambda x: mb.argsort(x=x, ascending=True), x=x), [0, 3, 1, 2, 4])

"""Reading and writing at indices, beside torch and Python's own slices."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.mil.failures import MilError
from tests.mil.programs import floats, integers, mb, one, same


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -3])
@pytest.mark.parametrize("ios", [15, 16, 17])
def test_gather(axis: int, ios: int) -> None:
    x, indices = floats(3, 4, 5), integers(2, 2, low=0, high=3)
    expected = np.take(x, indices, axis)
    reference = torch.index_select(torch.from_numpy(x), axis, torch.from_numpy(indices).reshape(-1))
    np.testing.assert_array_equal(expected.reshape(-1), np.moveaxis(reference.numpy(), axis, axis).reshape(-1))
    same(one(lambda x, i: mb.gather(x=x, indices=i, axis=axis), x=x, i=indices, ios=ios), expected)


def test_gather_in_batches() -> None:
    x, indices = floats(2, 4, 5), integers(2, 3, low=0, high=4)
    expected = torch.stack([torch.from_numpy(x)[b][torch.from_numpy(indices).long()[b]] for b in range(2)])
    same(one(lambda x, i: mb.gather(x=x, indices=i, axis=1, batch_dims=1), x=x, i=indices, ios=16), expected)


def test_a_row_of_a_float16_table() -> None:
    table = floats(50, 8).astype(np.float16)
    indices = integers(3, low=0, high=50)
    produced = one(lambda i: mb.gather(x=table, indices=i, axis=0), i=indices)
    assert produced.dtype == np.float16
    np.testing.assert_array_equal(produced, table[indices])
    widened = one(lambda i: mb.gather(x=table, indices=i, axis=0), i=indices, precision="fp32")
    assert widened.dtype == np.float32


def test_indices_from_the_end_and_out_of_bounds() -> None:
    x = floats(4, 2)
    same(one(lambda x, i: mb.gather(x=x, indices=i, axis=0), x=x, i=np.array([-1], np.int32), ios=15), x[-1:])
    with pytest.raises(MilError, match=r"'gather' \(operation \d+ of function 'main'.*out of bounds for 4"):
        one(lambda x, i: mb.gather(x=x, indices=i, axis=0), x=x, i=np.array([4], np.int32))


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_gather_and_scatter_along_an_axis(axis: int) -> None:
    x, indices, updates = floats(3, 4), integers(3, 4, low=0, high=3), floats(3, 4, seed=1)
    tensor, places, given_updates = torch.from_numpy(x), torch.from_numpy(indices).long(), torch.from_numpy(updates)
    same(
        one(lambda x, i: mb.gather_along_axis(x=x, indices=i, axis=axis), x=x, i=indices),
        torch.gather(tensor, axis, places),
    )

    def build(x: Any, i: Any, u: Any) -> Any:
        return mb.scatter_along_axis(data=x, indices=i, updates=u, axis=axis, mode="add")

    same(one(build, x=x, i=indices, u=updates), tensor.scatter_add(axis, places, given_updates))


@pytest.mark.parametrize(
    ("mode", "reduce"), [("add", "sum"), ("mul", "prod"), ("max", "amax"), ("min", "amin"), ("update", None)]
)
def test_scatter(mode: str, reduce: str | None) -> None:
    data, updates, indices = floats(5, 3), floats(4, 3, seed=1), np.array([3, 0, 4, 1], np.int32)
    tensor, places = torch.from_numpy(data), torch.from_numpy(indices).long()[:, None].expand(4, 3)
    if reduce:
        expected = tensor.scatter_reduce(0, places, torch.from_numpy(updates), reduce)
    else:
        expected = tensor.scatter(0, places, torch.from_numpy(updates))

    def build(d: Any, i: Any, u: Any) -> Any:
        return mb.scatter(data=d, indices=i, updates=u, axis=0, mode=mode)

    same(one(build, d=data, i=indices, u=updates), expected)


@pytest.mark.parametrize(("mode", "sign"), [("sub", -1), ("add", 1)])
def test_scatter_counts_what_comes_twice(mode: str, sign: int) -> None:
    def build(d: Any, u: Any) -> Any:
        return mb.scatter(data=d, indices=[1, 1], updates=u, axis=-1, mode=mode)

    data, updates = np.zeros((1, 3), np.float32), np.array([[2.0, 3.0]], np.float32)
    same(one(build, d=data, u=updates), [[0, sign * 5, 0]])


def test_scatter_divides() -> None:
    def build(d: Any, u: Any) -> Any:
        return mb.scatter(data=d, indices=[1], updates=u, axis=0, mode="div")

    same(one(build, d=np.array([6.0, 8.0], np.float32), u=np.array([4.0], np.float32)), [6, 2])


def test_gather_and_scatter_at_vectors() -> None:
    x, indices = floats(3, 4, 2), np.array([[0, 1], [2, 3]], np.int32)
    same(one(lambda x, i: mb.gather_nd(x=x, indices=i), x=x, i=indices), torch.from_numpy(x)[[0, 2], [1, 3]])
    batched = np.array([[[1]], [[3]], [[0]]], np.int32)
    expected = np.stack([x[b][batched[b, :, 0]] for b in range(3)])
    same(one(lambda x, i: mb.gather_nd(x=x, indices=i, batch_dims=1), x=x, i=batched), expected)
    updates = floats(2, 2, seed=1)

    def build(x: Any, i: Any, u: Any) -> Any:
        return mb.scatter_nd(data=x, indices=i, updates=u, mode="update")

    written = torch.from_numpy(x).index_put((torch.tensor([0, 2]), torch.tensor([1, 3])), torch.from_numpy(updates))
    same(one(build, x=x, i=indices, u=updates), written)


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_slices_are_those_of_python(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 6))
    x = np.arange(size * 3, dtype=np.float32).reshape(size, 3)
    first, last = data.draw(st.integers(-size, size - 1)), data.draw(st.integers(-size, size))
    stride = data.draw(st.sampled_from([-2, -1, 1, 2, 3]))
    open_first, open_last = data.draw(st.booleans()), data.draw(st.booleans())
    rows = list(range(size))[None if open_first else first : None if open_last else last : stride]
    if not rows:
        return  # Core ML has no empty tensors

    def build(x: Any) -> Any:
        return mb.slice_by_index(
            x=x, begin=[first, 0], end=[last, 2], stride=[stride, 1], begin_mask=[open_first, False],
            end_mask=[open_last, False],
        )  # fmt: skip

    try:
        produced = one(build, x=x)
    except ValueError:  # coremltools' own rules for begin and end are stricter than Python's
        return
    same(produced, [[x[row, 0], x[row, 1]] for row in rows])


def test_squeezed_slices() -> None:
    x = floats(3, 4, 5)

    def build(x: Any) -> Any:
        return mb.slice_by_index(
            x=x, begin=[-1, 1, 0], end=[0, 3, 0], squeeze_mask=[True, False, False], end_mask=[False, False, True]
        )

    same(one(build, x=x), x[-1, 1:3])


def test_slices_by_size() -> None:
    x = floats(4, 5)
    same(one(lambda x: mb.slice_by_size(x=x, begin=[1, 2], size=[2, -1]), x=x), x[1:3, 2:])


def test_slices_are_written() -> None:
    x, update = floats(4, 5), floats(2, 2, seed=1)

    def build(x: Any, u: Any) -> Any:
        return mb.slice_update(x=x, update=u, begin=[1, 0], end=[3, 4], stride=[1, 2])

    expected = torch.from_numpy(x).clone()
    expected[1:3, 0:4:2] = torch.from_numpy(update)
    same(one(build, x=x, u=update, ios=18), expected)


def test_what_is_not_zero() -> None:
    x = np.array([[0, 1, 0], [2, 0, 3]], np.float32)
    same(one(lambda x: mb.non_zero(x=x), x=x), torch.nonzero(torch.from_numpy(x)))


@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_one_hot(axis: int) -> None:
    indices = np.array([0, 2, 1], np.int32)
    expected = np.moveaxis(torch.nn.functional.one_hot(torch.from_numpy(indices).long(), 4).numpy(), -1, axis)

    def build(i: Any) -> Any:
        return mb.one_hot(indices=i, one_hot_vector_size=4, axis=axis, on_value=2.0, off_value=-1.0)

    same(one(build, i=indices), np.where(expected == 1, 2.0, -1.0))

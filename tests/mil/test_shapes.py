"""Operations on shapes and order, beside torch and numpy."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.mil.programs import evaluate, floats, integers, mb, one, same


@pytest.mark.parametrize(
    ("shape", "expected"), [([6, 4], (6, 4)), ([-1], (24,)), ([0, -1, 2], (2, 6, 2)), ([2, 1, 12], (2, 1, 12))]
)
def test_reshape(shape: list[int], expected: tuple[int, ...]) -> None:
    x = floats(2, 3, 4)
    same(one(lambda x: mb.reshape(x=x, shape=shape), x=x), x.reshape(expected))


def test_reshape_to_a_computed_shape() -> None:
    x, sizes = floats(2, 3, 4), integers(1, low=2, high=3)

    def build(x: Any, sizes: Any) -> Any:
        return mb.reshape(x=x, shape=mb.concat(values=[[4], sizes, [-1]], axis=0))

    same(one(build, x=x, sizes=sizes), x.reshape(4, 2, 3))


def test_reshape_like() -> None:
    x, like = floats(2, 12), floats(3, 4, 2)

    def build(x: Any, like: Any) -> Any:
        return mb.reshape_like(x=x, ref_tensors=(like, x), begins=[0, 0], ends=[2, 1], end_masks=[False, False])

    same(one(build, x=x, like=like, ios=17), x.reshape(3, 4, 2))


@given(rank=st.integers(1, 4), data=st.data())
@settings(max_examples=25, deadline=None)
def test_axes_come_and_go(rank: int, data: st.DataObject) -> None:
    x = floats(*range(2, 2 + rank))
    total = rank + data.draw(st.integers(1, 5 - rank)) if rank < 5 else rank
    axes = data.draw(st.lists(st.integers(0, total - 1), min_size=total - rank, max_size=total - rank, unique=True))
    signed = [axis - total if data.draw(st.booleans()) else axis for axis in axes]
    expected = np.expand_dims(x, tuple(axes))
    same(one(lambda x: mb.expand_dims(x=x, axes=signed), x=x), expected)
    same(one(lambda x: mb.squeeze(x=x, axes=signed), x=expected), x)
    same(one(lambda x: mb.squeeze(x=x), x=expected), x)


def test_squeeze_keeps_axes_that_are_not_one() -> None:
    x = floats(2, 1, 3)
    same(one(lambda x: mb.squeeze(x=x, axes=[0, 1]), x=x), x[:, 0])


@given(data=st.data())
@settings(max_examples=20, deadline=None)
def test_axes_in_another_order(data: st.DataObject) -> None:
    rank = data.draw(st.integers(1, 5))
    x = floats(*range(2, 2 + rank))
    order = data.draw(st.permutations(range(rank)))
    signed = [axis - rank if data.draw(st.booleans()) else axis for axis in order]
    same(one(lambda x: mb.transpose(x=x, perm=signed), x=x), torch.from_numpy(x).permute(list(order)))


@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_parts_and_wholes(data: st.DataObject) -> None:
    rank = data.draw(st.integers(1, 4))
    axis = data.draw(st.integers(0, rank - 1))
    sizes = data.draw(st.lists(st.integers(1, 3), min_size=2, max_size=4))
    shape = [2] * rank
    shape[axis] = sum(sizes)
    signed = axis - rank if data.draw(st.booleans()) else axis
    x = floats(*shape)
    parts = evaluate(lambda x: mb.split(x=x, split_sizes=sizes, axis=signed), x=x)
    expected = torch.split(torch.from_numpy(x), sizes, axis)
    for part, reference in zip(parts, expected, strict=True):
        same(part, reference)

    def build(x: Any) -> Any:
        return mb.concat(values=mb.split(x=x, split_sizes=sizes, axis=signed), axis=signed)

    same(one(build, x=x), x)


def test_equal_parts_stacks_and_turns() -> None:
    x, y = floats(2, 6), floats(2, 6, seed=1)
    for part, reference in zip(
        evaluate(lambda x: mb.split(x=x, num_splits=3, axis=1), x=x), np.split(x, 3, 1), strict=True
    ):
        same(part, reference)
    for axis in (0, 1, 2, -1, -2):
        expected = torch.stack([torch.from_numpy(x), torch.from_numpy(y)], axis)
        same(one(lambda x, y, a=axis: mb.stack(values=[x, y], axis=a), x=x, y=y), expected)
    turns = np.stack([x, y], 1).reshape(4, 6)[[0, 1, 2, 3]]
    same(one(lambda x, y: mb.concat(values=[x, y], axis=0, interleave=True), x=x, y=y), turns)
    same(one(lambda x: mb.concat(values=[x], axis=0), x=x), x)


def test_repeats_and_reversals() -> None:
    x = floats(2, 3)
    same(one(lambda x: mb.tile(x=x, reps=[2, 3]), x=x), torch.from_numpy(x).repeat(2, 3))
    same(one(lambda x: mb.reverse(x=x, axes=[-1]), x=x), torch.from_numpy(x).flip(1))
    same(one(lambda x: mb.reverse(x=x), x=x), torch.from_numpy(x).flip(0, 1))
    same(one(lambda x: mb.flatten2d(x=x, axis=1), x=floats(2, 3, 4)), floats(2, 3, 4).reshape(2, 12))
    same(one(lambda x: mb.shape(x=x), x=x), [2, 3])
    same(one(lambda x: mb.identity(x=x, name="copy"), x=x), x)


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate"])
def test_padding(mode: str) -> None:
    x = floats(1, 2, 4, 5)
    expected = F.pad(torch.from_numpy(x), (1, 2, 3, 0), mode=mode, **({"value": 0.5} if mode == "constant" else {}))
    value = {"constant_val": 0.5} if mode == "constant" else {}
    same(one(lambda x: mb.pad(x=x, pad=[3, 0, 1, 2], mode=mode, **value), x=x), expected)


def test_channels_and_pixels() -> None:
    x, wide = floats(2, 8, 3, 5), floats(2, 2, 6, 10)
    same(one(lambda x: mb.pixel_shuffle(x=x, upscale_factor=2), x=x), F.pixel_shuffle(torch.from_numpy(x), 2))
    unshuffled = F.pixel_unshuffle(torch.from_numpy(wide), 2)
    same(one(lambda x: mb.pixel_unshuffle(x=x, downscale_factor=np.uint32(2)), x=wide), unshuffled)

    def there_and_back(x: Any) -> Any:
        return mb.space_to_depth(x=mb.depth_to_space(x=x, block_size=2), block_size=2)

    same(one(there_and_back, x=x), x)
    spread = one(lambda x: mb.depth_to_space(x=x, block_size=2), x=x)
    same(spread[:, :, 0, 1], x[:, 2:4, 0, 0])  # the block's place is the slowest part of the channel


def test_windows() -> None:
    x = floats(2, 9, 3)
    expected = torch.from_numpy(x).unfold(1, 3, 2).movedim(-1, 2)
    same(one(lambda x: mb.sliding_windows(x=x, axis=1, size=3, stride=2), x=x), expected)
    same(one(lambda x: mb.sliding_windows(x=x, axis=-2, size=3, stride=2), x=x), expected)


def test_bands_ranges_and_fillings() -> None:
    x = floats(2, 4, 5)
    tensor = torch.from_numpy(x)
    same(one(lambda x: mb.band_part(x=x, lower=0, upper=-1), x=x), tensor.triu())
    same(one(lambda x: mb.band_part(x=x, lower=-1, upper=0), x=x), tensor.tril())
    same(one(lambda x: mb.band_part(x=x, lower=1, upper=2), x=x), tensor.triu(-1).tril(2))
    n = np.array([7], np.int32)
    counted = one(lambda n: mb.range_1d(start=1, end=mb.squeeze(x=n), step=2), n=n)
    same(counted, [1, 3, 5])
    same(one(lambda n: mb.fill(shape=n, value=2.5), n=n), np.full(7, 2.5))
    same(one(lambda x: mb.fill_like(ref_tensor=x, value=1.5), x=x), np.full((2, 4, 5), 1.5))


def test_integers_keep_their_type() -> None:
    x = integers(2, 3)
    produced = one(lambda x: mb.transpose(x=x, perm=[1, 0]), x=x)
    assert produced.dtype == np.int32
    same(produced, x.T)

"""Matrix products, attention, convolutions, pooling and norms, beside torch."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.mil.programs import floats, integers, mb, one, same

CLOSE = {"relative": 1e-4, "absolute": 1e-5}


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_matrix_products(data: st.DataObject) -> None:
    lead = data.draw(st.lists(st.integers(1, 3), max_size=3))
    other = [data.draw(st.sampled_from([1, size])) for size in lead]
    m, k, n = (data.draw(st.integers(1, 4)) for _ in range(3))
    x, y = floats(*lead, m, k), floats(*other, k, n, seed=1)
    transpose_x, transpose_y = data.draw(st.booleans()), data.draw(st.booleans())

    def build(x: Any, y: Any) -> Any:
        return mb.matmul(x=x, y=y, transpose_x=transpose_x, transpose_y=transpose_y)

    expected = torch.matmul(torch.from_numpy(x), torch.from_numpy(y))
    given_x = np.swapaxes(x, -1, -2).copy() if transpose_x else x
    given_y = np.swapaxes(y, -1, -2).copy() if transpose_y else y
    same(one(build, x=given_x, y=given_y), expected, **CLOSE)


@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 3, 4)])
@pytest.mark.parametrize("biased", [True, False])
def test_linear(shape: tuple[int, ...], biased: bool) -> None:
    x, weight, bias = floats(*shape), floats(5, 4, seed=1), floats(5, seed=2) if biased else None

    def build(x: Any) -> Any:
        return mb.linear(x=x, weight=weight, **({"bias": bias} if biased else {}))

    tensors = [None if each is None else torch.from_numpy(each) for each in (x, weight, bias)]
    same(one(build, x=x), F.linear(*tensors), **CLOSE)


def test_products_of_integers() -> None:
    x, y = integers(3, 4), integers(4, 2, seed=1)
    produced = one(lambda x, y: mb.matmul(x=x, y=y), x=x, y=y)
    assert produced.dtype == np.int32
    same(produced, torch.from_numpy(x) @ torch.from_numpy(y))


def test_products_of_float16_are_summed_in_float32() -> None:
    """A sum of 4096 ones of float16 stops at 2048 in float16."""
    x, weight = np.ones((1, 4096), np.float16), np.ones((1, 4096), np.float16)
    assert one(lambda x: mb.linear(x=x, weight=weight), x=x) == 4096
    overflowing = np.full((1, 4096), 60000, np.float16)
    assert np.isposinf(one(lambda x: mb.linear(x=x, weight=weight), x=overflowing))
    assert one(lambda x: mb.linear(x=x, weight=weight), x=overflowing, precision="fp32") == 4096 * 60000


@pytest.mark.parametrize("equation", ["nchw,nwhu->nchu", "chw,whr->chr"])
def test_einsum(equation: str) -> None:
    lead = (2,) if equation.startswith("n") else ()
    x, y = floats(*lead, 3, 4, 5), floats(*lead, 5, 4, 6, seed=1)
    expected = torch.einsum(equation, torch.from_numpy(x), torch.from_numpy(y))
    same(one(lambda x, y: mb.einsum(values=(x, y), equation=equation), x=x, y=y), expected, **CLOSE)


@pytest.mark.parametrize("mask", [None, "float", "bool"])
def test_attention(mask: str | None) -> None:
    query, key, value = floats(2, 3, 4, 8), floats(2, 3, 5, 8, seed=1), floats(2, 3, 5, 6, seed=2)
    tensors = [torch.from_numpy(each) for each in (query, key, value)]
    attended = integers(1, 1, 4, 5, low=0, high=2)
    attended[..., 0] = 1
    scores = floats(1, 1, 4, 5, seed=3)
    given_mask = {"float": torch.from_numpy(scores), "bool": torch.from_numpy(attended).bool()}.get(mask or "")

    def build(q: Any, k: Any, v: Any, a: Any, s: Any) -> Any:
        chosen = {"float": s, "bool": mb.cast(x=a, dtype="bool")}.get(mask or "")
        return mb.scaled_dot_product_attention(
            query=q, key=k, value=v, **({"attn_mask": chosen} if chosen is not None else {})
        )

    produced = one(build, q=query, k=key, v=value, a=attended, s=scores, ios=18)
    same(produced, F.scaled_dot_product_attention(*tensors, attn_mask=given_mask), **CLOSE)


@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_convolutions(data: st.DataObject) -> None:
    axes = data.draw(st.integers(1, 3))
    groups = data.draw(st.sampled_from([1, 2]))
    kernel = [data.draw(st.integers(1, 3)) for _ in range(axes)]
    strides = [data.draw(st.integers(1, 2)) for _ in range(axes)]
    dilations = [data.draw(st.integers(1, 2)) for _ in range(axes)]
    pads = [data.draw(st.integers(0, 2)) for _ in range(axes)]
    x = floats(2, 4, *([7] * axes))
    weight, bias = floats(6, 4 // groups, *kernel, seed=1), floats(6, seed=2)
    convolve = (F.conv1d, F.conv2d, F.conv3d)[axes - 1]
    tensors = [torch.from_numpy(each) for each in (x, weight, bias)]
    expected = convolve(*tensors, stride=strides, padding=pads, dilation=dilations, groups=groups)

    def build(x: Any) -> Any:
        return mb.conv(
            x=x, weight=weight, bias=bias, strides=strides, pad_type="custom", pad=np.repeat(pads, 2),
            dilations=dilations, groups=groups,
        )  # fmt: skip

    same(one(build, x=x), expected, **CLOSE)


@pytest.mark.parametrize(("pad_type", "before"), [("same", 0), ("same_lower", 1)])
def test_padding_to_the_same_size(pad_type: str, before: int) -> None:
    x, weight = floats(1, 1, 5), floats(1, 1, 2, seed=1)
    padded = F.pad(torch.from_numpy(x), (before, 1 - before))
    expected = F.conv1d(padded, torch.from_numpy(weight))
    same(one(lambda x: mb.conv(x=x, weight=weight, pad_type=pad_type), x=x, ios=16), expected)


@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_transposed_convolutions(data: st.DataObject) -> None:
    axes = data.draw(st.integers(1, 2))
    groups = data.draw(st.sampled_from([1, 2]))
    kernel = [data.draw(st.integers(2, 3)) for _ in range(axes)]
    strides = [data.draw(st.integers(1, 3)) for _ in range(axes)]
    dilations = [data.draw(st.integers(1, 2)) for _ in range(axes)]
    pads = [data.draw(st.integers(0, 1)) for _ in range(axes)]
    x, weight, bias = floats(2, 4, *([4] * axes)), floats(4, 3, *kernel, seed=1), floats(3 * groups, seed=2)
    convolve = (F.conv_transpose1d, F.conv_transpose2d)[axes - 1]
    tensors = [torch.from_numpy(each) for each in (x, weight, bias)]
    expected = convolve(*tensors, stride=strides, padding=pads, dilation=dilations, groups=groups)

    def build(x: Any) -> Any:
        return mb.conv_transpose(
            x=x, weight=weight, bias=bias, strides=strides, pad_type="custom", pad=np.repeat(pads, 2),
            dilations=dilations, groups=groups,
        )  # fmt: skip

    same(one(build, x=x), expected, **CLOSE)


def test_transposed_convolutions_of_other_sizes() -> None:
    x, weight = floats(1, 2, 4), floats(2, 3, 3, seed=1)
    tensors = torch.from_numpy(x), torch.from_numpy(weight)
    whole = F.conv_transpose1d(*tensors, stride=2)
    same(one(lambda x: mb.conv_transpose(x=x, weight=weight, strides=[2]), x=x), whole, **CLOSE)
    same(
        one(lambda x: mb.conv_transpose(x=x, weight=weight, strides=[2], pad_type="same"), x=x),
        whole[..., :8],
        **CLOSE,
    )


@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_pooling(data: st.DataObject) -> None:
    axes = data.draw(st.integers(1, 2))
    kernel = [data.draw(st.integers(1, 3)) for _ in range(axes)]
    strides = [data.draw(st.integers(1, size)) for size in kernel]  # MIL counts windows beyond the end where they skip
    pads = [data.draw(st.integers(0, size // 2)) for size in kernel]
    ceil_mode = data.draw(st.booleans())
    x = floats(2, 3, *([8] * axes))
    how = {"pad_type": "custom", "pad": np.repeat(pads, 2), "ceil_mode": ceil_mode}
    largest = (F.max_pool1d, F.max_pool2d)[axes - 1]
    expected = largest(torch.from_numpy(x), kernel, strides, pads, ceil_mode=ceil_mode)
    same(one(lambda x: mb.max_pool(x=x, kernel_sizes=kernel, strides=strides, **how), x=x), expected)
    mean = (F.avg_pool1d, F.avg_pool2d)[axes - 1]
    outside = mean(torch.from_numpy(x), kernel, strides, pads, ceil_mode=ceil_mode, count_include_pad=False)

    def build(x: Any) -> Any:
        return mb.avg_pool(x=x, kernel_sizes=kernel, strides=strides, exclude_padding_from_average=True, **how)

    same(one(build, x=x), outside, **CLOSE)


def test_padding_counts_in_means() -> None:
    x = floats(1, 1, 6)
    expected = F.avg_pool1d(torch.from_numpy(x), 3, 2, 1, count_include_pad=True)
    how = {"kernel_sizes": [3], "strides": [2], "pad_type": "custom", "pad": [1, 1]}
    same(one(lambda x: mb.avg_pool(x=x, **how), x=x), expected, **CLOSE)


@pytest.mark.parametrize("axes", [[-1], [2], [1, 2], [-2, -1]])
@pytest.mark.parametrize("scaled", [True, False])
def test_layer_norm(axes: list[int], scaled: bool) -> None:
    x = floats(2, 3, 4)
    shape = x.shape[-len(axes) :]
    gamma, beta = floats(*shape, seed=1), floats(*shape, seed=2)
    given_both = {"gamma": gamma, "beta": beta} if scaled else {}
    tensors = [torch.from_numpy(each) for each in given_both.values()]

    def build(x: Any) -> Any:
        return mb.layer_norm(x=x, axes=axes, epsilon=1e-3, **given_both)

    same(one(build, x=x), F.layer_norm(torch.from_numpy(x), shape, *tensors, eps=1e-3), **CLOSE)


def test_other_norms() -> None:
    x, mean, variance = floats(2, 3, 4, 5), floats(3), floats(3, low=0.5, seed=1)
    gamma, beta = floats(3, seed=2), floats(3, seed=3)
    tensor, *parameters = (torch.from_numpy(each) for each in (x, mean, variance, gamma, beta))

    def batch_norm(x: Any) -> Any:
        return mb.batch_norm(x=x, mean=mean, variance=variance, gamma=gamma, beta=beta, epsilon=1e-3)

    same(one(batch_norm, x=x), F.batch_norm(tensor, *parameters, eps=1e-3), **CLOSE)
    expected = F.instance_norm(tensor, weight=parameters[2], bias=parameters[3], eps=1e-3)
    same(one(lambda x: mb.instance_norm(x=x, gamma=gamma, beta=beta, epsilon=1e-3), x=x), expected, **CLOSE)
    lengths = (tensor.square().sum((1, 2, 3), keepdim=True) + 1e-6).sqrt()
    same(one(lambda x: mb.l2_norm(x=x), x=x), tensor / lengths, **CLOSE)
    neighbours = F.local_response_norm(tensor, 3, alpha=0.5, beta=0.75, k=2.0)
    same(one(lambda x: mb.local_response_norm(x=x, size=3, alpha=0.5, beta=0.75, k=2.0), x=x), neighbours, **CLOSE)

"""Compressed weights in the forms of iOS 16 and iOS 18, beside coremltools' own decompression and by hand."""

from typing import Any

import numpy as np
import pytest
from coremltools.converters.mil.mil import types
from coremltools.optimize import _utils as coremltools_utils

from edgekit.mil.values import unpack_bits
from tests.mil.programs import floats, integers, mb, one, same


def with_weight(weight: Any) -> Any:
    """x + weight: a program in which a compressed weight is used."""
    return lambda x: mb.add(x=x, y=weight())


def zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


@pytest.mark.parametrize(("bits", "signed"), [*((bits, False) for bits in (1, 2, 3, 4, 6, 8)), (4, True)])
def test_packed_bits(bits: int, signed: bool) -> None:
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1)) if signed else (0, 2**bits)
    values = np.random.default_rng(bits).integers(low, high, 37).astype(np.int8 if signed else np.uint8)
    packed = coremltools_utils.pack_elements_into_bits(values, bits)
    np.testing.assert_array_equal(unpack_bits(packed, bits, (37,), signed=signed), values)


def test_packed_bits_by_hand() -> None:
    content = np.array([0b01101100, 0b00000011], np.uint8)  # the example of constexpr_lut_to_dense's documentation
    np.testing.assert_array_equal(unpack_bits(content, 2, (5,)), [0, 3, 2, 1, 3])


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_int8_by_channel(axis: int, dtype: Any) -> None:
    data = integers(4, 6, low=0, high=120).astype(dtype)
    scale, zero = floats(data.shape[axis], low=0.1), integers(data.shape[axis], low=0, high=9).astype(dtype)

    def weight() -> Any:
        return mb.constexpr_affine_dequantize(quantized_data=data, zero_point=zero, scale=scale, axis=axis)

    along = (-1, 1) if axis == 0 else (1, -1)
    expected = (data.astype(np.float32) - zero.reshape(along)) * scale.reshape(along)
    same(one(with_weight(weight), x=zeros(4, 6), ios=16), expected)


def test_int8_with_one_scale_in_float16() -> None:
    """The program declares float16 for the weight: its values are rounded to it."""
    data = integers(4, 6, low=-100, high=100).astype(np.int8)

    def build(x: Any) -> Any:
        scale, zero = np.float16(0.0123), np.int8(3)
        weight = mb.constexpr_affine_dequantize(quantized_data=data, zero_point=zero, scale=scale, axis=0)
        return mb.cast(x=weight, dtype="fp32")

    exact = (data.astype(np.float32) - 3) * np.float32(np.float16(0.0123))
    np.testing.assert_array_equal(one(lambda x: mb.add(x=x, y=build(x)), x=zeros(4, 6)), exact.astype(np.float16))
    np.testing.assert_array_equal(one(lambda x: mb.add(x=x, y=build(x)), x=zeros(4, 6), precision="fp32"), exact)


@pytest.mark.parametrize("bits", [1, 2, 4, 6, 8])
def test_a_palette_of_ios16(bits: int) -> None:
    lut, indices = floats(2**bits), np.random.default_rng(1).integers(0, 2**bits, (5, 7)).astype(np.uint8)
    packed = coremltools_utils.pack_elements_into_bits(indices, bits)

    def weight() -> Any:
        return mb.constexpr_lut_to_dense(indices=packed, lut=lut, shape=np.uint32([5, 7]))

    same(one(with_weight(weight), x=zeros(5, 7), ios=16), lut[indices])


def test_sparse_weights_of_ios16() -> None:
    dense = np.where(integers(5, 7, low=0, high=2) == 1, floats(5, 7), 0)
    mask = np.packbits(dense.reshape(-1) != 0, bitorder="little")

    def weight() -> Any:
        return mb.constexpr_sparse_to_dense(nonzero_data=dense[dense != 0], mask=mask, shape=np.uint32([5, 7]))

    same(one(with_weight(weight), x=zeros(5, 7), ios=16), dense)


def sub_byte(values: np.ndarray, name: str) -> np.ndarray:
    return values.astype(types.nptype_from_builtin(types.string_to_builtin(name)))


@pytest.mark.parametrize("kind", ["int4", "uint4", "int8"])
@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("blocks", [(4, 2), (2, 4), (1, 1)])
def test_blocks_of_ios18(kind: str, shifted: bool, blocks: tuple[int, int]) -> None:
    low, high = (0, 16) if kind == "uint4" else (-8, 8)
    raw, scale = integers(4, 8, low=low, high=high), floats(*blocks, low=0.1)
    shift = integers(*blocks, low=0, high=4, seed=1)
    given = {"offset": sub_byte(shift, kind)} if shifted else {}

    def weight() -> Any:
        return mb.constexpr_blockwise_shift_scale(data=sub_byte(raw, kind), scale=scale, **given)

    expected = np.zeros((4, 8), np.float32)
    for row in range(4):
        for column in range(8):
            block = row * blocks[0] // 4, column * blocks[1] // 8
            expected[row, column] = (raw[row, column] - (shift[block] if shifted else 0)) * scale[block]
    same(one(with_weight(weight), x=zeros(4, 8), ios=18), expected)


@pytest.mark.parametrize(("bits", "blocks"), [(1, (1, 1)), (2, (2, 1)), (3, (1, 1)), (4, (4, 2)), (6, (1, 2))])
def test_palettes_of_ios18(bits: int, blocks: tuple[int, int]) -> None:
    indices = np.random.default_rng(1).integers(0, 2**bits, (4, 6))
    lut = floats(*blocks, 2**bits, 1)

    def weight() -> Any:
        return mb.constexpr_lut_to_dense(indices=sub_byte(indices, f"uint{bits}"), lut=lut)

    expected = np.zeros((4, 6), np.float32)
    for row in range(4):
        for column in range(6):
            block = row * blocks[0] // 4, column * blocks[1] // 6
            expected[row, column] = lut[(*block, indices[row, column], 0)]
    same(one(with_weight(weight), x=zeros(4, 6), ios=18), expected)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_palettes_of_vectors(axis: int) -> None:
    indices, lut = np.random.default_rng(1).integers(0, 4, (4, 6)), floats(1, 1, 4, 3)
    shape = [4, 6]
    shape[axis] *= 3

    def weight() -> Any:
        return mb.constexpr_lut_to_dense(indices=sub_byte(indices, "uint2"), lut=lut, vector_axis=axis)

    expected = coremltools_utils.lut_to_dense(indices, lut, axis)
    same(one(with_weight(weight), x=zeros(*shape), ios=18), expected)


def test_sparse_weights_of_ios18() -> None:
    dense = np.where(integers(5, 7, low=0, high=2) == 1, floats(5, 7), 0)

    def weight() -> Any:
        return mb.constexpr_sparse_to_dense(nonzero_data=dense[dense != 0], mask=sub_byte(dense != 0, "uint1"))

    same(one(with_weight(weight), x=zeros(5, 7), ios=18), dense)


def test_sparse_palettes() -> None:
    mask, lut = integers(4, 6, low=0, high=2), floats(2, 1, 4, 1)
    indices = np.random.default_rng(1).integers(0, 4, (4, 6))

    def weight() -> Any:
        present, values = mb.constexpr_lut_to_sparse(
            indices_mask=sub_byte(mask, "uint1"), indices_nonzero_data=sub_byte(indices[mask != 0], "uint2"), lut=lut
        )
        return mb.constexpr_sparse_to_dense(nonzero_data=values, mask=present)

    expected = np.where(mask, coremltools_utils.lut_to_dense(indices, lut), 0)
    same(one(with_weight(weight), x=zeros(4, 6), ios=18), expected)


def test_sparse_integers() -> None:
    mask, data, scale = integers(4, 6, low=0, high=2), integers(4, 6, low=-8, high=8, seed=1), floats(4, 1, low=0.1)

    def weight() -> Any:
        present, values = mb.constexpr_sparse_blockwise_shift_scale(
            data_mask=sub_byte(mask, "uint1"), nonzero_data=sub_byte(data[mask != 0], "int4"), scale=scale
        )
        return mb.constexpr_sparse_to_dense(nonzero_data=values, mask=present)

    same(one(with_weight(weight), x=zeros(4, 6), ios=18), np.where(mask, data * scale, 0))


def test_palettes_of_scaled_integers() -> None:
    """Joint compression: the palette's own values are int8 with a scale."""
    indices, palette = np.random.default_rng(1).integers(0, 4, (4, 6)), integers(1, 1, 4, 1)
    scale = floats(4, 1, low=0.1)

    def weight() -> Any:
        values = mb.constexpr_lut_to_dense(indices=sub_byte(indices, "uint2"), lut=palette.astype(np.int8))
        return mb.constexpr_blockwise_shift_scale(data=values, scale=scale)

    same(one(with_weight(weight), x=zeros(4, 6), ios=18), palette.reshape(-1)[indices] * scale)


def test_casts_of_weights() -> None:
    source = floats(4, 6).astype(np.float16)

    def weight() -> Any:
        return mb.constexpr_cast(source_val=source, output_dtype="fp32")

    same(one(with_weight(weight), x=zeros(4, 6), ios=16), source.astype(np.float32))


@pytest.mark.parametrize("axis", [None, 0, 1])
def test_activations_in_integers(axis: int | None) -> None:
    x = floats(4, 6)
    count = () if axis is None else (x.shape[axis],)
    scale, zero = floats(*count, low=0.005, high=0.02), np.full(count, 3, np.int8)
    how = {} if axis is None else {"axis": axis}

    def build(x: Any) -> Any:
        quantized = mb.quantize(input=x, scale=scale, zero_point=zero, output_dtype="int8", **how)
        return mb.dequantize(input=quantized, scale=scale, zero_point=zero, **how)

    along = {None: scale, 0: scale.reshape(-1, 1), 1: scale}[axis]
    expected = (np.clip(np.round(x / along) + 3, -128, 127) - 3) * along
    same(one(build, x=x), expected)

"""What integers do to numbers, in numpy: the one definition that both frameworks' fake quantization is tested against.

Measured on ai-edge-quantizer 0.10 (weights: equal to the last bit) and on XNNPACK in ai-edge-litert 2.3 (activations:
products of a layer equal to 1e-6). Fake quantization gives float32 numbers again: those the integers stand for.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
QatScheme = Literal["int8", "int4-weight"]

#: int4 weights share a scale in blocks of this many inputs; rows of another width have one scale
BLOCK = 32
#: largest integer of a weight; scales are symmetric, so that the smallest is its negative
LARGEST = {"int8": 127, "int4-weight": 7}
#: a smaller largest weight has the scale of this one, as ai-edge-quantizer has it
SMALLEST_BOUND = 1e-9
LOW, HIGH = -128, 127  # int8 activations
#: a masked score at this distance below every real one weighs less than one step of an int8 softmax (e^-8 < 1/512)
MASK_MARGIN = 8.0


def scale_shape(name: str, shape: tuple[int, ...], scheme: QatScheme) -> tuple[int, int]:
    """Rows and columns that share one scale in a weight [out, in] (or table [vocab, width]) of this name."""
    if scheme == "int4-weight":
        return 1, BLOCK if shape[1] % BLOCK == 0 else shape[1]
    return (shape[0] if name.startswith("embed.tokens") else 1), shape[1]


def quantizes_weight(name: str) -> bool:
    """Whether a weight of this neutral name is stored in integers: matrices of products, and the token table."""
    return name.endswith(".weight") and "norm." not in name and name != "embed.positions.weight"


def folded_norm(name: str) -> str | None:
    """Return the norm whose weight litert-torch 0.10 multiplies into this weight before it is quantized, if any."""
    block, _, leaf = name.removesuffix(".weight").partition(".attention.")
    if leaf in ("query", "key", "value"):
        return f"{block}.attention_norm"
    return name.replace("ffn.up.weight", "ffn_norm") if name.endswith("ffn.up.weight") else None


def folded_number(name: str, head_dim: int) -> float:
    """Return the number that converters multiply into this weight: the scale of attention, into the query's."""
    return float(head_dim**-0.5) if name.endswith("attention.query.weight") else 1.0


def fake_quantize_weight(name: str, weight: Floats, scheme: QatScheme) -> Floats:
    """Return what a weight [out, in] is once stored: round(w / scale) · scale, half to even.

    scale = max|w| / 127 for each row (the token table: one), in int4 max|w| / 7 for each block. Scales of blocks are
    rounded to bfloat16's 8 bits, then stored in float16.
    """
    rows, columns = scale_shape(name, weight.shape, scheme)
    blocks = weight.reshape(weight.shape[0] // rows, rows, weight.shape[1] // columns, columns)
    bound = np.maximum(np.abs(blocks).max((1, 3), keepdims=True), np.float32(SMALLEST_BOUND))
    scale = bound / np.float32(LARGEST[scheme])
    if scheme == "int4-weight" and columns == BLOCK:
        scale = _to_bfloat16(scale).astype(np.float16).astype(np.float32)
    divisor = np.where(scale == 0, np.float32(1), scale)  # float16 has no scale this small: the block becomes 0
    integers = np.clip(np.rint(blocks / divisor), -LARGEST[scheme], LARGEST[scheme])
    return (integers * scale).reshape(weight.shape).astype(np.float32)


def fake_quantize_rows(x: Floats) -> Floats:
    """Return x [..., width] as int4-weight's products see it: int8, each row with its own range as it comes.

    XNNPACK's arithmetic: 0 is in the range, the zero point is that of the end with the smaller error.
    """
    low, high = np.minimum(x.min(-1, keepdims=True), 0), np.maximum(x.max(-1, keepdims=True), 0)
    inverse = np.where(high > low, np.float32(255) / np.where(high > low, high - low, 1), 1).astype(np.float32)
    by_low, by_high = LOW - low * inverse, HIGH - high * inverse
    nearer_low = (LOW + low * inverse) + (HIGH + high * inverse) > 0
    zero = np.rint(np.clip(np.where(nearer_low, by_low, by_high), LOW, HIGH))
    integers = np.clip(np.rint(x * inverse) + zero, LOW, HIGH)
    return ((integers - zero) * (1 / inverse)).astype(np.float32)


def fake_quantize_range(x: Floats, low: float, high: float) -> Floats:
    """Return x as an int8 tensor of the scheme int8 holds it: one asymmetric range, 0 within it, the rest cut off."""
    bottom, top = np.float32(min(low, 0)), np.float32(max(high, 0))
    scale = max(top - bottom, np.float32(SMALLEST_BOUND)) / np.float32(255)
    zero = np.rint(LOW - bottom / scale)
    return ((np.clip(np.rint(x / scale) + zero, LOW, HIGH) - zero) * scale).astype(np.float32)


def masked_low(low: float, high: float) -> float:
    """Return the low end of a range of scores that saturates masked ones, for the range of the real scores."""
    return -(2 * max(high, -low) + MASK_MARGIN)


def _to_bfloat16(x: Floats) -> Floats:
    """Round to 8 significant bits, half to even (numpy has no bfloat16)."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)).view(np.float32)

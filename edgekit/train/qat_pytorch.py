"""Fake quantization in PyTorch: ranges and scales of `edgekit.model.quantization`, rounded through torchao."""

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from edgekit.model.config import TransformerConfig
from edgekit.model.pytorch import Encoder
from edgekit.model.quantization import (
    BLOCK,
    HIGH,
    LARGEST,
    LOW,
    MASK_MARGIN,
    SMALLEST_BOUND,
    QatScheme,
    folded_norm,
    folded_number,
    quantizes_weight,
    scale_shape,
)
from edgekit.model.weights import MASKED_SCORE, parameter_shapes
from edgekit.train.qat import RANGE_RATE, Tap, attach, find_module, taps

_disabled = logging.root.manager.disable
logging.disable(logging.WARNING)  # torchao 0.18 warns of each CUDA library that it can't load
try:
    from torchao.quantization.quant_primitives import _fake_quantize_affine
finally:
    logging.disable(_disabled)


class FakeQuantizer:
    """Rounds weights and activations of Encoders as a scheme does; `ranges` are [low, high] by tap."""

    def __init__(self, config: TransformerConfig, scheme: QatScheme) -> None:
        self.scheme, self._head_dim = scheme, config.head_dim
        self._taps = taps(config, scheme)
        self._stored = frozenset(filter(quantizes_weight, parameter_shapes(config)))
        self.ranges = {tap.name: torch.zeros(2) for tap in self._taps if tap.kind in ("range", "scores")}

    def attach(self, model: Encoder, *, watch: bool) -> None:
        """Round the activations of `model`; with `watch`, each run moves the ranges."""
        for tap in self._taps:
            change = partial(self._activations, tap, watch=watch)
            attach(model, tap, partial(_unfolded, find_module(model, tap.module), change) if tap.folded else change)

    def weights(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return those of the parameters that are stored in integers, rounded."""
        found = {}
        for name, parameter in parameters.items():
            if name in self._stored:
                norm = folded_norm(name)
                factor = folded_number(name, self._head_dim) * (parameters[f"{norm}.weight"].detach() if norm else 1)
                found[name] = fake_quantize_weight(name, parameter, self.scheme, factor)
        return found

    def _activations(self, tap: Tap, x: Tensor, *, watch: bool) -> Tensor:
        if tap.kind == "rows":
            return fake_quantize_rows(x)
        if tap.kind == "probabilities":
            return _fake_quantize(x * 256.0, torch.tensor(LOW)) / 256.0  # the range of TFLite's softmax: [0, 1)
        seen = self.ranges[tap.name]
        if watch:
            _widen(seen, x, scores=tap.kind == "scores")
        low = -(2 * torch.maximum(seen[1], -seen[0]) + MASK_MARGIN) if tap.kind == "scores" else seen[0]
        return fake_quantize_range(x, low, seen[1])


def fake_quantize_weight(name: str, weight: Tensor, scheme: QatScheme, factor: Tensor | float = 1) -> Tensor:
    """Return what a weight [out, in] is once stored multiplied by `factor` [in]; scales are constants to the gradient.

    The factor is divided by again: what it stands for is still to be done by the model.
    """
    (rows, columns), largest = scale_shape(name, tuple(weight.shape), scheme), LARGEST[scheme]
    blocks = (weight * factor).reshape(weight.shape[0] // rows, rows, weight.shape[1] // columns, columns)
    with torch.no_grad():
        scale = blocks.abs().amax((1, 3), keepdim=True).clamp(min=SMALLEST_BOUND) / largest
        if scheme == "int4-weight" and columns == BLOCK:
            scale = scale.to(torch.bfloat16).to(torch.float16).to(torch.float32)
        divisor = torch.where(scale == 0, 1.0, scale)  # float16 has no scale this small: the block becomes 0
    rounded = (_fake_quantize(blocks / divisor, torch.tensor(0), largest) * scale).reshape(weight.shape)
    return rounded / _not_zero(factor)


def _unfolded(norm: Any, change: Callable[[Tensor], Tensor], y: Tensor) -> Tensor:
    """Let `change` act on what a norm gives as it is without its weight and bias."""
    weight, bias = norm.weight, getattr(norm, "bias", 0.0)
    return change((y - bias) / _not_zero(weight)) * weight + bias


def _not_zero(factor: Tensor | float) -> Tensor:
    factor = torch.as_tensor(factor)
    return torch.where(factor == 0, 1.0, factor)


def fake_quantize_rows(x: Tensor) -> Tensor:
    """Return x [..., width], each row in int8 with its own range, as XNNPACK has it."""
    with torch.no_grad():
        low, high = x.amin(-1, keepdim=True).clamp(max=0), x.amax(-1, keepdim=True).clamp(min=0)
        # torch.div: PyTorch computes 255 / x as 255 · (1 / x), which is rounded twice
        inverse = torch.where(high > low, torch.div(255.0, torch.where(high > low, high - low, 1.0)), 1.0)
        by_low, by_high = LOW - low * inverse, HIGH - high * inverse
        nearer_low = (LOW + low * inverse) + (HIGH + high * inverse) > 0
        zero = torch.where(nearer_low, by_low, by_high).clamp(LOW, HIGH).round()
        step = 1 / inverse
    return _fake_quantize(x * inverse, zero) * step


def fake_quantize_range(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Return x in int8 with one range for all of it; beyond the range the gradient is 0."""
    bottom, top = low.clamp(max=0), high.clamp(min=0)
    scale = (top - bottom).clamp(min=SMALLEST_BOUND) / 255
    return _fake_quantize(x / scale, (LOW - bottom / scale).round()) * scale


def _fake_quantize(steps: Tensor, zero_point: Tensor, largest: int | None = None) -> Tensor:
    """Round x / scale to the integers of int8 (or -largest to largest) by torchao, the gradient straight through.

    torchao 0.18 multiplies by 1 / scale, where ai-edge-quantizer divides, and so rounds some weights the other way; its
    own scales of int4 are max|w| / 7.5, and those of a matrix of one column are one for all. So it is given x / scale
    here, and a scale of 1 for each zero point: one, or one for each row of the last axis.
    """
    lowest, highest = (LOW, HIGH) if largest is None else (-largest, largest)
    block = tuple(steps.shape) if zero_point.dim() == 0 else (*(1 for _ in steps.shape[:-1]), steps.shape[-1])
    ones = torch.ones(zero_point.shape)
    return _fake_quantize_affine(steps.contiguous(), block, ones, zero_point, torch.int8, lowest, highest)


@torch.no_grad()
def _widen(seen: Tensor, x: Tensor, *, scores: bool) -> None:
    """Widen a range to what it misses at once; let it shrink slowly."""
    real = x[x > MASKED_SCORE / 2] if scores else x
    low, high = real.min(), real.max()
    seen[0] = torch.minimum(low, seen[0] + RANGE_RATE * (low - seen[0]))
    seen[1] = torch.maximum(high, seen[1] + RANGE_RATE * (high - seen[1]))

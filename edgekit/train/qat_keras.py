"""Fake quantization in TensorFlow: the arithmetic of `edgekit.model.quantization`, as in `qat_pytorch.py`."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import tensorflow as tf

from edgekit.model.config import TransformerConfig
from edgekit.model.keras import Encoder
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

_round = tf.grad_pass_through(tf.round)  # half to even


class FakeQuantizer:
    """Rounds weights and activations of Encoders as a scheme does; `ranges` are [low, high] by tap."""

    def __init__(self, config: TransformerConfig, scheme: QatScheme) -> None:
        self.scheme, self._head_dim = scheme, config.head_dim
        self._taps = taps(config, scheme)
        self._stored = frozenset(filter(quantizes_weight, parameter_shapes(config)))
        self.ranges = {tap.name: tf.Variable([0.0, 0.0]) for tap in self._taps if tap.kind in ("range", "scores")}

    def attach(self, model: Encoder, *, watch: bool) -> None:
        """Round the activations of `model`; with `watch`, each run moves the ranges."""
        for tap in self._taps:
            change = partial(self._activations, tap, watch=watch)
            attach(model, tap, partial(_unfolded, find_module(model, tap.module), change) if tap.folded else change)

    def weights(self, kernels: Mapping[str, Any]) -> dict[str, Any]:
        """Return the variables that are stored in integers, rounded: neutral names, Keras's layout."""
        found = {}
        for name, value in kernels.items():
            if name == "embed.tokens.weight":
                found[name] = fake_quantize_weight(name, value, self.scheme)
            elif name in self._stored:
                norm = folded_norm(name)
                factor = folded_number(name, self._head_dim) * (
                    tf.stop_gradient(kernels[f"{norm}.weight"]) if norm else 1
                )
                found[name] = tf.transpose(fake_quantize_weight(name, tf.transpose(value), self.scheme, factor))
        return found

    def _activations(self, tap: Tap, x: Any, *, watch: bool) -> Any:
        if tap.kind == "rows":
            return fake_quantize_rows(x)
        if tap.kind == "probabilities":
            return _fake_quantize(x * 256.0, float(LOW)) / 256.0  # the range of TFLite's softmax: [0, 1)
        seen = self.ranges[tap.name]
        if watch:
            _widen(seen, x, scores=tap.kind == "scores")
        low, high = tf.unstack(seen.value())
        if tap.kind == "scores":
            low = -(2 * tf.maximum(high, -low) + MASK_MARGIN)
        return fake_quantize_range(x, low, high)


def fake_quantize_weight(name: str, weight: Any, scheme: QatScheme, factor: Any = 1.0) -> Any:
    """Return what a weight [out, in] is once stored multiplied by `factor` [in]; scales are constants to the gradient.

    The factor is divided by again: what it stands for is still to be done by the model.
    """
    (rows, columns), largest = scale_shape(name, tuple(weight.shape), scheme), LARGEST[scheme]
    shape = (weight.shape[0] // rows, rows, weight.shape[1] // columns, columns)
    blocks = tf.reshape(weight * factor, shape)
    bound = tf.maximum(tf.reduce_max(tf.abs(tf.stop_gradient(blocks)), (1, 3), keepdims=True), SMALLEST_BOUND)
    scale = _divide(bound, largest)
    if scheme == "int4-weight" and columns == BLOCK:
        scale = tf.cast(tf.cast(tf.cast(scale, tf.bfloat16), tf.float16), tf.float32)
    divisor = tf.where(scale == 0, 1.0, scale)  # float16 has no scale this small: the block becomes 0
    rounded = tf.reshape(_fake_quantize(blocks / divisor, 0.0, largest) * scale, weight.shape)
    return rounded / _not_zero(factor)


def _unfolded(norm: Any, change: Callable[[Any], Any], y: Any) -> Any:
    """Let `change` act on what a norm gives as it is without its weight and bias."""
    weight = norm.gamma if hasattr(norm, "gamma") else norm.scale
    bias = norm.beta if hasattr(norm, "beta") else 0.0
    return change((y - bias) / _not_zero(weight)) * weight + bias


def _not_zero(factor: Any) -> Any:
    return tf.where(tf.equal(factor, 0.0), 1.0, factor)


def fake_quantize_rows(x: Any) -> Any:
    """Return x [..., width], each row in int8 with its own range, as XNNPACK has it."""
    seen = tf.stop_gradient(x)
    low = tf.minimum(tf.reduce_min(seen, -1, keepdims=True), 0.0)
    high = tf.maximum(tf.reduce_max(seen, -1, keepdims=True), 0.0)
    inverse = tf.where(high > low, 255 / tf.where(high > low, high - low, 1.0), 1.0)
    by_low, by_high = LOW - low * inverse, HIGH - high * inverse
    nearer_low = (LOW + low * inverse) + (HIGH + high * inverse) > 0
    zero = tf.round(tf.clip_by_value(tf.where(nearer_low, by_low, by_high), LOW, HIGH))
    return _fake_quantize(x * inverse, zero) * (1 / inverse)


def fake_quantize_range(x: Any, low: Any, high: Any) -> Any:
    """Return x in int8 with one range for all of it; beyond the range the gradient is 0."""
    bottom, top = tf.minimum(low, 0.0), tf.maximum(high, 0.0)
    scale = tf.stop_gradient(_divide(tf.maximum(top - bottom, SMALLEST_BOUND), 255))
    return _fake_quantize(x / scale, tf.stop_gradient(tf.round(LOW - bottom / scale))) * scale


def _fake_quantize(steps: Any, zero_point: Any, largest: int | None = None) -> Any:
    """Round x / scale to the integers of int8 (or -largest to largest), the gradient straight through."""
    lowest, highest = (LOW, HIGH) if largest is None else (-largest, largest)
    return tf.clip_by_value(_round(steps) + zero_point, lowest, highest) - zero_point


def _divide(x: Any, number: int) -> Any:
    """Return x / number in float32.

    By way of float64: of a division by a constant, TensorFlow 2.21's graphs make a product with 1 / number, which is
    rounded twice; weights half a step between two integers, as those that were int4 before, then fall either way.
    """
    return tf.cast(tf.cast(x, tf.float64) / number, tf.float32)


def _widen(seen: Any, x: Any, *, scores: bool) -> None:
    """Widen a range to what it misses at once; let it shrink slowly."""
    real = tf.boolean_mask(x, x > MASKED_SCORE / 2) if scores else x
    batch = tf.stop_gradient(tf.stack([tf.reduce_min(real), tf.reduce_max(real)]))
    moved = seen + RANGE_RATE * (batch - seen)
    seen.assign([tf.minimum(batch[0], moved[0]), tf.maximum(batch[1], moved[1])])

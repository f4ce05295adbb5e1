"""Rewrites of the Keras encoder: the same arithmetic as `rewrites_pytorch.py`.

Keras 3.15 takes no new layers once a layer is built: what a layer's `call` does is replaced instead, and matrices that
are put together or taken apart become constants of the traced function, as all weights of an exported file are.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf
from keras import layers, ops

from edgekit.model.keras import Encoder, Rotary, Tensor, rotate
from edgekit.model.rewrites import FP16_MASK, FP16_NORM, FUSED_HEADS, GELU_TANH, SMALL_MASKED_SCORE, SPLIT_HEADS


def rewrite_encoder(encoder: Encoder, rewrites: Sequence[str]) -> Encoder:
    """Rewrite the encoder in place and return it, for inference only.

    It answers to float masks of rank 4 as it is.
    """
    block: Any
    for block in encoder.blocks:
        if GELU_TANH in rewrites:
            (block.ffn.gate or block.ffn.up).activation = _gelu_tanh
        if FUSED_HEADS in rewrites:
            block.attention.call = _fused(block.attention)
        if SPLIT_HEADS in rewrites:
            block.attention.call = _split(block.attention)
        if FP16_NORM in rewrites:
            for norm in (block.attention_norm, block.ffn_norm):
                norm.call = partial(_safe_norm, norm)
    if FP16_NORM in rewrites:
        encoder.final_norm.call = partial(_safe_norm, encoder.final_norm)
    if FP16_MASK in rewrites:
        encoder.masked_score = SMALL_MASKED_SCORE
    return encoder


def _gelu_tanh(x: Tensor) -> Tensor:
    """GELU by tanh, written out: tf2onnx 1.17 and coremltools 9.0 take its parts one by one."""
    return 0.5 * x * (1.0 + tf.math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))


def _fused(attention: Any) -> Any:
    """`Attention.call` with one projection for queries, keys and values, where `source` is `x`."""
    parts = (attention.query, attention.key, attention.value)
    kernel = np.concatenate([part.kernel.numpy() for part in parts], axis=1)
    bias = np.concatenate([part.bias.numpy() for part in parts])

    def call(x: Tensor, source: Tensor, mask_scores: Tensor, rotary: Rotary | None) -> Tensor:
        projected = tf.split(_project(x, kernel, bias), 3, axis=-1)
        query, key, value = (attention._split(part, x, attention.num_heads) for part in projected)
        heads = ops.transpose(_attend(query, key, value, mask_scores, rotary), (0, 2, 1, 3))
        return attention.output_dense(ops.reshape(heads, ops.shape(x)))

    return call


def _split(attention: Any) -> Any:
    """`Attention.call` with projections for each head, no tensor of rank 4, where `source` is `x`."""
    parts = [(part.kernel.numpy(), part.bias.numpy()) for part in (attention.query, attention.key, attention.value)]
    size = attention.head_dim
    slices = [slice(first, first + size) for first in range(0, size * attention.num_heads, size)]

    def call(x: Tensor, source: Tensor, mask_scores: Tensor, rotary: Rotary | None) -> Tensor:
        heads = []
        for rows in slices:
            query, key, value = (_project(x, kernel[:, rows], bias[rows]) for kernel, bias in parts)
            heads.append(_attend(query, key, value, mask_scores[:, 0], rotary))
        return attention.output_dense(ops.concatenate(heads, axis=-1))

    return call


def _project(x: Tensor, kernel: Any, bias: Any) -> Tensor:
    return tf.matmul(x, tf.constant(kernel)) + tf.constant(bias)


def _attend(query: Tensor, key: Tensor, value: Tensor, mask_scores: Tensor, rotary: Rotary | None) -> Tensor:
    """Softmax of query · key + mask, times value; each [..., length, head_dim]."""
    query = query * query.shape[-1] ** -0.5
    if rotary is not None:
        query, key = rotate(query, rotary), rotate(key, rotary)
    return ops.matmul(tf.nn.softmax(tf.matmul(query, key, transpose_b=True) + mask_scores), value)


def _safe_norm(norm: Any, x: Tensor) -> Tensor:
    """A norm that divides by the largest value of a row before it squares; the same result but for rounding."""
    centred = isinstance(norm, layers.LayerNormalization)
    largest = ops.maximum(ops.max(ops.abs(x), axis=-1, keepdims=True), 1.0)
    x = x / largest
    if centred:
        x = x - ops.mean(x, axis=-1, keepdims=True)
    eps = ops.square(math.sqrt(norm.epsilon) / largest)
    x = x * ops.rsqrt(ops.mean(ops.square(x), axis=-1, keepdims=True) + eps)
    return x * norm.gamma + norm.beta if centred else x * norm.scale

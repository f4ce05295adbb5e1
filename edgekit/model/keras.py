"""The Transformer in Keras 3 on the TensorFlow backend: the same arithmetic and names as `pytorch.py`."""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import EdgekitError
from edgekit.model.config import TransformerConfig
from edgekit.model.weights import (
    KERAS_NAMES,
    MASKED_SCORE,
    Weights,
    check_weights,
    keras_variables,
    rotary_table,
)

# Keras reads its backend once, when it is first imported.
_BACKEND = os.environ.setdefault("KERAS_BACKEND", "tensorflow")
if _BACKEND != "tensorflow":
    raise EdgekitError(f"Keras is set to the backend {_BACKEND!r}; edgekit needs KERAS_BACKEND=tensorflow")

import keras  # noqa: E402 - after the backend is chosen
import tensorflow as tf  # noqa: E402
from keras import layers, ops  # noqa: E402

if keras.backend.backend() != "tensorflow":
    raise EdgekitError(
        f"Keras was imported with the backend {keras.backend.backend()!r} before edgekit; "
        "edgekit needs tensorflow: set KERAS_BACKEND=tensorflow before the first import of keras"
    )

Tensor: TypeAlias = Any  # neither keras nor tensorflow has types
Shape: TypeAlias = tuple[int | None, ...]
Rotary: TypeAlias = tuple[Tensor, Tensor]
KeyValue: TypeAlias = tuple[Tensor, Tensor]  # keys and values, each [batch, kv_heads, length, head_dim]
Memory: TypeAlias = tuple[Tensor, Tensor, Tensor]  # those of another text, and what is added to their scores
ModelType = TypeVar("ModelType", bound="Model")


def make_norm(config: TransformerConfig, name: str) -> Any:
    """Return the norm that the configuration names."""
    if config.norm == "rmsnorm":
        return layers.RMSNormalization(epsilon=config.norm_eps, name=name)
    return layers.LayerNormalization(epsilon=config.norm_eps, name=name)


def _gelu(x: Tensor) -> Tensor:
    """x Φ(x), written as PyTorch computes it.

    Not ops.gelu: TensorFlow 2.21 computes it by Erfc, which tf2onnx 1.17 and coremltools 9.0 do not know.
    """
    return 0.5 * x * (1.0 + tf.math.erf(x * math.sqrt(0.5)))


ACTIVATIONS = {"gelu": _gelu, "relu": ops.relu, "silu": ops.silu}


def rotate(x: Tensor, rotary: Rotary) -> Tensor:
    """Rotate x [batch, heads, length, head_dim] by its positions' (cos, sin) [length, head_dim]."""
    cos, sin = rotary
    first, second = ops.split(x, 2, axis=-1)
    return x * cos + ops.concatenate((-second, first), axis=-1) * sin


class Attention(layers.Layer):
    """Multi-head attention of `x` over `source` (arXiv:1706.03762), grouped where there are fewer keys' heads."""

    def __init__(self, config: TransformerConfig, name: str) -> None:
        super().__init__(name=name)
        self.num_heads, self.kv_heads, self.head_dim = config.num_heads, config.kv_heads, config.head_dim
        self.hidden_size = config.hidden_size
        kv_size, bias = config.kv_heads * config.head_dim, config.linear_bias
        self.query = layers.Dense(config.hidden_size, use_bias=bias, name="query")
        self.key = layers.Dense(kv_size, use_bias=bias, name="key")
        self.value = layers.Dense(kv_size, use_bias=bias, name="value")
        self.output_dense = layers.Dense(config.hidden_size, use_bias=bias, name="output")

    def build(self, input_shape: Shape) -> None:
        """Create the variables; the last axis of `input_shape` is the hidden size."""
        for dense in (self.query, self.key, self.value, self.output_dense):
            dense.build(input_shape)

    def call(self, x: Tensor, source: Tensor, mask_scores: Tensor, rotary: Rotary | None) -> Tensor:
        """Return [batch, length, hidden] for x of that shape and source [batch, length of source, hidden].

        `mask_scores` is added to the scores [batch, heads, length, length of source]; `rotary` turns queries
        and keys. (Keras gives an argument called `mask` a meaning of its own.)
        """
        return self.attend(*self.project(x, source, rotary), mask_scores, x)

    def project(self, x: Tensor, source: Tensor, rotary: Rotary | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return the scaled queries of x [batch, heads, length, head_dim], and keys and values of source."""
        query = self.queries(x)
        key, value = self.keys_values(source)
        if rotary is not None:
            query, key = rotate(query, rotary), rotate(key, rotary)
        return query, key, value

    def queries(self, x: Tensor) -> Tensor:
        """[batch, length, hidden] -> [batch, heads, length, head_dim], scaled, without positions."""
        return self._split(self.query(x), x, self.num_heads) * self.head_dim**-0.5

    def keys_values(self, source: Tensor) -> KeyValue:
        """[batch, length, hidden] -> keys and values [batch, kv_heads, length, head_dim], without positions."""
        key = self._split(self.key(source), source, self.kv_heads)
        return key, self._split(self.value(source), source, self.kv_heads)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask_scores: Tensor, x: Tensor) -> Tensor:
        """Return [batch, length, hidden] for queries of x, and keys and values of any length."""
        group = self.num_heads // self.kv_heads
        if group > 1:  # heads that share keys become rows: no key is copied
            batch, length = ops.shape(x)[:2]
            query = ops.reshape(query, (batch, self.kv_heads, group * length, self.head_dim))
            mask_scores = mask_scores if mask_scores.shape[2] == 1 else ops.tile(mask_scores, (1, 1, group, 1))
        heads = ops.matmul(self.probabilities(self.masked_scores(query, key, mask_scores)), value)
        if group > 1:
            heads = ops.reshape(heads, (batch, self.num_heads, length, self.head_dim))
        return self.output_dense(ops.reshape(ops.transpose(heads, (0, 2, 1, 3)), ops.shape(x)))

    def masked_scores(self, query: Tensor, key: Tensor, mask_scores: Tensor) -> Tensor:
        """Return query · key + mask_scores, [batch, heads, length, length of source]."""
        return ops.matmul(query, ops.transpose(key, (0, 1, 3, 2))) + mask_scores

    def probabilities(self, scores: Tensor) -> Tensor:
        """Return the softmax of scores over the last axis.

        Not ops.softmax: Keras 3.15 warns there about an axis of size 1, and a text of one token is no mistake.
        """
        return tf.nn.softmax(scores)

    def _split(self, projected: Tensor, x: Tensor, num_heads: int) -> Tensor:
        """[batch, length, num_heads * head_dim] -> [batch, num_heads, length, head_dim], for the projection of x.

        The shape is read off x: off the projection itself, tf2onnx 1.17 reads [batch * length, hidden].
        """
        batch, length = ops.shape(x)[:2]
        heads = ops.reshape(projected, (batch, length, num_heads, self.head_dim))
        return ops.transpose(heads, (0, 2, 1, 3))


class FeedForward(layers.Layer):
    """hidden -> ffn -> hidden with the configuration's activation, of the gate where there is one."""

    def __init__(self, config: TransformerConfig, name: str) -> None:
        super().__init__(name=name)
        activation, bias, size = ACTIVATIONS[config.activation], config.linear_bias, config.ffn_size
        gated = config.gated_ffn
        self.gate = layers.Dense(size, activation=activation, use_bias=bias, name="gate") if gated else None
        self.up = layers.Dense(size, activation=None if gated else activation, use_bias=bias, name="up")
        self.down = layers.Dense(config.hidden_size, use_bias=bias, name="down")

    def build(self, input_shape: Shape) -> None:
        """Create the variables; the last axis of `input_shape` is the hidden size."""
        if self.gate is not None:
            self.gate.build(input_shape)
        self.up.build(input_shape)
        self.down.build((*input_shape[:-1], self.up.units))

    def call(self, x: Tensor) -> Tensor:
        """[..., hidden] -> [..., hidden]."""
        return self.down(self.up(x) if self.gate is None else self.gate(x) * self.up(x))


class Block(layers.Layer):
    """One pre-norm block (arXiv:2002.04745): x + attention(norm(x)), then x + ffn(norm(x)).

    With `cross`, attention to another text, the memory, comes between the two.
    """

    def __init__(self, config: TransformerConfig, name: str, *, cross: bool = False) -> None:
        super().__init__(name=name)
        self.attention_norm = make_norm(config, "attention_norm")
        self.attention = Attention(config, name="attention")
        self.cross_attention_norm = make_norm(config, "cross_attention_norm") if cross else None
        self.cross_attention = Attention(config, name="cross_attention") if cross else None
        self.ffn_norm = make_norm(config, "ffn_norm")
        self.ffn = FeedForward(config, name="ffn")
        self.dropout = layers.Dropout(config.dropout, name="dropout")

    def build(self, input_shape: Shape) -> None:
        """Create the variables; the last axis of `input_shape` is the hidden size."""
        for layer in (self.attention_norm, self.attention, self.cross_attention_norm, self.cross_attention):
            if layer is not None:
                layer.build(input_shape)
        for layer in (self.ffn_norm, self.ffn):
            layer.build(input_shape)

    def call(
        self,
        x: Tensor,
        mask_scores: Tensor,
        rotary: Rotary | None,
        memory: Memory | None = None,
        training: bool = False,
    ) -> Tensor:
        """[batch, length, hidden] -> the same; `mask_scores` and `rotary` as in Attention."""
        normed = self.attention_norm(x)
        return self._rest(x, self.attention(normed, normed, mask_scores, rotary), memory, training)

    def cached(
        self,
        x: Tensor,
        mask_scores: Tensor,
        rotary: Rotary | None,
        past: KeyValue,
        position: Tensor,
        memory: Memory | None = None,
    ) -> tuple[Tensor, KeyValue]:
        """Return what `call` does for the texts that `past` begins and x goes on with, and the cache with x in it.

        `past` is [batch, kv_heads, longest length, head_dim], filled up to `position` int32 [1]; `mask_scores` is for
        all of it.
        """
        normed = self.attention_norm(x)
        query, key, value = self.attention.project(normed, normed, rotary)
        present = (write_cache(past[0], key, position), write_cache(past[1], value, position))
        return self._rest(x, self.attention.attend(query, *present, mask_scores, x), memory, False), present

    def memory_of(self, source: Tensor) -> KeyValue:
        """Return keys and values of another text [batch, length, hidden], for a block with `cross`."""
        if self.cross_attention is None:
            raise TypeError("this block has no cross-attention")
        return self.cross_attention.keys_values(source)

    def _rest(self, x: Tensor, attended: Tensor, memory: Memory | None, training: bool) -> Tensor:
        x = x + self.dropout(attended, training=training)
        norm, attention = self.cross_attention_norm, self.cross_attention
        if norm is not None and attention is not None and memory is not None:
            query = attention.queries(norm(x))
            x = x + self.dropout(attention.attend(query, *memory, x), training=training)
        return x + self.dropout(self.ffn(self.ffn_norm(x)), training=training)


def write_cache(cache: Tensor, new: Tensor, position: Tensor) -> Tensor:
    """Return cache [batch, heads, longest, head_dim] with new [batch, heads, n, head_dim] from `position` int32 [1] on.

    Written as a gather and a choice, which every converter knows; what would lie behind the end is left out.
    """
    place = tf.range(tf.shape(cache)[2]) - position
    count = ops.shape(new)[2]
    if new.shape[2] != 1:
        new = tf.gather(new, tf.clip_by_value(place, 0, count - 1), axis=2)
    return tf.where(((place >= 0) & (place < count))[:, None], new, cache)


class Embedding(layers.Layer):
    """Token table and, where the configuration has them, its projection and learned positions."""

    def __init__(self, config: TransformerConfig, name: str) -> None:
        super().__init__(name=name)
        self.tokens = layers.Embedding(config.vocab_size, config.token_size, name="tokens")
        factorised, learned = config.embedding_size is not None, config.positions == "learned"
        self.project = layers.Dense(config.hidden_size, use_bias=False, name="project") if factorised else None
        self.positions = layers.Embedding(config.max_length, config.hidden_size, name="positions") if learned else None
        self.dropout = layers.Dropout(config.dropout, name="dropout")

    def build(self, input_shape: Shape) -> None:
        """Create the variables for ids of `input_shape` [batch, length]."""
        self.tokens.build(input_shape)
        if self.project is not None:
            self.project.build((*input_shape, self.tokens.output_dim))
        if self.positions is not None:
            self.positions.build(input_shape)

    def call(self, ids: Tensor, places: Tensor | None = None, training: bool = False) -> Tensor:
        """ids [batch, length] -> [batch, length, hidden]; `places` int32 [length]: other than from 0 on."""
        # Not self.tokens(ids): Keras 3.15 wraps negative ids there, three operators more in every exported file.
        x = tf.gather(self.tokens.embeddings, ids)
        if self.project is not None:
            x = self.project(x)
        if self.positions is not None:
            table = self.positions.embeddings
            x = x + (table[: ops.shape(ids)[1]] if places is None else tf.gather(table, places))
        return self.dropout(x, training=training)

    def scores(self, x: Tensor) -> Tensor:
        """Return the scores of every token [..., vocab] for x [..., hidden], by the same table that looks them up."""
        if self.project is not None:
            x = ops.matmul(x, ops.transpose(self.project.kernel))
        return ops.matmul(x, ops.transpose(ops.convert_to_tensor(self.tokens.embeddings)))


class Model(keras.Model):
    """What the three models have in common: the embedding, and the constants of rotary positions.

    `keras_variables` maps the variables to the neutral names.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(name=KERAS_NAMES[config.task])
        self.config = config
        self.masked_score = MASKED_SCORE
        self.embed = Embedding(config, name="embed")
        self.rotary_constants = rotary_table(config) if config.positions == "rotary" else None

    def rotary(self, length: Any) -> Rotary | None:
        """Return the rotations of the first `length` positions."""
        if self.rotary_constants is None:
            return None
        cos, sin = (ops.convert_to_tensor(table, dtype=self.compute_dtype) for table in self.rotary_constants)
        return cos[:length], sin[:length]

    def rotary_at(self, places: Tensor) -> Rotary | None:
        """Return the rotations of positions, int32 [n]."""
        if self.rotary_constants is None:
            return None
        cos, sin = (ops.convert_to_tensor(table, dtype=self.compute_dtype) for table in self.rotary_constants)
        return tf.gather(cos, places), tf.gather(sin, places)


class Encoder(Model):
    """The encoder with its classification head."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config)
        self.blocks = [Block(config, name=f"blocks.{index}") for index in range(config.num_blocks)]
        self.final_norm = make_norm(config, "final_norm")
        self.classifier = layers.Dense(config.num_labels, name="classifier")

    def build(self, input_shape: Any = None) -> None:
        """Create every variable; no input is needed, whatever `input_shape` says."""
        hidden = self.config.hidden_size
        self.embed.build((None, None))
        for layer in (*self.blocks, self.final_norm):
            layer.build((None, None, hidden))
        self.classifier.build((None, hidden))

    def call(self, inputs: tuple[Tensor, Tensor], training: bool = False) -> Tensor:
        """Return logits [batch, num_labels] for inputs (ids, mask), both int32 [batch, length].

        1 in the mask is a token. `length` may be anything up to `max_length`; padding goes to the right. The mask may
        be float32 and [batch, 1, 1, length] as well.
        """
        ids, mask = inputs
        present, mask_scores = self._masks(mask)
        rotary = self.rotary(ops.shape(ids)[1])
        x = self.embed(ids, training=training)
        for block in layers_of(self.blocks, self.config.num_layers):
            x = block(x, mask_scores, rotary, training=training)
        return self.classifier(self._pool(self.final_norm(x), present))

    def _masks(self, mask: Tensor) -> tuple[Tensor, Tensor]:
        """What is a token [batch, length], and what is added to the scores [batch, 1, 1, length]."""
        present = ops.cast(mask, self.compute_dtype)
        mask_scores = (1.0 - present) * self.masked_score
        return (present[:, 0, 0, :], mask_scores) if len(mask.shape) == 4 else (present, mask_scores[:, None, None, :])

    def _pool(self, x: Tensor, present: Tensor) -> Tensor:
        """[batch, length, hidden] -> [batch, hidden]: the first token or the mean over tokens present."""
        if self.config.pooling == "first":
            return x[:, 0]
        total = ops.sum(x * present[:, :, None], axis=1)
        return total / ops.maximum(ops.sum(present, axis=1, keepdims=True), 1.0)


def padding_scores(present: Tensor) -> Tensor:
    """Return what is added to scores, [batch, 1, 1, length], for 1 where a text has a token, [batch, length]."""
    return ((1.0 - present) * MASKED_SCORE)[:, None, None, :]


def layers_of(blocks: Sequence[Block], num_layers: int) -> Iterator[Block]:
    """Yield the block of every layer: with shared layers the same one again and again."""
    for index in range(num_layers):
        yield blocks[index % len(blocks)]


def build_encoder(config: TransformerConfig, weights: Mapping[str, NDArray[Any]]) -> Encoder:
    """Return the encoder with `weights` (neutral names, float32).

    Raises CheckpointError for weights that are not what `config` describes.
    """
    return load_weights(Encoder(config), weights)


def load_weights(model: ModelType, weights: Mapping[str, NDArray[Any]]) -> ModelType:
    """Return the model with `weights` (neutral names, float32).

    Raises CheckpointError for weights that are not what its configuration describes.
    """
    check_weights(model.config, weights)
    model.build()
    variables = {variable.path: variable for variable in model.trainable_variables}
    for name, place in keras_variables(model.config).items():
        variables[place.path].assign(weights[name].T if place.transposed else weights[name])
    return model


def model_weights(module: Model) -> Weights:
    """Return a copy of the weights by neutral name, float32, bit for bit what `load_weights` would load."""
    variables = {variable.path: variable.numpy() for variable in module.trainable_variables}
    return {
        name: np.array(variables[place.path].T if place.transposed else variables[place.path], np.float32, order="C")
        for name, place in keras_variables(module.config).items()
    }


def classification_loss(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Return the mean cross-entropy over the batch: logits [batch, num_labels], integer labels [batch].

    With label smoothing s the target is (1 - s) on the label plus s / num_labels on each (arXiv:1512.00567).
    """
    log_probabilities = ops.log_softmax(logits, axis=-1)
    chosen = ops.take_along_axis(log_probabilities, ops.cast(labels, "int32")[:, None], axis=-1)[:, 0]
    smooth = ops.mean(log_probabilities, axis=-1)
    return -ops.mean((1.0 - label_smoothing) * chosen + label_smoothing * smooth)

"""The Transformer in Keras 3 on the TensorFlow backend: the same arithmetic and names as `pytorch.py`."""

import math
import os
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import EdgekitError
from edgekit.model.config import TransformerConfig
from edgekit.model.weights import MASKED_SCORE, Weights, check_weights, keras_variables, rotary_table

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


def _norm(config: TransformerConfig, name: str) -> Any:
    if config.norm == "rmsnorm":
        return layers.RMSNormalization(epsilon=config.norm_eps, name=name)
    return layers.LayerNormalization(epsilon=config.norm_eps, name=name)


def _gelu(x: Tensor) -> Tensor:
    """x Φ(x), written as PyTorch computes it.

    Not ops.gelu: TensorFlow 2.21 computes it by Erfc, which tf2onnx 1.17 and coremltools 9.0 do not know.
    """
    return 0.5 * x * (1.0 + tf.math.erf(x * math.sqrt(0.5)))


def rotate(x: Tensor, rotary: Rotary) -> Tensor:
    """Rotate x [batch, heads, length, head_dim] by its positions' (cos, sin) [length, head_dim]."""
    cos, sin = rotary
    first, second = ops.split(x, 2, axis=-1)
    return x * cos + ops.concatenate((-second, first), axis=-1) * sin


class Attention(layers.Layer):
    """Multi-head attention of `x` over `source` (arXiv:1706.03762)."""

    def __init__(self, config: TransformerConfig, name: str) -> None:
        super().__init__(name=name)
        self.num_heads, self.head_dim = config.num_heads, config.head_dim
        self.hidden_size = config.hidden_size
        self.query = layers.Dense(config.hidden_size, name="query")
        self.key = layers.Dense(config.hidden_size, name="key")
        self.value = layers.Dense(config.hidden_size, name="value")
        self.output_dense = layers.Dense(config.hidden_size, name="output")

    def build(self, input_shape: Shape) -> None:
        """Create the variables; the last axis of `input_shape` is the hidden size."""
        for dense in (self.query, self.key, self.value, self.output_dense):
            dense.build(input_shape)

    def call(self, x: Tensor, source: Tensor, mask_scores: Tensor, rotary: Rotary | None) -> Tensor:
        """Return [batch, length, hidden] for x of that shape and source [batch, length of source, hidden].

        `mask_scores` is added to the scores [batch, heads, length, length of source]; `rotary` turns queries
        and keys. (Keras gives an argument called `mask` a meaning of its own.)
        """
        query = self._split(self.query(x), x) * self.head_dim**-0.5
        key, value = self._split(self.key(source), source), self._split(self.value(source), source)
        if rotary is not None:
            query, key = rotate(query, rotary), rotate(key, rotary)
        scores = self.masked_scores(query, key, mask_scores)
        heads = ops.transpose(ops.matmul(self.probabilities(scores), value), (0, 2, 1, 3))
        return self.output_dense(ops.reshape(heads, ops.shape(x)))

    def masked_scores(self, query: Tensor, key: Tensor, mask_scores: Tensor) -> Tensor:
        """Return query · key + mask_scores, [batch, heads, length, length of source]."""
        return ops.matmul(query, ops.transpose(key, (0, 1, 3, 2))) + mask_scores

    def probabilities(self, scores: Tensor) -> Tensor:
        """Return the softmax of scores over the last axis.

        Not ops.softmax: Keras 3.15 warns there about an axis of size 1, and a text of one token is no mistake.
        """
        return tf.nn.softmax(scores)

    def _split(self, projected: Tensor, x: Tensor) -> Tensor:
        """[batch, length, hidden] -> [batch, heads, length, head_dim], for the projection of x.

        The shape is read off x: off the projection itself, tf2onnx 1.17 reads [batch * length, hidden].
        """
        batch, length = ops.shape(x)[:2]
        heads = ops.reshape(projected, (batch, length, self.num_heads, self.head_dim))
        return ops.transpose(heads, (0, 2, 1, 3))


class FeedForward(layers.Layer):
    """hidden -> ffn -> hidden with the configuration's activation."""

    def __init__(self, config: TransformerConfig, name: str) -> None:
        super().__init__(name=name)
        activation = ops.relu if config.activation == "relu" else _gelu
        self.up = layers.Dense(config.ffn_size, activation=activation, name="up")
        self.down = layers.Dense(config.hidden_size, name="down")

    def build(self, input_shape: Shape) -> None:
        """Create the variables; the last axis of `input_shape` is the hidden size."""
        self.up.build(input_shape)
        self.down.build((*input_shape[:-1], self.up.units))

    def call(self, x: Tensor) -> Tensor:
        """[..., hidden] -> [..., hidden]."""
        return self.down(self.up(x))


class Block(layers.Layer):
    """One pre-norm block (arXiv:2002.04745): x + attention(norm(x)), then x + ffn(norm(x))."""

    def __init__(self, config: TransformerConfig, name: str) -> None:
        super().__init__(name=name)
        self.attention_norm = _norm(config, "attention_norm")
        self.attention = Attention(config, name="attention")
        self.ffn_norm = _norm(config, "ffn_norm")
        self.ffn = FeedForward(config, name="ffn")
        self.dropout = layers.Dropout(config.dropout, name="dropout")

    def build(self, input_shape: Shape) -> None:
        """Create the variables; the last axis of `input_shape` is the hidden size."""
        for layer in (self.attention_norm, self.attention, self.ffn_norm, self.ffn):
            layer.build(input_shape)

    def call(self, x: Tensor, mask_scores: Tensor, rotary: Rotary | None, training: bool = False) -> Tensor:
        """[batch, length, hidden] -> the same; `mask_scores` and `rotary` as in Attention."""
        normed = self.attention_norm(x)
        attended = self.attention(normed, normed, mask_scores, rotary)
        x = x + self.dropout(attended, training=training)
        return x + self.dropout(self.ffn(self.ffn_norm(x)), training=training)


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

    def call(self, ids: Tensor, training: bool = False) -> Tensor:
        """ids [batch, length] -> [batch, length, hidden]."""
        # Not self.tokens(ids): Keras 3.15 wraps negative ids there, three operators more in every exported file.
        x = tf.gather(self.tokens.embeddings, ids)
        if self.project is not None:
            x = self.project(x)
        if self.positions is not None:
            x = x + self.positions.embeddings[: ops.shape(ids)[1]]
        return self.dropout(x, training=training)


class Encoder(keras.Model):
    """The encoder with its classification head; `keras_variables` maps its variables to the neutral names."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(name="encoder")
        self.config = config
        self.masked_score = MASKED_SCORE
        self.embed = Embedding(config, name="embed")
        self.blocks = [Block(config, name=f"blocks.{index}") for index in range(config.num_blocks)]
        self.final_norm = _norm(config, "final_norm")
        self.classifier = layers.Dense(config.num_labels, name="classifier")
        self.rotary_constants = rotary_table(config) if config.positions == "rotary" else None

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
        rotary = self._rotary(ops.shape(ids)[1])
        x = self.embed(ids, training=training)
        for index in range(self.config.num_layers):
            x = self.blocks[index % self.config.num_blocks](x, mask_scores, rotary, training=training)
        return self.classifier(self._pool(self.final_norm(x), present))

    def _masks(self, mask: Tensor) -> tuple[Tensor, Tensor]:
        """What is a token [batch, length], and what is added to the scores [batch, 1, 1, length]."""
        present = ops.cast(mask, self.compute_dtype)
        mask_scores = (1.0 - present) * self.masked_score
        return (present[:, 0, 0, :], mask_scores) if len(mask.shape) == 4 else (present, mask_scores[:, None, None, :])

    def _rotary(self, length: Any) -> Rotary | None:
        if self.rotary_constants is None:
            return None
        cos, sin = (ops.convert_to_tensor(table, dtype=self.compute_dtype) for table in self.rotary_constants)
        return cos[:length], sin[:length]

    def _pool(self, x: Tensor, present: Tensor) -> Tensor:
        """[batch, length, hidden] -> [batch, hidden]: the first token or the mean over tokens present."""
        if self.config.pooling == "first":
            return x[:, 0]
        total = ops.sum(x * present[:, :, None], axis=1)
        return total / ops.maximum(ops.sum(present, axis=1, keepdims=True), 1.0)


def build_encoder(config: TransformerConfig, weights: Mapping[str, NDArray[Any]]) -> Encoder:
    """Return the encoder with `weights` (neutral names, float32).

    Raises CheckpointError for weights that are not what `config` describes.
    """
    check_weights(config, weights)
    encoder = Encoder(config)
    encoder.build()
    variables = {variable.path: variable for variable in encoder.trainable_variables}
    for name, place in keras_variables(config).items():
        variables[place.path].assign(weights[name].T if place.transposed else weights[name])
    return encoder


def encoder_weights(module: Encoder) -> Weights:
    """Return a copy of the weights by neutral name, float32, bit for bit what `build_encoder` would load."""
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

"""The decoder and the encoder–decoder in Keras: the same arithmetic and names as `decoder_pytorch.py`."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from edgekit.model.config import TransformerConfig
from edgekit.model.greedy import Ids, Step
from edgekit.model.keras import (
    Block,
    Encoder,
    KeyValue,
    Memory,
    Model,
    Shape,
    Tensor,
    build_encoder,
    layers_of,
    load_weights,
    make_norm,
    padding_scores,
)
from edgekit.model.weights import MASKED_SCORE

from keras import layers, ops  # isort: skip - edgekit.model.keras chooses the backend first

Cache: TypeAlias = tuple[KeyValue, ...]  # of each layer


class TextModel(Model):
    """What both models that write text have in common: scores of the next token, and an empty cache."""

    head: Any

    def scores(self, x: Tensor) -> Tensor:
        """[..., hidden] -> scores of every token [..., vocab]."""
        return self.embed.scores(x) if self.head is None else self.head(x)

    def empty_cache(self, batch: int) -> Cache:
        """Return the cache of no text yet: zeros [batch, kv_heads, max_length, head_dim] for each layer."""
        config = self.config
        shape = (batch, config.kv_heads, config.max_length, config.head_dim)
        zeros = tf.zeros(shape, self.compute_dtype)
        return tuple((zeros, zeros) for _ in range(config.decoder_layers))

    def _head(self) -> Any:
        config = self.config
        return None if config.tied_embeddings else layers.Dense(config.vocab_size, use_bias=False, name="head")

    def _build_ends(self) -> None:
        self.embed.build((None, None))
        if self.head is not None:
            self.head.build((None, None, self.config.hidden_size))

    def _causal(self, places: Tensor, count: Any) -> Tensor:
        """Return what hides later tokens when added to scores, [1, 1, n, count], for queries at `places` [n]."""
        later = tf.range(count) > places[:, None]
        return (tf.cast(later, self.compute_dtype) * MASKED_SCORE)[None, None]

    def _write(self, blocks: Iterable[Block], ids: Tensor, memories: Iterable[Memory | None], training: bool) -> Tensor:
        """Return [batch, length, hidden] of the last of `blocks` for whole texts, each token seeing those before it."""
        length = ops.shape(ids)[1]
        mask_scores, rotary = self._causal(tf.range(length), length), self.rotary(length)
        x = self.embed(ids, training=training)
        for block, memory in zip(blocks, memories, strict=True):
            x = block(x, mask_scores, rotary, memory, training=training)
        return x

    def _go_on(
        self, blocks: Iterable[Block], ids: Tensor, position: Tensor, cache: Cache, memories: Iterable[Memory | None]
    ) -> tuple[Tensor, Cache]:
        """Return what `_write` does, for texts that the cache begins and `ids` [batch, n] go on with at `position`."""
        longest, presents = self.config.max_length, []
        places = tf.range(ops.shape(ids)[1]) + position
        mask_scores, known = self._causal(places, longest), tf.minimum(places, longest - 1)
        rotary, x = self.rotary_at(known), self.embed(ids, known)
        for block, past, memory in zip(blocks, cache, memories, strict=True):
            x, present = block.cached(x, mask_scores, rotary, past, position, memory)
            presents.append(present)
        return x, tuple(presents)


class Decoder(TextModel):
    """A decoder: scores of the next token at every position of a text."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config)
        self.blocks = [Block(config, name=f"blocks.{index}") for index in range(config.num_blocks)]
        self.final_norm = make_norm(config, "final_norm")
        self.head = self._head()

    def build(self, input_shape: Any = None) -> None:
        """Create every variable; no input is needed, whatever `input_shape` says."""
        self._build_ends()
        for layer in (*self.blocks, self.final_norm):
            layer.build((None, None, self.config.hidden_size))

    def call(self, ids: Tensor, training: bool = False) -> Tensor:
        """Return logits [batch, length, vocab] for int32 ids [batch, length]; padding goes to the right."""
        return self.scores(self.final_norm(self._write(self._decoder_blocks(), ids, self._no_memories(), training)))

    def cached(self, ids: Tensor, position: Tensor, cache: Cache) -> tuple[Tensor, Cache]:
        """Return logits [batch, n, vocab] and the new cache for ids [batch, n] that follow `position` int32 [1] tokens.

        With n > 1 that is a prefill: ids may be padded to the right, for what stands behind a text is overwritten
        before it is seen.
        """
        x, cache = self._go_on(self._decoder_blocks(), ids, position, cache, self._no_memories())
        return self.scores(self.final_norm(x)), cache

    def _decoder_blocks(self) -> Iterable[Block]:
        return layers_of(self.blocks, self.config.num_layers)

    def _no_memories(self) -> Iterable[None]:
        return (None for _ in range(self.config.num_layers))


class Stack(layers.Layer):
    """The blocks of one side, and the norm behind them."""

    def __init__(self, config: TransformerConfig, blocks: int, name: str, *, cross: bool) -> None:
        super().__init__(name=name)
        self.blocks = [Block(config, name=f"blocks.{index}", cross=cross) for index in range(blocks)]
        self.final_norm = make_norm(config, "final_norm")

    def build(self, input_shape: Shape) -> None:
        """Create the variables; the last axis of `input_shape` is the hidden size."""
        for layer in (*self.blocks, self.final_norm):
            layer.build(input_shape)


class EncoderDecoder(TextModel):
    """An encoder of the source text, and a decoder that attends to it; both share the embedding."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config)
        self.encoder = Stack(config, config.num_blocks, "encoder", cross=False)
        self.decoder = Stack(config, config.num_decoder_blocks, "decoder", cross=True)
        self.head = self._head()

    def build(self, input_shape: Any = None) -> None:
        """Create every variable; no input is needed, whatever `input_shape` says."""
        self._build_ends()
        for stack in (self.encoder, self.decoder):
            stack.build((None, None, self.config.hidden_size))

    def call(self, inputs: tuple[Tensor, Tensor, Tensor], training: bool = False) -> Tensor:
        """Return logits [batch, length, vocab] of the token after each of the ids.

        `inputs` are source ids and mask, int32 [batch, source length], and ids int32 [batch, length]; 1 in the mask is
        a token. Padding goes to the right.
        """
        source_ids, source_mask, ids = inputs
        memory = self.encode(source_ids, source_mask, training=training)
        x = self._write(self._decoder_blocks(), ids, self._memories(memory, source_mask), training)
        return self.scores(self.decoder.final_norm(x))

    def encode(self, source_ids: Tensor, source_mask: Tensor, training: bool = False) -> Cache:
        """Return keys and values of the source, [batch, kv_heads, source length, head_dim], for each decoder block."""
        mask_scores, rotary = self._padding(source_mask), self.rotary(ops.shape(source_ids)[1])
        x = self.embed(source_ids, training=training)
        for block in layers_of(self.encoder.blocks, self.config.num_layers):
            x = block(x, mask_scores, rotary, training=training)
        x = self.encoder.final_norm(x)
        return tuple(block.memory_of(x) for block in self.decoder.blocks)

    def cached(
        self, ids: Tensor, position: Tensor, source_mask: Tensor, memory: Cache, cache: Cache
    ) -> tuple[Tensor, Cache]:
        """Return logits [batch, n, vocab] and the new cache, as Decoder's, with what `encode` gave for the source."""
        x, cache = self._go_on(self._decoder_blocks(), ids, position, cache, self._memories(memory, source_mask))
        return self.scores(self.decoder.final_norm(x)), cache

    def _decoder_blocks(self) -> Iterable[Block]:
        return layers_of(self.decoder.blocks, self.config.decoder_layers)

    def _memories(self, memory: Cache, source_mask: Tensor) -> Iterable[Memory]:
        mask_scores = self._padding(source_mask)
        return ((*memory[index % len(memory)], mask_scores) for index in range(self.config.decoder_layers))

    def _padding(self, mask: Tensor) -> Tensor:
        return padding_scores(ops.cast(mask, self.compute_dtype))


def build_model(config: TransformerConfig, weights: Mapping[str, NDArray[Any]]) -> Encoder | Decoder | EncoderDecoder:
    """Return the model of the configuration's task with `weights` (neutral names, float32).

    Raises CheckpointError for weights that are not what `config` describes.
    """
    if config.task == "classify":
        return build_encoder(config, weights)
    return load_weights(Decoder(config) if config.task == "generate" else EncoderDecoder(config), weights)


def token_loss(logits: Tensor, targets: Tensor, counted: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Return the cross-entropy summed over the tokens counted: logits [batch, length, vocab], targets [batch, length].

    `counted` is 1 for a token, 0 for padding. Label smoothing as in `classification_loss`.
    """
    log_probabilities = ops.log_softmax(logits, axis=-1)
    chosen = ops.take_along_axis(log_probabilities, ops.cast(targets, "int32")[..., None], axis=-1)[..., 0]
    losses = (1.0 - label_smoothing) * chosen + label_smoothing * ops.mean(log_probabilities, axis=-1)
    return -ops.sum(losses * ops.cast(counted, losses.dtype))


class CachedSteps:
    """Makes the steps of `greedy_ids`: traced once for each shape, and with the variables as they then are."""

    def __init__(self, model: Decoder | EncoderDecoder) -> None:
        self._model = model
        self._cached = tf.function(model.cached)
        self._encode = tf.function(model.encode, reduce_retracing=True) if isinstance(model, EncoderDecoder) else None

    def begin(self, batch: int, source: tuple[Ids, Ids] | None) -> Step:
        """Return the step for `batch` texts; to translate, `source` is ids and mask [batch, length]."""
        cache = self._model.empty_cache(batch)
        memory: tuple[Any, ...] = ()
        if source is not None and self._encode is not None:
            ids_and_mask = tuple(map(tf.constant, source))
            memory = (ids_and_mask[1], self._encode(*ids_and_mask))

        def step(ids: Ids, position: int) -> NDArray[np.float32]:
            nonlocal cache
            logits, cache = self._cached(tf.constant(ids), tf.constant([position], tf.int32), *memory, cache)
            found: NDArray[np.float32] = logits.numpy()
            return found

        return step

"""The decoder and the encoder–decoder in PyTorch: `pytorch.py`'s blocks, stacked to write text.

Both have forms that give the same logits: of a whole text, to train, and step by step with a cache of keys and values,
to generate. The cache is functional (cache in, cache out); its shape is fixed, as converters want it, or it grows with
the text (`grown`), as runtimes of ONNX have it.
"""

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from edgekit.model.config import TransformerConfig
from edgekit.model.greedy import Ids, Step
from edgekit.model.pytorch import (
    Block,
    Encoder,
    KeyValue,
    Memory,
    Model,
    at_most,
    build_encoder,
    layers_of,
    load_weights,
    make_norm,
    padding_scores,
)
from edgekit.model.weights import MASKED_SCORE

Cache: TypeAlias = tuple[KeyValue, ...]  # of each layer


class TextModel(Model):
    """What both models that write text have in common: scores of the next token, and an empty cache."""

    head: nn.Linear | None

    def scores(self, x: Tensor) -> Tensor:
        """[..., hidden] -> scores of every token [..., vocab]."""
        return self.embed.scores(x) if self.head is None else self.head(x)

    def empty_cache(self, batch: int) -> Cache:
        """Return the cache of no text yet: zeros [batch, kv_heads, max_length, head_dim] for each layer."""
        config = self.config
        table = self.embed.tokens.weight
        shape = (batch, config.kv_heads, config.max_length, config.head_dim)
        return tuple((table.new_zeros(shape), table.new_zeros(shape)) for _ in range(config.decoder_layers))

    def no_cache(self, batch: int) -> Cache:
        """Return the growing cache of no text yet: [batch, kv_heads, 0, head_dim] for each layer."""
        return tuple((key[:, :, :0], value[:, :, :0]) for key, value in self.empty_cache(batch))

    def _head(self) -> nn.Linear | None:
        config = self.config
        return None if config.tied_embeddings else nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    def _causal(self, places: Tensor, count: int) -> Tensor:
        return causal_scores(places, count).to(self.embed.tokens.weight.dtype)

    def _write(self, blocks: Iterable[Block], ids: Tensor, memories: Iterable[Memory | None]) -> Tensor:
        """Return [batch, length, hidden] of the last of `blocks` for whole texts, each token seeing those before it."""
        length = ids.shape[1]
        mask = self._causal(torch.arange(length, dtype=torch.int32, device=ids.device), length)
        rotary, x = self.rotary(length), self.embed(ids)
        for block, memory in zip(blocks, memories, strict=True):
            x = block(x, mask, rotary, memory)
        return x

    def _go_on(
        self, blocks: Iterable[Block], ids: Tensor, position: Tensor, cache: Cache, memories: Iterable[Memory | None]
    ) -> tuple[Tensor, Cache]:
        """Return what `_write` does, for texts that the cache begins and `ids` [batch, n] go on with at `position`."""
        count, longest = ids.shape[1], self.config.max_length
        places = torch.arange(count, dtype=torch.int32, device=ids.device) + position
        mask, known = self._causal(places, longest), at_most(places, longest - 1)
        rotary, x, presents = self.rotary_at(known), self.embed(ids, known), []
        for block, past, memory in zip(blocks, cache, memories, strict=True):
            x, present = block.cached(x, mask, rotary, past, position, memory)
            presents.append(present)
        return x, tuple(presents)

    def _grow(
        self,
        blocks: Iterable[Block],
        ids: Tensor,
        cache: Cache,
        memories: Iterable[Memory | None],
        mask: Tensor | None = None,
        places: Tensor | None = None,
    ) -> tuple[Tensor, Cache]:
        """Return what `_go_on` does, for a cache that holds the text so far and grows.

        `mask` [batch, past + n] is 1 for a token (None: all are); `places` [batch, n] are the positions of ids (None:
        those that follow the cache).
        """
        past, count = cache[0][0].shape[2], ids.shape[1]
        order = torch.arange(count, dtype=torch.int32, device=ids.device) + past
        scores = self._causal(order, past + count)
        if mask is not None:
            scores = scores + padding_scores(mask.to(scores.dtype))
        known = order if places is None else places
        rotary, x, presents = self.rotary_at(known), self.embed(ids, known), []
        for block, kept, memory in zip(blocks, cache, memories, strict=True):
            x, present = block.cached(x, scores, rotary, kept, None, memory)
            presents.append(present)
        return x, tuple(presents)


def causal_scores(places: Tensor, count: int) -> Tensor:
    """Return what hides later tokens when added to scores, [1, 1, n, count], for queries at `places` [n]."""
    later = torch.arange(count, dtype=torch.int32, device=places.device) > places[:, None]
    return (later.to(torch.float32) * MASKED_SCORE)[None, None]


class Decoder(TextModel):
    """A decoder: scores of the next token at every position of a text."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_blocks))
        self.final_norm = make_norm(config)
        self.head = self._head()

    def forward(self, ids: Tensor) -> Tensor:
        """Return logits [batch, length, vocab] for int32 ids [batch, length]; padding goes to the right."""
        return self.scores(self.final_norm(self._write(self.decoder_blocks(), ids, self.no_memories())))

    def cached(self, ids: Tensor, position: Tensor, cache: Cache, *, last: bool = False) -> tuple[Tensor, Cache]:
        """Return logits [batch, n, vocab] and the new cache for ids [batch, n] that follow `position` int32 [1] tokens.

        With n > 1 that is a prefill: ids may be padded to the right, for what stands behind a text is overwritten
        before it is seen. With `last`, logits [batch, 1, vocab] are those of the last id alone.
        """
        x, cache = self._go_on(self.decoder_blocks(), ids, position, cache, self.no_memories())
        return self.scores(self.final_norm(x[:, -1:] if last else x)), cache

    def grown(self, ids: Tensor, mask: Tensor, places: Tensor, cache: Cache) -> tuple[Tensor, Cache]:
        """Return logits [batch, n, vocab] and the longer cache for ids [batch, n] that follow what the cache holds.

        `mask` [batch, past + n] is 1 for a token and 0 for padding, on either side; `places` [batch, n] are positions.
        """
        x, cache = self._grow(self.decoder_blocks(), ids, cache, self.no_memories(), mask, places)
        return self.scores(self.final_norm(x)), cache

    def decoder_blocks(self) -> Iterable[Block]:
        """Yield the block of every layer."""
        return layers_of(self.blocks, self.config.num_layers)

    def no_memories(self) -> Iterable[None]:
        """Yield that no layer attends to another text."""
        return (None for _ in range(self.config.num_layers))


class Stack(nn.Module):
    """The blocks of one side, and the norm behind them."""

    def __init__(self, config: TransformerConfig, blocks: int, *, cross: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(config, cross=cross) for _ in range(blocks))
        self.final_norm = make_norm(config)


class EncoderDecoder(TextModel):
    """An encoder of the source text, and a decoder that attends to it; both share the embedding."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config)
        self.encoder = Stack(config, config.num_blocks, cross=False)
        self.decoder = Stack(config, config.num_decoder_blocks, cross=True)
        self.head = self._head()

    def forward(self, source_ids: Tensor, source_mask: Tensor, ids: Tensor) -> Tensor:
        """Return logits [batch, length, vocab] of the token after each of int32 ids [batch, length].

        Source ids and mask are int32 [batch, source length]; 1 in the mask is a token. Padding goes to the right.
        """
        memory = self.encode(source_ids, source_mask)
        x = self._write(self.decoder_blocks(), ids, self.memories(memory, source_mask))
        return self.scores(self.decoder.final_norm(x))

    def encode(self, source_ids: Tensor, source_mask: Tensor) -> Cache:
        """Return keys and values of the source, [batch, kv_heads, source length, head_dim], for each decoder block."""
        return self.memory_of(self.read(source_ids, source_mask))

    def read(self, source_ids: Tensor, source_mask: Tensor) -> Tensor:
        """Return the encoder's last hidden state [batch, source length, hidden]."""
        mask, rotary = padding_scores(self._present(source_mask)), self.rotary(source_ids.shape[1])
        x = self.embed(source_ids)
        for block in layers_of(self.encoder.blocks, self.config.num_layers):
            x = block(x, mask, rotary)
        return self.encoder.final_norm(x)

    def memory_of(self, hidden: Tensor) -> Cache:
        """Return what `encode` does, for the encoder's last hidden state."""
        return tuple(
            block.memory_of(hidden) for block in layers_of(self.decoder.blocks, self.config.num_decoder_blocks)
        )

    def cached(
        self, ids: Tensor, position: Tensor, source_mask: Tensor, memory: Cache, cache: Cache
    ) -> tuple[Tensor, Cache]:
        """Return logits [batch, n, vocab] and the new cache, as Decoder's, with what `encode` gave for the source."""
        x, cache = self._go_on(self.decoder_blocks(), ids, position, cache, self.memories(memory, source_mask))
        return self.scores(self.decoder.final_norm(x)), cache

    def grown(self, ids: Tensor, source_mask: Tensor, memory: Cache, cache: Cache) -> tuple[Tensor, Cache]:
        """Return logits [batch, n, vocab] and the longer cache for ids [batch, n] that follow what the cache holds."""
        x, cache = self._grow(self.decoder_blocks(), ids, cache, self.memories(memory, source_mask))
        return self.scores(self.decoder.final_norm(x)), cache

    def decoder_blocks(self) -> Iterable[Block]:
        """Yield the block of every layer that writes."""
        return layers_of(self.decoder.blocks, self.config.decoder_layers)

    def memories(self, memory: Cache, source_mask: Tensor) -> Iterable[Memory]:
        """Yield what each layer attends to: what `encode` gave for the source, and what hides its padding."""
        mask = padding_scores(self._present(source_mask))
        return ((*memory[index % len(memory)], mask) for index in range(self.config.decoder_layers))

    def _present(self, mask: Tensor) -> Tensor:
        return mask.to(self.embed.tokens.weight.dtype)


def build_model(config: TransformerConfig, weights: Mapping[str, NDArray[Any]]) -> Encoder | Decoder | EncoderDecoder:
    """Return the model of the configuration's task with `weights` (neutral names, float32), in evaluation mode.

    Raises CheckpointError for weights that are not what `config` describes.
    """
    if config.task == "classify":
        return build_encoder(config, weights)
    return load_weights(Decoder(config) if config.task == "generate" else EncoderDecoder(config), weights)


def token_loss(logits: Tensor, targets: Tensor, counted: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Return the cross-entropy summed over the tokens counted: logits [batch, length, vocab], targets [batch, length].

    `counted` is 1 for a token, 0 for padding. Label smoothing as in `classification_loss`.
    """
    log_probabilities = functional.log_softmax(logits, dim=-1)
    chosen = log_probabilities.gather(-1, targets.long()[..., None])[..., 0]
    losses = (1.0 - label_smoothing) * chosen + label_smoothing * log_probabilities.mean(-1)
    return -(losses * counted.to(losses.dtype)).sum()


def cached_step(model: Decoder | EncoderDecoder, batch: int, source: tuple[Ids, Ids] | None) -> Step:
    """Return the step of `greedy_ids` for `batch` texts; to translate, `source` is ids and mask [batch, length]."""
    cache = model.empty_cache(batch)
    given = None if source is None else tuple(map(torch.from_numpy, source))
    with torch.inference_mode():
        memory = None if given is None or isinstance(model, Decoder) else (given[1], model.encode(*given))

    @torch.inference_mode()
    def step(ids: Ids, position: int) -> NDArray[np.float32]:
        nonlocal cache
        inputs = (torch.from_numpy(ids), torch.tensor([position], dtype=torch.int32))
        if isinstance(model, Decoder):
            logits, cache = model.cached(*inputs, cache)
        elif memory is not None:
            logits, cache = model.cached(*inputs, *memory, cache)
        found: NDArray[np.float32] = logits.numpy()
        return found

    return step

"""Decoders and encoder–decoders of Hugging Face, with caches as plain tensors: the same calls as edgekit's own models.

transformers 5.23 exports its caches as objects, or as buffers that a program changes (`integrations.executorch`). Here
a cache of its own kind takes keys and values from the caller and keeps what comes out, so that the same signatures,
loop and proof serve all models. Masks are made here too, in four dimensions, which its models take as they are.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgekit.errors import RefusedError
from edgekit.extras import require
from edgekit.model.decoder_pytorch import Cache, causal_scores
from edgekit.model.pytorch import at_most, padding_scores, write_cache
from edgekit.model.weights import MASKED_SCORE
from edgekit.program import ModelTask, Program
from edgekit.sources.writers import input_names, writer_signatures
from edgekit.sources.writers_torch import FlatDecoder, FlatEncoderDecoder

cache_utils = require("transformers.cache_utils", "exporting a model of Hugging Face that writes")

#: what transformers calls layers that see the newest tokens alone
_SLIDING, _FULL = "sliding_attention", "full_attention"


@dataclass(frozen=True, kw_only=True)
class HubShape:
    """The sizes of a model of transformers that writes."""

    task: ModelTask
    vocab_size: int
    max_length: int
    hidden_size: int
    decoder_layers: int
    kv_heads: int
    head_dim: int

    @property
    def num_decoder_blocks(self) -> int:
        """Every layer has keys and values of its own."""
        return self.decoder_layers


class CacheLayer(cache_utils.CacheLayerMixin):  # type: ignore[name-defined]
    """Keys and values that a caller gave, into which new ones are written at `position`, or put behind them (None)."""

    is_sliding = False

    def __init__(self, keys: Tensor, values: Tensor, position: Tensor | None) -> None:
        super().__init__()
        self.keys, self.values, self.is_initialized = keys, values, True
        self._position = position
        self._length: Any = keys.shape[2] if position is None else position[0]

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Do nothing: the caller's are there."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write new keys and values; return all."""
        self.keys = write_cache(self.keys, key_states, self._position)
        self.values = write_cache(self.values, value_states, self._position)
        return self.keys, self.values

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return how long a mask is, and where it begins."""
        return self.keys.shape[2] + (query_length if self._position is None else 0), 0

    def get_seq_length(self) -> Any:
        """Return how many tokens were there before this call."""
        return self._length

    def get_max_length(self) -> int:
        """Return -1: no bound of its own."""
        return -1


class HubDecoder(nn.Module):
    """A decoder of transformers, called as edgekit's `Decoder`."""

    def __init__(self, model: nn.Module, shape: HubShape) -> None:
        super().__init__()
        self.model, self.config = model, shape
        config: Any = model.config
        kinds = set(getattr(config, "layer_types", None) or ())
        self._window = int(config.sliding_window) if _SLIDING in kinds else None

    def cached(self, ids: Tensor, position: Tensor, cache: Cache, *, last: bool = False) -> tuple[Tensor, Cache]:
        """Return logits [batch, n, vocab], of the last id alone with `last`, and the new cache of the same size."""
        longest = cache[0][0].shape[2]
        places = torch.arange(ids.shape[1], dtype=torch.int32, device=ids.device) + position
        masks = self._masks(places, longest)
        known = at_most(places, longest - 1)[None]
        return self._run(ids, known, masks, cache, position, last=last)

    def grown(self, ids: Tensor, mask: Tensor, places: Tensor, cache: Cache) -> tuple[Tensor, Cache]:
        """Return logits [batch, n, vocab] and the longer cache; `mask` and `places` as `Decoder.grown` has them."""
        past, count = cache[0][0].shape[2], ids.shape[1]
        order = torch.arange(count, dtype=torch.int32, device=ids.device) + past
        hidden = padding_scores(mask.to(torch.float32))
        masks = {name: scores + hidden for name, scores in self._masks(order, past + count).items()}
        return self._run(ids, places, masks, cache, None, last=False)

    def _masks(self, places: Tensor, count: int) -> dict[str, Tensor]:
        """What is added to scores, for each kind of layer that the model has."""
        full = causal_scores(places, count)
        if self._window is None:
            return {_FULL: full}
        far = torch.arange(count, dtype=torch.int32, device=places.device) <= places[:, None] - self._window
        return {_FULL: full, _SLIDING: full + (far.to(torch.float32) * MASKED_SCORE)[None, None]}

    def _run(
        self,
        ids: Tensor,
        places: Tensor,
        masks: dict[str, Tensor],
        cache: Cache,
        position: Tensor | None,
        *,
        last: bool,
    ) -> tuple[Tensor, Cache]:
        layers = [CacheLayer(keys, values, position) for keys, values in cache]
        outputs = self.model(
            input_ids=ids,
            attention_mask=masks if _SLIDING in masks else masks[_FULL],
            position_ids=places,
            past_key_values=cache_utils.Cache(layers=layers),
            use_cache=True,
            logits_to_keep=1 if last else 0,
        )
        return outputs.logits, _kept(layers)


class HubEncoderDecoder(nn.Module):
    """An encoder–decoder of transformers, called as edgekit's `EncoderDecoder`."""

    def __init__(self, model: nn.Module, shape: HubShape) -> None:
        super().__init__()
        self.model, self.config = model, shape

    def read(self, source_ids: Tensor, source_mask: Tensor) -> Tensor:
        """Return the encoder's last hidden state [batch, source length, hidden]."""
        model: Any = self.model
        scores = padding_scores(source_mask.to(torch.float32))
        hidden: Tensor = model.get_encoder()(input_ids=source_ids, attention_mask=scores).last_hidden_state
        return hidden

    def memory_of(self, hidden: Tensor) -> Cache:
        """Return keys and values of the source for each decoder layer."""
        batch, length = hidden.shape[0], hidden.shape[1]
        cross = cache_utils.DynamicCache()
        both = cache_utils.EncoderDecoderCache(cache_utils.DynamicCache(), cross)
        ids = torch.zeros((batch, 1), dtype=torch.int32, device=hidden.device)
        self._call(ids, hidden, hidden.new_zeros((batch, 1, 1, length)), hidden.new_zeros((1, 1, 1, 1)), both)
        return _kept(cross.layers)

    def encode(self, source_ids: Tensor, source_mask: Tensor) -> Cache:
        """Return keys and values of the source, [batch, heads, source length, head_dim], for each decoder layer."""
        return self.memory_of(self.read(source_ids, source_mask))

    def no_cache(self, batch: int) -> Cache:
        """Return the growing cache of no text yet."""
        shape = (batch, self.config.kv_heads, 0, self.config.head_dim)
        return tuple((torch.zeros(shape), torch.zeros(shape)) for _ in range(self.config.decoder_layers))

    def cached(
        self, ids: Tensor, position: Tensor, source_mask: Tensor, memory: Cache, cache: Cache
    ) -> tuple[Tensor, Cache]:
        """Return logits [batch, n, vocab] and the new cache of the same size."""
        places = torch.arange(ids.shape[1], dtype=torch.int32, device=ids.device) + position
        return self._go_on(ids, causal_scores(places, cache[0][0].shape[2]), source_mask, memory, cache, position)

    def grown(self, ids: Tensor, source_mask: Tensor, memory: Cache, cache: Cache) -> tuple[Tensor, Cache]:
        """Return logits [batch, n, vocab] and the longer cache."""
        past, count = cache[0][0].shape[2], ids.shape[1]
        places = torch.arange(count, dtype=torch.int32, device=ids.device) + past
        return self._go_on(ids, causal_scores(places, past + count), source_mask, memory, cache, None)

    def _go_on(
        self,
        ids: Tensor,
        scores: Tensor,
        source_mask: Tensor,
        memory: Cache,
        cache: Cache,
        position: Tensor | None,
    ) -> tuple[Tensor, Cache]:
        layers = [CacheLayer(keys, values, position) for keys, values in cache]
        cross = [CacheLayer(keys, values, None) for keys, values in memory]
        both = cache_utils.EncoderDecoderCache(cache_utils.Cache(layers=layers), cache_utils.Cache(layers=cross))
        both.is_updated = dict.fromkeys(range(len(cross)), True)
        hidden = memory[0][0].new_zeros((ids.shape[0], memory[0][0].shape[2], self.config.hidden_size))
        logits = self._call(ids, hidden, padding_scores(source_mask.to(torch.float32)), scores, both)
        return logits, _kept(layers)

    def _call(self, ids: Tensor, hidden: Tensor, source_scores: Tensor, scores: Tensor, cache: Any) -> Tensor:
        outputs = require("transformers.modeling_outputs", "exporting a model of Hugging Face that writes")
        found = self.model(
            encoder_outputs=outputs.BaseModelOutput(last_hidden_state=hidden),
            attention_mask=source_scores,
            decoder_input_ids=ids,
            decoder_attention_mask=scores,
            past_key_values=cache,
            use_cache=True,
        )
        logits: Tensor = found.logits
        return logits


def _kept(layers: Any) -> Cache:
    return tuple((layer.keys, layer.values) for layer in layers)


def build_hub_writer(model: nn.Module, task: ModelTask, max_length: int) -> Program:
    """The program of a model that writes, with a cache of fixed size, for texts of `max_length` tokens."""
    shape = hub_shape(model, task, max_length)
    signatures = writer_signatures(shape)
    names = input_names(signatures)
    if task == "generate":
        module: nn.Module = FlatDecoder(HubDecoder(model, shape), names)
    else:
        module = FlatEncoderDecoder(HubEncoderDecoder(model, shape), names)
    return Program(framework="torch", module=module.eval(), signatures=signatures)


def hub_shape(model: nn.Module, task: ModelTask, max_length: int) -> HubShape:
    """The sizes of a model; raises RefusedError, with the reason, for one whose layers keep something else."""
    config: Any = model.config
    kind = config.model_type
    if task == "generate" and getattr(config, "is_encoder_decoder", False):
        raise RefusedError(f"{kind} is an encoder–decoder: say --task translation")
    if task == "translate" and not getattr(config, "is_encoder_decoder", False):
        raise RefusedError(f"{kind} is a decoder alone: say --task text-generation")
    _check_layers(config)
    keys, hidden = _tried(model, task)
    if len({tuple(each.shape) for each in keys}) > 1:
        raise RefusedError(f"{kind} has layers whose keys differ in size: edgekit exports those with one size for all")
    return HubShape(
        task=task,
        vocab_size=int(model.get_output_embeddings().weight.shape[0]),  # type: ignore[operator]
        max_length=max_length,
        hidden_size=hidden,
        decoder_layers=len(keys),
        kv_heads=int(keys[0].shape[1]),
        head_dim=int(keys[0].shape[3]),
    )


def _tried(model: nn.Module, task: ModelTask) -> tuple[list[Tensor], int]:
    """The keys that one token leaves in each layer, and the width of the encoder: configurations vary in names."""
    ids = torch.ones((1, 1), dtype=torch.int32)
    cache = cache_utils.DynamicCache()
    if task == "generate":
        with torch.inference_mode():
            model(input_ids=ids, past_key_values=cache, use_cache=True)
        return [layer.keys for layer in cache.layers], 0
    both = cache_utils.EncoderDecoderCache(cache, cache_utils.DynamicCache())
    with torch.inference_mode():
        found = model(input_ids=ids, decoder_input_ids=ids, past_key_values=both, use_cache=True)
    return [layer.keys for layer in cache.layers], int(found.encoder_last_hidden_state.shape[2])


def _check_layers(config: Any) -> None:
    other = sorted(set(getattr(config, "layer_types", None) or ()) - {_SLIDING, _FULL})
    if other:
        raise RefusedError(
            f"{config.model_type} has layers of the kind {other[0]}, which keep other states than keys and values; "
            "edgekit exports models whose layers are full_attention or sliding_attention"
        )

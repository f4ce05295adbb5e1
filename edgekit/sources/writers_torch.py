"""The models that write, in PyTorch, with their caches as flat tensors: what `writers.py`'s signatures run."""

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from edgekit.errors import RefusedError
from edgekit.model.config import TransformerConfig
from edgekit.model.decoder_pytorch import Cache, Decoder, EncoderDecoder, build_model
from edgekit.sources.writers_onnx import by_layer


class FlatDecoder(nn.Module):
    """A Decoder; inputs come by position, or by the names that its signatures give them."""

    def __init__(self, model: Any, names: Mapping[str, tuple[str, ...]]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def prefill(self, *args: Tensor, **kwargs: Tensor) -> tuple[Tensor, ...]:
        """Return the cache with ids [1, n] in it, from `position` on."""
        ids, position, *past = _values(self.names["prefill"], args, kwargs)
        return _flat(self.model.cached(ids, position, _pairs(past))[1])

    def decode(self, *args: Tensor, **kwargs: Tensor) -> tuple[Tensor, ...]:
        """Return logits [1, 1, vocab] of the token after ids [1, 1], and the cache with them in it."""
        ids, position, *past = _values(self.names["decode"], args, kwargs)
        logits, cache = self.model.cached(ids, position, _pairs(past))
        return logits, *_flat(cache)

    def step(self, ids: Tensor, position: Tensor, *past: Tensor) -> tuple[Tensor, ...]:
        """Return logits [1, 1, vocab] of the token after the last of ids [1, n], and the cache with them in it."""
        logits, cache = self.model.cached(ids, position, _pairs(past), last=True)
        return logits, *_flat(cache)

    def grow(self, ids: Tensor, mask: Tensor, places: Tensor, *past: Tensor) -> tuple[Tensor, ...]:
        """Return logits [batch, n, vocab] and the longer cache, as `Decoder.grown`."""
        logits, cache = self.model.grown(ids, mask, places, _pairs(past))
        return logits, *_flat(cache)


class FlatEncoderDecoder(nn.Module):
    """An EncoderDecoder; inputs come by position, or by the names that its signatures give them."""

    def __init__(self, model: Any, names: Mapping[str, tuple[str, ...]]) -> None:
        super().__init__()
        self.model, self.names = model, names
        self._memory = 2 * model.config.num_decoder_blocks  # tensors of it

    def encode(self, *args: Tensor, **kwargs: Tensor) -> tuple[Tensor, ...]:
        """Return keys and values of the source for each decoder block, with zeros behind a text of fewer tokens."""
        source_ids, source_mask = _values(self.names["encode"], args, kwargs)
        missing = self.model.config.max_length - source_ids.shape[1]
        memory = _flat(self.model.encode(source_ids, source_mask))
        return tuple(functional.pad(each, (0, 0, 0, missing)) for each in memory) if missing else memory

    def decode(self, *args: Tensor, **kwargs: Tensor) -> tuple[Tensor, ...]:
        """Return logits [1, 1, vocab] of the token after ids [1, 1], and the decoder's cache with them in it."""
        ids, position, source_mask, *caches = _values(self.names["decode"], args, kwargs)
        memory, past = _pairs(caches[: self._memory]), _pairs(caches[self._memory :])
        logits, cache = self.model.cached(ids, position, source_mask, memory, past)
        return logits, *_flat(cache)

    def read(self, source_ids: Tensor, source_mask: Tensor) -> tuple[Tensor, ...]:
        """Return the encoder's last hidden state, and what `encode` gives."""
        hidden = self.model.read(source_ids, source_mask)
        return hidden, *_flat(self.model.memory_of(hidden))

    def begin(self, source_mask: Tensor, ids: Tensor, hidden: Tensor) -> tuple[Tensor, ...]:
        """Return logits [batch, n, vocab] of texts that begin with ids, the decoder's cache, and the source's."""
        memory = self.model.memory_of(hidden)
        logits, cache = self.model.grown(ids, source_mask, memory, self.model.no_cache(ids.shape[0]))
        return logits, *by_layer(_flat(cache), _flat(memory))

    def grow(self, source_mask: Tensor, ids: Tensor, *caches: Tensor) -> tuple[Tensor, ...]:
        """Return logits [batch, n, vocab] and the decoder's longer cache, as `EncoderDecoder.grown`."""
        numbers = range(len(caches))
        order = by_layer(numbers[: -self._memory], numbers[-self._memory :])
        tensors = [caches[order.index(number)] for number in numbers]
        past, memory = _pairs(tensors[: -self._memory]), _pairs(tensors[-self._memory :])
        logits, cache = self.model.grown(ids, source_mask, memory, past)
        return logits, *_flat(cache)


def build_flat(
    config: TransformerConfig, weights: Mapping[str, NDArray[Any]], names: Mapping[str, tuple[str, ...]]
) -> nn.Module:
    """Return the model of `config` with a method for each of `names`, their inputs, in evaluation mode."""
    model = build_model(config, weights)
    if isinstance(model, Decoder):
        return FlatDecoder(model, names).eval()
    if isinstance(model, EncoderDecoder):
        return FlatEncoderDecoder(model, names).eval()
    raise RefusedError(f"a model for the task {config.task} does not write")


def _values(names: Sequence[str], args: tuple[Tensor, ...], kwargs: Mapping[str, Tensor]) -> list[Tensor]:
    given = dict(zip(names, args, strict=False)) | dict(kwargs)
    return [given[name] for name in names]


def _pairs(tensors: Sequence[Tensor]) -> Cache:
    return tuple(zip(tensors[::2], tensors[1::2], strict=True))


def _flat(cache: Cache) -> tuple[Tensor, ...]:
    return tuple(tensor for pair in cache for tensor in pair)

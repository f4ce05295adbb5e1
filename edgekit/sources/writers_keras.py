"""The models that write, in Keras, with their caches as flat tensors: what `writers.py`'s signatures run."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from edgekit.errors import RefusedError
from edgekit.model.config import TransformerConfig
from edgekit.model.decoder_keras import Cache, Decoder, EncoderDecoder, build_model
from edgekit.model.keras import Tensor

from keras import ops  # isort: skip - edgekit.model.keras chooses the backend first

Tensors = tuple[Tensor, ...]


class FlatModel:
    """A Keras model whose methods take a tuple of tensors and give one."""

    def __init__(self, model: Any) -> None:
        self.model = model

    @property
    def trainable_weights(self) -> list[Any]:
        """The model's weights, to be counted."""
        return list(self.model.trainable_weights)

    def _flatten_layers(self) -> Iterator[Any]:
        yield from self.model._flatten_layers()


class FlatDecoder(FlatModel):
    """A Decoder; inputs come in the order of its signatures."""

    def prefill(self, inputs: Tensors, training: bool = False) -> Tensors:
        """Return the cache with ids [1, n] in it, from `position` on."""
        ids, position, *past = inputs
        return _flat(self.model.cached(ids, position, _pairs(past))[1])

    def decode(self, inputs: Tensors, training: bool = False) -> Tensors:
        """Return logits [1, 1, vocab] of the token after ids [1, 1], and the cache with them in it."""
        ids, position, *past = inputs
        logits, cache = self.model.cached(ids, position, _pairs(past))
        return logits, *_flat(cache)


class FlatEncoderDecoder(FlatModel):
    """An EncoderDecoder; inputs come in the order of its signatures."""

    def encode(self, inputs: Tensors, training: bool = False) -> Tensors:
        """Return keys and values of the source for each decoder block, with zeros behind a text of fewer tokens."""
        source_ids, source_mask = inputs
        missing = self.model.config.max_length - source_ids.shape[1]
        memory = _flat(self.model.encode(source_ids, source_mask))
        return tuple(ops.pad(each, ((0, 0), (0, 0), (0, missing), (0, 0))) for each in memory) if missing else memory

    def decode(self, inputs: Tensors, training: bool = False) -> Tensors:
        """Return logits [1, 1, vocab] of the token after ids [1, 1], and the decoder's cache with them in it."""
        ids, position, source_mask, *caches = inputs
        blocks = 2 * self.model.config.num_decoder_blocks
        memory, past = _pairs(caches[:blocks]), _pairs(caches[blocks:])
        logits, cache = self.model.cached(ids, position, source_mask, memory, past)
        return logits, *_flat(cache)


def build_flat(config: TransformerConfig, weights: Mapping[str, NDArray[Any]]) -> FlatModel:
    """Return the model of `config` with a method for each of its signatures."""
    model = build_model(config, weights)
    if isinstance(model, Decoder):
        return FlatDecoder(model)
    if isinstance(model, EncoderDecoder):
        return FlatEncoderDecoder(model)
    raise RefusedError(f"a model for the task {config.task} does not write")


def _pairs(tensors: Sequence[Tensor]) -> Cache:
    return tuple(zip(tensors[::2], tensors[1::2], strict=True))


def _flat(cache: Cache) -> Tensors:
    return tuple(tensor for pair in cache for tensor in pair)

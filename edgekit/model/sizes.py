"""Named sizes, and what a configuration costs: parameters, multiply-accumulates, bytes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from edgekit.errors import UnknownNameError
from edgekit.model.config import TransformerConfig
from edgekit.model.weights import parameter_shapes
from edgekit.program import ModelTask

BYTES_PER_WEIGHT = 4  # float32, the one dtype of model.safetensors


@dataclass(frozen=True, kw_only=True)
class Size:
    """The shape of a named size; everything else of a configuration keeps its default."""

    hidden_size: int
    num_layers: int
    num_heads: int
    ffn_size: int
    embedding_size: int | None


SIZES: Mapping[str, Size] = MappingProxyType(
    {
        "nano": Size(hidden_size=128, num_layers=2, num_heads=4, ffn_size=512, embedding_size=64),
        "tiny": Size(hidden_size=192, num_layers=4, num_heads=6, ffn_size=768, embedding_size=96),
        "mini": Size(hidden_size=256, num_layers=4, num_heads=8, ffn_size=1024, embedding_size=None),
        "small": Size(hidden_size=384, num_layers=6, num_heads=12, ffn_size=1536, embedding_size=128),
    }
)


@dataclass(frozen=True, kw_only=True)
class SizeRow:
    """One line of `edgekit models`: a named size and its cost for one task, vocabulary, label set and length.

    `cache_size_bytes` is of the keys and values of `length` tokens; 0 where nothing is generated.
    """

    name: str
    config: TransformerConfig
    length: int
    parameters: int
    multiply_accumulates: int
    weights_size_bytes: int
    cache_size_bytes: int


def named_config(size: str, *, vocab_size: int, num_labels: int = 0, **overrides: Any) -> TransformerConfig:
    """Return the configuration of a named size; `overrides` replace any field of TransformerConfig.

    Raises UnknownNameError for an unknown size and pydantic.ValidationError for a bad override.
    """
    if size not in SIZES:
        raise UnknownNameError("size", size, tuple(SIZES))
    fields = {**vars(SIZES[size]), "vocab_size": vocab_size, "num_labels": num_labels, **overrides}
    return TransformerConfig(**fields)


def parameter_count(config: TransformerConfig) -> int:
    """Return the number of trainable parameters."""
    return sum(math.prod(shape) for shape in parameter_shapes(config).values())


def weights_size_bytes(config: TransformerConfig) -> int:
    """Return the bytes of the weights as float32: model.safetensors without its header (a few KB)."""
    return BYTES_PER_WEIGHT * parameter_count(config)


def multiply_accumulates(config: TransformerConfig, length: int) -> int:
    """Return the multiply-accumulates of the matrix products for one example of `length` tokens.

    Counted: the embedding's projection, query, key, value and output, the attention scores and their product
    with the values, the feed-forward layers, the classifier. Not counted, as is usual: look-ups, norms,
    softmax, activations, rotations, pooling. A decoder is counted without a cache, with the scores of the next token
    at every position; of `translate`, both texts have `length` tokens.
    """
    hidden, factorised = config.hidden_size, config.embedding_size is not None
    project = length * config.token_size * hidden if factorised else 0
    attention = 2 * length * hidden * (hidden + config.kv_heads * config.head_dim) + 2 * length * length * hidden
    ffn = (3 if config.gated_ffn else 2) * length * hidden * config.ffn_size
    layers = config.num_layers * (attention + ffn)
    if config.task == "classify":
        return project + layers + hidden * config.num_labels
    if config.task == "translate":
        layers += project + config.decoder_layers * (2 * attention + ffn)
    if config.tied_embeddings:
        return project + layers + project + length * config.token_size * config.vocab_size
    return project + layers + length * hidden * config.vocab_size


def cache_size_bytes(config: TransformerConfig) -> int:
    """Return the bytes of one text's cache of keys and values as float32, without those of cross-attention."""
    return 2 * BYTES_PER_WEIGHT * config.decoder_layers * config.kv_heads * config.head_dim * config.max_length


def size_rows(
    *, task: ModelTask = "classify", vocab_size: int = 8192, num_labels: int = 40, length: int = 64
) -> list[SizeRow]:
    """Return a row for every named size, smallest first; `length` is in tokens, `num_labels` for classify alone."""
    rows = []
    labels = num_labels if task == "classify" else 0
    for name in SIZES:
        config = named_config(name, vocab_size=vocab_size, num_labels=labels, max_length=length, task=task)
        rows.append(
            SizeRow(
                name=name,
                config=config,
                length=length,
                parameters=parameter_count(config),
                multiply_accumulates=multiply_accumulates(config, length),
                weights_size_bytes=weights_size_bytes(config),
                cache_size_bytes=cache_size_bytes(config),
            )
        )
    return rows

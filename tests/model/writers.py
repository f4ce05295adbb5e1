"""Models that write text, small, in both frameworks, behind one interface of numpy arrays."""

import itertools
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgekit.model import decoder_keras, decoder_pytorch
from edgekit.model.config import TransformerConfig
from edgekit.model.weights import Weights, initial_weights

import tensorflow as tf  # isort: skip - edgekit.model.keras chooses the backend first

Ids = NDArray[np.int32]
SIZES: dict[str, Any] = {
    "vocab_size": 50,
    "max_length": 12,
    "hidden_size": 16,
    "num_layers": 2,
    "num_heads": 4,
    "ffn_size": 24,
}
PLAIN: dict[str, Any] = {}
LLAMA: dict[str, Any] = {
    "norm": "rmsnorm",
    "positions": "rotary",
    "activation": "silu",
    "gated_ffn": True,
    "linear_bias": False,
    "num_kv_heads": 2,
}
ONE_KEY: dict[str, Any] = {"num_kv_heads": 1, "embedding_size": 8, "shared_layers": True, "activation": "relu"}
UNTIED: dict[str, Any] = {"tied_embeddings": False, "gated_ffn": True, "embedding_size": 8, "positions": "rotary"}
OPTIONS = (PLAIN, LLAMA, ONE_KEY, UNTIED)
CONFIGS = [
    TransformerConfig(**{**SIZES, "task": task, **({"num_decoder_layers": 1} if uneven else {}), **options})
    for (task, uneven), options in itertools.product((("generate", False), ("translate", False)), OPTIONS)
] + [TransformerConfig(**SIZES, task="translate", num_decoder_layers=1, **LLAMA)]


def name_of(config: TransformerConfig) -> str:
    changed = {key: value for key, value in dict(config).items() if key not in SIZES}
    default = TransformerConfig(**SIZES, task=config.task)
    different = [f"{key}={value}" for key, value in changed.items() if value != getattr(default, key)]
    return "-".join([config.task, *different])


def random_weights(config: TransformerConfig, seed: int) -> Weights:
    """First weights, with every bias and norm moved away from its 0 or 1."""
    generator = np.random.default_rng(seed)
    weights = initial_weights(config, seed)
    return {
        name: tensor + 0.2 * generator.standard_normal(tensor.shape, np.float32) for name, tensor in weights.items()
    }


class InTorch:
    """A model in PyTorch."""

    def __init__(self, config: TransformerConfig, weights: Weights, dtype: torch.dtype = torch.float32) -> None:
        self.config, self.model = config, decoder_pytorch.build_model(config, weights).to(dtype)

    def logits(self, source: Ids, mask: Ids, ids: Ids) -> NDArray[Any]:
        given = (source, mask, ids) if self.config.task == "translate" else (ids,)
        with torch.inference_mode():
            return self.model(*map(torch.from_numpy, given)).numpy()

    def stepwise(self, source: Ids, mask: Ids, chunks: list[Ids]) -> list[NDArray[Any]]:
        """The logits of chunks of a text, one after the other, by the cache."""
        given = tuple(map(torch.from_numpy, (source, mask)))
        found, position = [], 0
        with torch.inference_mode():
            cache = self.model.empty_cache(len(source))
            memory = (given[1], self.model.encode(*given)) if self.config.task == "translate" else ()
            for chunk in chunks:
                at = torch.tensor([position], dtype=torch.int32)
                logits, cache = self.model.cached(torch.from_numpy(chunk), at, *memory, cache)
                found.append(logits.numpy())
                position += chunk.shape[1]
        return found


class InKeras:
    """A model in Keras."""

    def __init__(self, config: TransformerConfig, weights: Weights) -> None:
        self.config, self.model = config, decoder_keras.build_model(config, weights)
        self._graph = tf.function(self.model, reduce_retracing=True)

    def logits(self, source: Ids, mask: Ids, ids: Ids) -> NDArray[Any]:
        return self._graph((source, mask, ids) if self.config.task == "translate" else ids).numpy()

    def stepwise(self, source: Ids, mask: Ids, chunks: list[Ids]) -> list[NDArray[Any]]:
        """The logits of chunks of a text, one after the other, by the cache."""
        found, position = [], 0
        cache = self.model.empty_cache(len(source))
        memory = (mask, self.model.encode(source, mask)) if self.config.task == "translate" else ()
        for chunk in chunks:
            logits, cache = self.model.cached(chunk, np.array([position], np.int32), *memory, cache)
            found.append(logits.numpy())
            position += chunk.shape[1]
        return found


def random_texts(config: TransformerConfig, seed: int, rows: int = 3) -> tuple[Ids, Ids, Ids]:
    """Source ids and mask [rows, 9] of several lengths, and ids [rows, max_length]."""
    generator = np.random.default_rng(seed)
    mask = (np.arange(9) < generator.integers(1, 10, rows)[:, None]).astype(np.int32)
    source = generator.integers(1, config.vocab_size, (rows, 9)).astype(np.int32) * mask
    return source, mask, generator.integers(1, config.vocab_size, (rows, config.max_length)).astype(np.int32)

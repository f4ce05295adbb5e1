"""The weights: their names, shapes, first values and checks, and the one map between the frameworks.

The neutral names are PyTorch's (`blocks.0.attention.query.weight`), in PyTorch's layout ([out, in]).
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import CheckpointError
from edgekit.model.config import TransformerConfig
from edgekit.program import ModelTask

Weights = dict[str, NDArray[np.float32]]

# Added to the score of a position that is padding: its probability underflows to exactly 0 in float32, and
# the number still fits into float16.
MASKED_SCORE = -1e4

_NORMS = ("attention_norm", "ffn_norm", "final_norm")  # cross_attention_norm ends so as well
#: the name of the Keras model of each task, with which the paths of its variables begin
KERAS_NAMES: Mapping[ModelTask, str] = {"classify": "encoder", "generate": "decoder", "translate": "encoder_decoder"}


@dataclass(frozen=True, kw_only=True)
class KerasVariable:
    """Where a weight lives in the Keras model: the variable's path, and whether it is stored transposed."""

    path: str
    transposed: bool


def parameter_shapes(config: TransformerConfig) -> dict[str, tuple[int, ...]]:
    """Return the shape of every parameter by its neutral name, in the order of the computation."""
    hidden = config.hidden_size
    shapes: dict[str, tuple[int, ...]] = {"embed.tokens.weight": (config.vocab_size, config.token_size)}
    if config.embedding_size is not None:
        shapes["embed.project.weight"] = (hidden, config.embedding_size)
    if config.positions == "learned":
        shapes["embed.positions.weight"] = (config.max_length, hidden)
    if config.task == "translate":
        shapes |= _stack_shapes(config, "encoder.", config.num_blocks, cross=False)
        shapes |= _stack_shapes(config, "decoder.", config.num_decoder_blocks, cross=True)
    else:
        shapes |= _stack_shapes(config, "", config.num_blocks, cross=False)
    if config.task == "classify":
        return shapes | _linear_shapes("classifier", config.num_labels, hidden)
    return shapes if config.tied_embeddings else shapes | {"head.weight": (config.vocab_size, hidden)}


def _stack_shapes(config: TransformerConfig, prefix: str, blocks: int, *, cross: bool) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for index in range(blocks):
        shapes |= _block_shapes(config, f"{prefix}blocks.{index}", cross=cross)
    return shapes | _norm_shapes(config, f"{prefix}final_norm")


def _block_shapes(config: TransformerConfig, block: str, *, cross: bool) -> dict[str, tuple[int, ...]]:
    hidden, ffn, bias = config.hidden_size, config.ffn_size, config.linear_bias
    shapes = _attention_shapes(config, f"{block}.attention")
    if cross:
        shapes |= _attention_shapes(config, f"{block}.cross_attention")
    shapes |= _norm_shapes(config, f"{block}.ffn_norm")
    if config.gated_ffn:
        shapes |= _linear_shapes(f"{block}.ffn.gate", ffn, hidden, bias=bias)
    shapes |= _linear_shapes(f"{block}.ffn.up", ffn, hidden, bias=bias)
    return shapes | _linear_shapes(f"{block}.ffn.down", hidden, ffn, bias=bias)


def _attention_shapes(config: TransformerConfig, attention: str) -> dict[str, tuple[int, ...]]:
    hidden, shapes = config.hidden_size, _norm_shapes(config, f"{attention}_norm")
    for part in ("query", "key", "value", "output"):
        size = config.kv_heads * config.head_dim if part in ("key", "value") else hidden
        shapes |= _linear_shapes(f"{attention}.{part}", size, hidden, bias=config.linear_bias)
    return shapes


def _norm_shapes(config: TransformerConfig, name: str) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {f"{name}.weight": (config.hidden_size,)}
    return shapes | {f"{name}.bias": (config.hidden_size,)} if config.norm == "layernorm" else shapes


def _linear_shapes(name: str, size_out: int, size_in: int, *, bias: bool = True) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {f"{name}.weight": (size_out, size_in)}
    return shapes | {f"{name}.bias": (size_out,)} if bias else shapes


def initial_weights(config: TransformerConfig, seed: int) -> Weights:
    """Return first weights, drawn by numpy alone so that training starts alike in both frameworks.

    Biases are 0 and norm weights 1. Tokens have the standard deviation width**-0.5 (tensor2tensor),
    positions 0.02, matrices sqrt(2 / (in + out)) (Glorot); those that write into the residual stream are
    divided by sqrt(2 * num_layers) (GPT-2), with cross-attention by sqrt(3 * layers of the decoder).
    """
    generator = np.random.default_rng(seed)
    return {name: _initial_tensor(config, name, shape, generator) for name, shape in parameter_shapes(config).items()}


def _initial_tensor(
    config: TransformerConfig, name: str, shape: tuple[int, ...], generator: np.random.Generator
) -> NDArray[np.float32]:
    module, leaf = name.rsplit(".", 1)
    if leaf == "bias":
        return np.zeros(shape, np.float32)
    if module.endswith(_NORMS):
        return np.ones(shape, np.float32)
    if module == "embed.tokens":
        deviation = shape[1] ** -0.5
    elif module == "embed.positions":
        deviation = 0.02
    elif module == "head":
        deviation = shape[1] ** -0.5
    else:
        deviation = math.sqrt(2 / sum(shape))
    if module.endswith(("attention.output", "ffn.down")):
        deviation /= math.sqrt(_residual_writes(config, module))
    return generator.standard_normal(shape, np.float32) * np.float32(deviation)


def _residual_writes(config: TransformerConfig, module: str) -> int:
    """How many matrices write into the residual stream that `module` writes into."""
    return 3 * config.decoder_layers if module.startswith("decoder.") else 2 * config.num_layers


def rotary_table(config: TransformerConfig) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return (cos, sin), each [max_length, head_dim]: the constants of rotary positions (arXiv:2104.09864).

    Half-rotation form: dimension i turns with i + head_dim / 2, by position * 10000**(-2i / head_dim).
    """
    half = config.head_dim // 2
    frequencies = 10_000.0 ** (-np.arange(half) / half)
    angles = np.tile(np.outer(np.arange(config.max_length), frequencies), 2)
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def check_weights(config: TransformerConfig, weights: Mapping[str, NDArray[Any]]) -> None:
    """Raise CheckpointError, naming the tensor, unless `weights` are exactly what `config` describes.

    A tensor missing, unexpected, of the wrong shape, not float32, or with NaN or infinity in it is an error.
    """
    shapes = parameter_shapes(config)
    for name in shapes:
        if name not in weights:
            raise CheckpointError(f"the weights lack the tensor {name!r} that the configuration describes")
    for name in weights:
        if name not in shapes:
            raise CheckpointError(f"the weights hold a tensor {name!r} that the configuration does not describe")
    for name, shape in shapes.items():
        _check_tensor(name, weights[name], shape)


def _check_tensor(name: str, tensor: NDArray[Any], shape: tuple[int, ...]) -> None:
    if tensor.shape != shape:
        raise CheckpointError(
            f"the tensor {name!r} has the shape {list(tensor.shape)}; the configuration says {list(shape)}"
        )
    if tensor.dtype != np.float32:
        raise CheckpointError(f"the tensor {name!r} is {tensor.dtype}; weights are float32")
    broken = int(np.size(tensor) - np.count_nonzero(np.isfinite(tensor)))
    if broken:
        raise CheckpointError(f"the tensor {name!r} holds {broken} NaN or infinite values of {np.size(tensor)}")


def keras_variables(config: TransformerConfig) -> dict[str, KerasVariable]:
    """Return the Keras variable of every parameter: its path is the neutral name's, its leaf Keras's."""
    return {name: _keras_variable(config, name) for name in parameter_shapes(config)}


def _keras_variable(config: TransformerConfig, name: str) -> KerasVariable:
    module, leaf = name.rsplit(".", 1)
    transposed = False
    if module in ("embed.tokens", "embed.positions"):
        leaf = "embeddings"
    elif module.endswith(_NORMS):
        leaf = {"weight": "gamma" if config.norm == "layernorm" else "scale", "bias": "beta"}[leaf]
    elif leaf == "weight":
        leaf, transposed = "kernel", True
    # A block is one Keras layer, named "blocks.0": the dot before its number stays.
    layers = re.sub(r"\.(?!\d)", "/", module)
    return KerasVariable(path=f"{KERAS_NAMES[config.task]}/{layers}/{leaf}", transposed=transposed)

"""The Transformer in PyTorch: plain modules that torch.export and every converter can follow.

Attention is written out as matrix products and a softmax, because converters differ in what they make of
`scaled_dot_product_attention`, and `nn.TransformerEncoderLayer` does not export by its fast path (pytorch
issue 94434).
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from edgekit.model.config import TransformerConfig
from edgekit.model.weights import MASKED_SCORE, Weights, check_weights, parameter_shapes, rotary_table

Rotary = tuple[Tensor, Tensor]
KeyValue = tuple[Tensor, Tensor]  # keys and values, each [batch, kv_heads, length, head_dim]
Memory = tuple[Tensor, Tensor, Tensor]  # keys and values of another text, and what is added to their scores


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "relu": functional.relu,
    "silu": functional.silu,
}
ModelType = TypeVar("ModelType", bound="Model")


class RMSNorm(nn.Module):
    """x * rsqrt(mean(x²) + eps) * weight over the last axis (arXiv:1910.07467)."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x [..., size]."""
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.weight


def make_norm(config: TransformerConfig) -> nn.Module:
    """Return the norm that the configuration names."""
    if config.norm == "rmsnorm":
        return RMSNorm(config.hidden_size, config.norm_eps)
    return nn.LayerNorm(config.hidden_size, eps=config.norm_eps)


def rotate(x: Tensor, rotary: Rotary) -> Tensor:
    """Rotate x [batch, heads, length, head_dim] by its positions' (cos, sin) [length, head_dim], or one per text."""
    cos, sin = rotary
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


class Attention(nn.Module):
    """Multi-head attention of `x` over `source` (arXiv:1706.03762), grouped where there are fewer keys' heads."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.num_heads, self.kv_heads, self.head_dim = config.num_heads, config.kv_heads, config.head_dim
        kv_size, bias = config.kv_heads * config.head_dim, config.linear_bias
        self.query = nn.Linear(config.hidden_size, config.hidden_size, bias)
        self.key = nn.Linear(config.hidden_size, kv_size, bias)
        self.value = nn.Linear(config.hidden_size, kv_size, bias)
        self.output = nn.Linear(config.hidden_size, config.hidden_size, bias)

    def forward(self, x: Tensor, source: Tensor, mask: Tensor, rotary: Rotary | None) -> Tensor:
        """Return [batch, length, hidden] for x of that shape and source [batch, length of source, hidden].

        `mask` is added to the scores [batch, heads, length, length of source]; `rotary` turns queries and
        keys.
        """
        return self.attend(*self.project(x, source, rotary), mask)

    def project(self, x: Tensor, source: Tensor, rotary: Rotary | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return the scaled queries of x [batch, heads, length, head_dim], and keys and values of source."""
        query = self.queries(x)
        key, value = self.keys_values(source)
        if rotary is not None:
            query, key = rotate(query, rotary), rotate(key, rotary)
        return query, key, value

    def queries(self, x: Tensor) -> Tensor:
        """[batch, length, hidden] -> [batch, heads, length, head_dim], scaled, without positions."""
        return self._split(self.query(x), self.num_heads) * self.head_dim**-0.5

    def keys_values(self, source: Tensor) -> KeyValue:
        """[batch, length, hidden] -> keys and values [batch, kv_heads, length, head_dim], without positions."""
        return self._split(self.key(source), self.kv_heads), self._split(self.value(source), self.kv_heads)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        """Return [batch, length, hidden] for queries, and keys and values of any length."""
        group, length = self.num_heads // self.kv_heads, query.shape[2]
        if group > 1:  # heads that share keys become rows: no key is copied
            query = query.unflatten(1, (self.kv_heads, group)).flatten(2, 3)
            mask = mask if mask.shape[2] == 1 else mask.repeat(1, 1, group, 1)
        heads = self.probabilities(self.masked_scores(query, key, mask)) @ value
        if group > 1:
            heads = heads.unflatten(2, (group, length)).flatten(1, 2)
        return self.output(heads.transpose(1, 2).flatten(2))

    def masked_scores(self, query: Tensor, key: Tensor, mask: Tensor) -> Tensor:
        """Return query · key + mask, [batch, heads, length, length of source]."""
        return query @ key.transpose(-1, -2) + mask

    def probabilities(self, scores: Tensor) -> Tensor:
        """Return the softmax of scores over the last axis."""
        return torch.softmax(scores, dim=-1)

    def _split(self, x: Tensor, heads: int) -> Tensor:
        """[batch, length, heads * head_dim] -> [batch, heads, length, head_dim]."""
        return x.unflatten(-1, (heads, self.head_dim)).transpose(1, 2)


class FeedForward(nn.Module):
    """hidden -> ffn -> hidden with the configuration's activation, of the gate where there is one."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[config.activation]
        size, bias = config.ffn_size, config.linear_bias
        self.gate = nn.Linear(config.hidden_size, size, bias) if config.gated_ffn else None
        self.up = nn.Linear(config.hidden_size, size, bias)
        self.down = nn.Linear(size, config.hidden_size, bias)

    def forward(self, x: Tensor) -> Tensor:
        """[..., hidden] -> [..., hidden]."""
        if self.gate is not None:
            return self.down(self.activation(self.gate(x)) * self.up(x))
        return self.down(self.activation(self.up(x)))


class Block(nn.Module):
    """One pre-norm block (arXiv:2002.04745): x + attention(norm(x)), then x + ffn(norm(x)).

    With `cross`, attention to another text, the memory, comes between the two.
    """

    def __init__(self, config: TransformerConfig, *, cross: bool = False) -> None:
        super().__init__()
        self.attention_norm = make_norm(config)
        self.attention = Attention(config)
        self.cross_attention_norm = make_norm(config) if cross else None
        self.cross_attention = Attention(config) if cross else None
        self.ffn_norm = make_norm(config)
        self.ffn = FeedForward(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor, rotary: Rotary | None, memory: Memory | None = None) -> Tensor:
        """[batch, length, hidden] -> the same; `mask` and `rotary` as in Attention."""
        normed = self.attention_norm(x)
        return self.after_attention(x, self.attention(normed, normed, mask, rotary), memory)

    def cached(
        self,
        x: Tensor,
        mask: Tensor,
        rotary: Rotary | None,
        past: KeyValue,
        position: Tensor | None,
        memory: Memory | None = None,
    ) -> tuple[Tensor, KeyValue]:
        """Return what `forward` does for the texts that `past` begins and x goes on with, and the cache with x in it.

        `past` is [batch, kv_heads, longest length, head_dim], filled up to `position` int32 [1], or, with None, as long
        as what it holds: then x makes it longer. `mask` is for all of it.
        """
        normed = self.attention_norm(x)
        query, key, value = self.attention.project(normed, normed, rotary)
        present = (write_cache(past[0], key, position), write_cache(past[1], value, position))
        return self.after_attention(x, self.attention.attend(query, *present, mask), memory), present

    def memory_of(self, source: Tensor) -> KeyValue:
        """Return keys and values of another text [batch, length, hidden], for a block with `cross`."""
        if self.cross_attention is None:
            raise TypeError("this block has no cross-attention")
        return self.cross_attention.keys_values(source)

    def after_attention(self, x: Tensor, attended: Tensor, memory: Memory | None) -> Tensor:
        """Return what the block makes of x and what its attention gave for it."""
        x = x + self.dropout(attended)
        norm, attention = self.cross_attention_norm, self.cross_attention
        if norm is not None and attention is not None and memory is not None:
            query = attention.queries(norm(x))
            x = x + self.dropout(attention.attend(query, *memory))
        return x + self.dropout(self.ffn(self.ffn_norm(x)))


def rows_at(table: Tensor, places: Tensor) -> Tensor:
    """Return the rows of table [rows, size] at places [n] or [batch, n]."""
    return table.index_select(0, places) if places.dim() == 1 else functional.embedding(places, table)


def at_most(places: Tensor, last: int) -> Tensor:
    """Return whole numbers, none above `last`; not by clamp, which coremltools 9.0 turns into floats."""
    return torch.minimum(places, torch.full_like(places, last))


def write_cache(cache: Tensor, new: Tensor, position: Tensor | None) -> Tensor:
    """Return cache [batch, heads, longest, head_dim] with new [batch, heads, n, head_dim] from `position` int32 [1] on.

    Written as a gather and a choice, which every converter knows; what would lie behind the end is left out. With
    None, new is put behind the cache: [batch, heads, longest + n, head_dim].
    """
    if position is None:
        return torch.cat((cache, new), dim=2)
    place = torch.arange(cache.shape[2], dtype=torch.int32, device=cache.device) - position
    count = new.shape[2]
    if count > 1:
        new = new.index_select(2, at_most(torch.maximum(place, torch.zeros_like(place)), count - 1))
    written = torch.logical_and(place >= 0, place < count)  # coremltools 9.0 knows no "&"
    return torch.where(written[:, None], new, cache)


class Embedding(nn.Module):
    """Token table and, where the configuration has them, its projection and learned positions."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.tokens = nn.Embedding(config.vocab_size, config.token_size)
        factorised, learned = config.embedding_size is not None, config.positions == "learned"
        self.project = nn.Linear(config.token_size, config.hidden_size, bias=False) if factorised else None
        self.positions = nn.Embedding(config.max_length, config.hidden_size) if learned else None
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, ids: Tensor, places: Tensor | None = None) -> Tensor:
        """ids [batch, length] -> [batch, length, hidden]; `places`, [length] or so: other than from 0 on."""
        x = self.tokens(ids)
        if self.project is not None:
            x = self.project(x)
        if self.positions is not None:
            weight = self.positions.weight
            x = x + (weight[: ids.shape[1]] if places is None else rows_at(weight, places))
        return self.dropout(x)

    def scores(self, x: Tensor) -> Tensor:
        """Return the scores of every token [..., vocab] for x [..., hidden], by the same table that looks them up."""
        if self.project is not None:
            x = x @ self.project.weight
        return functional.linear(x, self.tokens.weight)


class Model(nn.Module):
    """What the three models have in common: the embedding, and the constants of rotary positions.

    `state_dict()` has the neutral names of the weights.
    """

    rotary_cos: Tensor
    rotary_sin: Tensor

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.masked_score = MASKED_SCORE
        self.embed = Embedding(config)
        if config.positions == "rotary":
            cos, sin = rotary_table(config)
            self.register_buffer("rotary_cos", torch.from_numpy(cos), persistent=False)
            self.register_buffer("rotary_sin", torch.from_numpy(sin), persistent=False)

    def rotary(self, length: int) -> Rotary | None:
        """Return the rotations of the first `length` positions."""
        if self.config.positions != "rotary":
            return None
        return self.rotary_cos[:length], self.rotary_sin[:length]

    def rotary_at(self, places: Tensor) -> Rotary | None:
        """Return the rotations of positions, int32 [n] or, of each text, [batch, n]."""
        if self.config.positions != "rotary":
            return None
        cos, sin = rows_at(self.rotary_cos, places), rows_at(self.rotary_sin, places)
        return (cos, sin) if places.dim() == 1 else (cos[:, None], sin[:, None])


class Encoder(Model):
    """The encoder with its classification head."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_blocks))
        self.final_norm = make_norm(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Return logits [batch, num_labels] for int32 ids and mask [batch, length]; 1 in the mask is a token.

        `length` may be anything up to `max_length`; padding goes to the right. The mask may be float32 and
        [batch, 1, 1, length] as well.
        """
        present, additive = self._masks(mask)
        rotary = self.rotary(ids.shape[1])
        x = self.embed(ids)
        for block in layers_of(self.blocks, self.config.num_layers):
            x = block(x, additive, rotary)
        return self.classifier(self._pool(self.final_norm(x), present))

    def _masks(self, mask: Tensor) -> tuple[Tensor, Tensor]:
        """What is a token [batch, length], and what is added to the scores [batch, 1, 1, length]."""
        present = mask.to(self.classifier.weight.dtype)
        additive = (1.0 - present) * self.masked_score
        return (present.flatten(1), additive) if mask.dim() == 4 else (present, additive[:, None, None, :])

    def _pool(self, x: Tensor, present: Tensor) -> Tensor:
        """[batch, length, hidden] -> [batch, hidden]: the first token or the mean over tokens present."""
        if self.config.pooling == "first":
            return x[:, 0]
        total = (x * present[:, :, None]).sum(1)
        return total / present.sum(1, keepdim=True).clamp(min=1.0)


def padding_scores(present: Tensor) -> Tensor:
    """Return what is added to scores, [batch, 1, 1, length], for 1 where a text has a token, [batch, length]."""
    return ((1.0 - present) * MASKED_SCORE)[:, None, None, :]


def layers_of(blocks: nn.ModuleList, num_layers: int) -> Iterator[Block]:
    """Yield the block of every layer: with shared layers the same one again and again."""
    for index in range(num_layers):
        yield cast(Block, blocks[index % len(blocks)])


def build_encoder(config: TransformerConfig, weights: Mapping[str, NDArray[Any]]) -> Encoder:
    """Return the encoder with `weights` (neutral names, float32), in evaluation mode.

    Raises CheckpointError for weights that are not what `config` describes.
    """
    return load_weights(Encoder(config), weights)


def load_weights(model: ModelType, weights: Mapping[str, NDArray[Any]]) -> ModelType:
    """Return the model with `weights` (neutral names, float32), in evaluation mode.

    Raises CheckpointError for weights that are not what its configuration describes.
    """
    check_weights(model.config, weights)
    model.load_state_dict({name: torch.tensor(tensor) for name, tensor in weights.items()})
    return model.eval()


def model_weights(module: Model) -> Weights:
    """Return a copy of the weights by neutral name, float32, bit for bit what `load_weights` would load."""
    state = module.state_dict()
    return {
        name: np.array(state[name].detach().cpu().numpy(), dtype=np.float32) for name in parameter_shapes(module.config)
    }


def classification_loss(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Return the mean cross-entropy over the batch: logits [batch, num_labels], integer labels [batch].

    With label smoothing s the target is (1 - s) on the label plus s / num_labels on each (arXiv:1512.00567).
    """
    log_probabilities = functional.log_softmax(logits, dim=-1)
    chosen = log_probabilities.gather(-1, labels.long()[:, None])[:, 0]
    smooth = log_probabilities.mean(-1)
    return -((1.0 - label_smoothing) * chosen + label_smoothing * smooth).mean()

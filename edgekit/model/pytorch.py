"""The Transformer in PyTorch: plain modules that torch.export and every converter can follow.

Attention is written out as matrix products and a softmax, because converters differ in what they make of
`scaled_dot_product_attention`, and `nn.TransformerEncoderLayer` does not export by its fast path (pytorch
issue 94434).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from edgekit.model.config import TransformerConfig
from edgekit.model.weights import MASKED_SCORE, Weights, check_weights, parameter_shapes, rotary_table

Rotary = tuple[Tensor, Tensor]


class RMSNorm(nn.Module):
    """x * rsqrt(mean(x²) + eps) * weight over the last axis (arXiv:1910.07467)."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x [..., size]."""
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.weight


def _norm(config: TransformerConfig) -> nn.Module:
    if config.norm == "rmsnorm":
        return RMSNorm(config.hidden_size, config.norm_eps)
    return nn.LayerNorm(config.hidden_size, eps=config.norm_eps)


def rotate(x: Tensor, rotary: Rotary) -> Tensor:
    """Rotate x [batch, heads, length, head_dim] by its positions' (cos, sin) [length, head_dim]."""
    cos, sin = rotary
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


class Attention(nn.Module):
    """Multi-head attention of `x` over `source` (arXiv:1706.03762)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.num_heads, self.head_dim = config.num_heads, config.head_dim
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(config.hidden_size, config.hidden_size)
        self.value = nn.Linear(config.hidden_size, config.hidden_size)
        self.output = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, x: Tensor, source: Tensor, mask: Tensor, rotary: Rotary | None) -> Tensor:
        """Return [batch, length, hidden] for x of that shape and source [batch, length of source, hidden].

        `mask` is added to the scores [batch, heads, length, length of source]; `rotary` turns queries and
        keys.
        """
        query = self._split(self.query(x)) * self.head_dim**-0.5
        key, value = self._split(self.key(source)), self._split(self.value(source))
        if rotary is not None:
            query, key = rotate(query, rotary), rotate(key, rotary)
        heads = self.probabilities(self.masked_scores(query, key, mask)) @ value
        return self.output(heads.transpose(1, 2).flatten(2))

    def masked_scores(self, query: Tensor, key: Tensor, mask: Tensor) -> Tensor:
        """Return query · key + mask, [batch, heads, length, length of source]."""
        return query @ key.transpose(-1, -2) + mask

    def probabilities(self, scores: Tensor) -> Tensor:
        """Return the softmax of scores over the last axis."""
        return torch.softmax(scores, dim=-1)

    def _split(self, x: Tensor) -> Tensor:
        """[batch, length, hidden] -> [batch, heads, length, head_dim]."""
        return x.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)


class FeedForward(nn.Module):
    """hidden -> ffn -> hidden with the configuration's activation."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.activation = functional.relu if config.activation == "relu" else functional.gelu
        self.up = nn.Linear(config.hidden_size, config.ffn_size)
        self.down = nn.Linear(config.ffn_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """[..., hidden] -> [..., hidden]."""
        return self.down(self.activation(self.up(x)))


class Block(nn.Module):
    """One pre-norm block (arXiv:2002.04745): x + attention(norm(x)), then x + ffn(norm(x))."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.attention_norm = _norm(config)
        self.attention = Attention(config)
        self.ffn_norm = _norm(config)
        self.ffn = FeedForward(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor, rotary: Rotary | None) -> Tensor:
        """[batch, length, hidden] -> the same; `mask` and `rotary` as in Attention."""
        normed = self.attention_norm(x)
        x = x + self.dropout(self.attention(normed, normed, mask, rotary))
        return x + self.dropout(self.ffn(self.ffn_norm(x)))


class Embedding(nn.Module):
    """Token table and, where the configuration has them, its projection and learned positions."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.tokens = nn.Embedding(config.vocab_size, config.token_size)
        factorised, learned = config.embedding_size is not None, config.positions == "learned"
        self.project = nn.Linear(config.token_size, config.hidden_size, bias=False) if factorised else None
        self.positions = nn.Embedding(config.max_length, config.hidden_size) if learned else None
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, ids: Tensor) -> Tensor:
        """ids [batch, length] -> [batch, length, hidden]."""
        x = self.tokens(ids)
        if self.project is not None:
            x = self.project(x)
        if self.positions is not None:
            x = x + self.positions.weight[: ids.shape[1]]
        return self.dropout(x)


class Encoder(nn.Module):
    """The encoder with its classification head; `state_dict()` has the neutral names of the weights."""

    rotary_cos: Tensor
    rotary_sin: Tensor

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.masked_score = MASKED_SCORE
        self.embed = Embedding(config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_blocks))
        self.final_norm = _norm(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        if config.positions == "rotary":
            cos, sin = rotary_table(config)
            self.register_buffer("rotary_cos", torch.from_numpy(cos), persistent=False)
            self.register_buffer("rotary_sin", torch.from_numpy(sin), persistent=False)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Return logits [batch, num_labels] for int32 ids and mask [batch, length]; 1 in the mask is a token.

        `length` may be anything up to `max_length`; padding goes to the right. The mask may be float32 and
        [batch, 1, 1, length] as well.
        """
        present, additive = self._masks(mask)
        rotary = self._rotary(ids.shape[1])
        x = self.embed(ids)
        for index in range(self.config.num_layers):
            x = self.blocks[index % self.config.num_blocks](x, additive, rotary)
        return self.classifier(self._pool(self.final_norm(x), present))

    def _masks(self, mask: Tensor) -> tuple[Tensor, Tensor]:
        """What is a token [batch, length], and what is added to the scores [batch, 1, 1, length]."""
        present = mask.to(self.classifier.weight.dtype)
        additive = (1.0 - present) * self.masked_score
        return (present.flatten(1), additive) if mask.dim() == 4 else (present, additive[:, None, None, :])

    def _rotary(self, length: int) -> Rotary | None:
        if self.config.positions != "rotary":
            return None
        return self.rotary_cos[:length], self.rotary_sin[:length]

    def _pool(self, x: Tensor, present: Tensor) -> Tensor:
        """[batch, length, hidden] -> [batch, hidden]: the first token or the mean over tokens present."""
        if self.config.pooling == "first":
            return x[:, 0]
        total = (x * present[:, :, None]).sum(1)
        return total / present.sum(1, keepdim=True).clamp(min=1.0)


def build_encoder(config: TransformerConfig, weights: Mapping[str, NDArray[Any]]) -> Encoder:
    """Return the encoder with `weights` (neutral names, float32), in evaluation mode.

    Raises CheckpointError for weights that are not what `config` describes.
    """
    check_weights(config, weights)
    encoder = Encoder(config)
    encoder.load_state_dict({name: torch.tensor(tensor) for name, tensor in weights.items()})
    return encoder.eval()


def encoder_weights(module: Encoder) -> Weights:
    """Return a copy of the weights by neutral name, float32, bit for bit what `build_encoder` would load."""
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

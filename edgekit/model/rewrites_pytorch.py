"""Rewrites of the PyTorch encoder; `rewrites_keras.py` has the same arithmetic."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgekit.model.pytorch import Attention, Encoder, RMSNorm, Rotary, rotate
from edgekit.model.rewrites import FP16_MASK, FP16_NORM, FUSED_HEADS, GELU_TANH, SMALL_MASKED_SCORE, SPLIT_HEADS


def rewrite_encoder(encoder: Encoder, rewrites: Sequence[str]) -> Encoder:
    """Rewrite the encoder in place and return it; its weights stay, in other matrices where heads are fused or split.

    It answers to float masks of rank 4 as it is.
    """
    block: Any  # typed as a Block, it would take no other attention
    for block in encoder.blocks:
        if GELU_TANH in rewrites:
            block.ffn.activation = partial(functional.gelu, approximate="tanh")
        if FUSED_HEADS in rewrites:
            block.attention = FusedAttention(block.attention)
        if SPLIT_HEADS in rewrites:
            block.attention = SplitAttention(block.attention)
        if FP16_NORM in rewrites:
            block.attention_norm, block.ffn_norm = SafeNorm(block.attention_norm), SafeNorm(block.ffn_norm)
    if FP16_NORM in rewrites:
        encoder.final_norm = SafeNorm(encoder.final_norm)
    if FP16_MASK in rewrites:
        encoder.masked_score = SMALL_MASKED_SCORE
    return encoder.eval()


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    made = nn.Linear(weight.shape[1], weight.shape[0])
    made.load_state_dict({"weight": weight.detach(), "bias": bias.detach()})
    return made


class FusedAttention(nn.Module):
    """Self-attention with one projection for queries, keys and values."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.num_heads, self.head_dim = attention.num_heads, attention.head_dim
        parts = (attention.query, attention.key, attention.value)
        self.projection = _linear(torch.cat([p.weight for p in parts]), torch.cat([p.bias for p in parts]))
        self.output = attention.output

    def forward(self, x: Tensor, source: Tensor, mask: Tensor, rotary: Rotary | None) -> Tensor:
        """As `Attention.forward`, where `source` is `x`."""
        query, key, value = (
            part.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)
            for part in self.projection(x).chunk(3, dim=-1)
        )
        return self.output(_attend(query, key, value, mask, rotary).transpose(1, 2).flatten(2))


class SplitAttention(nn.Module):
    """Self-attention with projections for each head, no tensor of rank 4."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        size = attention.head_dim
        starts = range(0, size * attention.num_heads, size)

        def split(part: nn.Linear) -> nn.ModuleList:
            return nn.ModuleList(_linear(part.weight[i : i + size], part.bias[i : i + size]) for i in starts)

        self.queries, self.keys, self.values = map(split, (attention.query, attention.key, attention.value))
        self.output = attention.output

    def forward(self, x: Tensor, source: Tensor, mask: Tensor, rotary: Rotary | None) -> Tensor:
        """As `Attention.forward`, where `source` is `x`."""
        projections = zip(self.queries, self.keys, self.values, strict=True)
        heads = [_attend(query(x), key(x), value(x), mask[:, 0], rotary) for query, key, value in projections]
        return self.output(torch.cat(heads, dim=-1))


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, rotary: Rotary | None) -> Tensor:
    """Softmax of query · key + mask, times value; each [..., length, head_dim]."""
    query = query * query.shape[-1] ** -0.5
    if rotary is not None:
        query, key = rotate(query, rotary), rotate(key, rotary)
    return torch.softmax(query @ key.transpose(-1, -2) + mask, dim=-1) @ value


class SafeNorm(nn.Module):
    """A norm that divides by the largest value of a row before it squares; the same result but for rounding."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        assert isinstance(norm, (nn.LayerNorm, RMSNorm))
        self.centred, self.root_eps = isinstance(norm, nn.LayerNorm), norm.eps**0.5
        self.weight, self.bias = norm.weight, norm.bias if isinstance(norm, nn.LayerNorm) else None

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x [..., size]."""
        largest = x.abs().amax(-1, keepdim=True).clamp(min=1.0)
        x = x / largest
        if self.centred:
            x = x - x.mean(-1, keepdim=True)
        x = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + (self.root_eps / largest).square()) * self.weight
        return x if self.bias is None else x + self.bias

"""Models that write, with the attention of each layer as one operator of ONNX Runtime, com.microsoft's
GroupQueryAttention.

It turns queries and keys by their positions, puts keys and values behind the cache, and computes scores, softmax and
heads. Written out, those are 40 operators a layer, of which few use a second thread, and the cache is copied in each
call; here cache and new cache may be one buffer. Rotations tell how far tokens are apart, so the operator turns each by
its place in the cache: of a text that is padded before its first token, all places are off by the same number.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from edgekit.model.decoder_pytorch import Cache, Decoder, EncoderDecoder
from edgekit.model.pytorch import Attention, Block, KeyValue, Memory, at_most, padding_scores
from edgekit.program import Program
from edgekit.sources.writers_torch import FlatDecoder, FlatEncoderDecoder

_ATTENTION = "com.microsoft::GroupQueryAttention"
#: the size of a head is a multiple of this in ONNX Runtime 1.31's operator; of the other where it turns heads
HEAD, TURNED_HEAD = 8, 16


@dataclass(frozen=True, kw_only=True)
class Call:
    """What all layers of a call have in common.

    `length` is that of the new cache, which is filled with `total` int32 [1] tokens: `last` int32 [batch] is the place
    of the last one in each text. `hidden` float32 [batch, 1, n, length] is added to scores.
    """

    length: Any
    total: Tensor
    last: Tensor
    hidden: Tensor | None = None


def fused(program: Program) -> Program:
    """The program whose self-attention, where a cache goes in, is one operator; itself where its heads do not fit.

    What comes out can only be exported, not run.
    """
    flat: Any = program.module
    model = getattr(flat, "model", None)
    if isinstance(model, Decoder) and _fits(model):
        return replace(program, module=FlatDecoder(FusedDecoder(model), flat.names).eval())
    if isinstance(model, EncoderDecoder) and _fits(model):
        return replace(program, module=FlatEncoderDecoder(FusedEncoderDecoder(model), flat.names).eval())
    if isinstance(flat, FlatDecoder):
        from edgekit.export.onnx_fused_hub import fused_hub_decoder

        other = fused_hub_decoder(model)
        return program if other is None else replace(program, module=FlatDecoder(other, flat.names).eval())
    return program


def _fits(model: Decoder | EncoderDecoder) -> bool:
    return model.config.head_dim % (TURNED_HEAD if model.config.positions == "rotary" else HEAD) == 0


def attend(
    given: tuple[Tensor, Tensor, Tensor],
    past: KeyValue,
    call: Call,
    *,
    heads: int,
    scale: float,
    rotary: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return heads [batch, n, heads * head_dim], and the keys and values of the new cache.

    `given` are queries, keys and values [batch, n, …] of ids; the former two are turned by `rotary`, cosines and sines
    [longest, head_dim / 2] of each place.
    """
    query, (batch, kv_heads, _, head_dim) = given[0], past[0].shape
    present = (batch, kv_heads, call.length, head_dim)
    found = torch.onnx.ops.symbolic_multi_out(
        _ATTENTION,
        (*given, *past, call.last, call.total, *(rotary or (None, None)), None, call.hidden),
        {"num_heads": heads, "kv_num_heads": kv_heads, "scale": scale, "do_rotary": int(rotary is not None)},
        dtypes=(query.dtype,) * 3,
        shapes=(query.shape, present, present),
        version=1,
    )
    return found[0], found[1], found[2]


class _Fused(nn.Module):
    """A model with tables of its rotations as the operator takes them: the first half of each row."""

    model: Decoder | EncoderDecoder
    rotary_cos: Tensor
    rotary_sin: Tensor

    def __init__(self, model: Decoder | EncoderDecoder) -> None:
        super().__init__()
        self.model, self.config = model, model.config
        if self.config.positions == "rotary":
            half = self.config.head_dim // 2
            self.register_buffer("rotary_cos", model.rotary_cos[:, :half].contiguous())
            self.register_buffer("rotary_sin", model.rotary_sin[:, :half].contiguous())

    def go_on(
        self, blocks: Any, ids: Tensor, places: Tensor, call: Call, cache: Cache, memories: Any
    ) -> tuple[Tensor, Cache]:
        """Return what the last of `blocks` gives for ids [batch, n] at `places`, [n] or [batch, n], and the cache."""
        x, presents = self.model.embed(ids, places), []
        for block, past, memory in zip(blocks, cache, memories, strict=True):
            x, present = self._block(block, x, past, call, memory)
            presents.append(present)
        return x, tuple(presents)

    def _block(
        self, block: Block, x: Tensor, past: KeyValue, call: Call, memory: Memory | None
    ) -> tuple[Tensor, KeyValue]:
        attention = block.attention
        heads, key, value = self._attend(attention, block.attention_norm(x), past, call)
        return block.after_attention(x, attention.output(heads), memory), (key, value)

    def _attend(self, attention: Attention, x: Tensor, past: KeyValue, call: Call) -> tuple[Tensor, Tensor, Tensor]:
        given = (attention.query(x), attention.key(x), attention.value(x))
        rotary = (self.rotary_cos, self.rotary_sin) if self.config.positions == "rotary" else None
        scale = attention.head_dim**-0.5
        return attend(given, past, call, heads=attention.num_heads, scale=scale, rotary=rotary)


class FusedDecoder(_Fused):
    """A decoder, called as edgekit's `Decoder`."""

    model: Decoder

    def grown(self, ids: Tensor, mask: Tensor, places: Tensor, cache: Cache) -> tuple[Tensor, Cache]:
        """Return logits [batch, n, vocab] and the longer cache, as `Decoder.grown`.

        How much of the cache is filled is told by `mask`, so that the cache may have room for more.
        """
        model = self.model
        call = masked_call(ids, mask)
        x, cache = self.go_on(model.decoder_blocks(), ids, places, call, cache, model.no_memories())
        return model.scores(model.final_norm(x)), cache

    def cached(self, ids: Tensor, position: Tensor, cache: Cache, *, last: bool = False) -> tuple[Tensor, Cache]:
        """Return logits and the new cache of the same size, as `Decoder.cached`."""
        model = self.model
        x, cache = self.go_on(
            model.decoder_blocks(), ids, *fixed_call(ids, position, cache), cache, model.no_memories()
        )
        return model.scores(model.final_norm(x[:, -1:] if last else x)), cache


class FusedEncoderDecoder(_Fused):
    """An encoder–decoder, called as edgekit's `EncoderDecoder`."""

    model: EncoderDecoder

    def read(self, source_ids: Tensor, source_mask: Tensor) -> Tensor:
        """Return the encoder's last hidden state."""
        return self.model.read(source_ids, source_mask)

    def encode(self, source_ids: Tensor, source_mask: Tensor) -> Cache:
        """Return keys and values of the source."""
        return self.model.encode(source_ids, source_mask)

    def memory_of(self, hidden: Tensor) -> Cache:
        """Return what `encode` does, for the encoder's last hidden state."""
        return self.model.memory_of(hidden)

    def no_cache(self, batch: int) -> Cache:
        """Return the growing cache of no text yet."""
        return self.model.no_cache(batch)

    def grown(self, ids: Tensor, source_mask: Tensor, memory: Cache, cache: Cache) -> tuple[Tensor, Cache]:
        """Return logits [batch, n, vocab] and the longer cache, as `EncoderDecoder.grown`."""
        past = cache[0][0].shape[2]
        places = torch.arange(ids.shape[1], dtype=torch.int32, device=ids.device) + past
        return self._written(ids, places, grown_call(ids, past + ids.shape[1]), source_mask, memory, cache)

    def cached(
        self, ids: Tensor, position: Tensor, source_mask: Tensor, memory: Cache, cache: Cache
    ) -> tuple[Tensor, Cache]:
        """Return logits and the new cache of the same size, as `EncoderDecoder.cached`."""
        return self._written(ids, *fixed_call(ids, position, cache), source_mask, memory, cache)

    def _written(
        self, ids: Tensor, places: Tensor, call: Call, source_mask: Tensor, memory: Cache, cache: Cache
    ) -> tuple[Tensor, Cache]:
        model = self.model
        x, cache = self.go_on(model.decoder_blocks(), ids, places, call, cache, model.memories(memory, source_mask))
        return model.scores(model.decoder.final_norm(x)), cache


def masked_call(ids: Tensor, mask: Tensor) -> Call:
    """The call of a cache that `mask` [batch, past + n] tells the length of, and what of it is a token."""
    hidden = padding_scores(mask.to(torch.float32)).expand(-1, -1, ids.shape[1], -1)
    return replace(grown_call(ids, mask.shape[1]), hidden=hidden)


def grown_call(ids: Tensor, length: Any) -> Call:
    """The call of a cache that is full after it; ids are its last tokens."""
    total = torch.full((1,), length, dtype=torch.int32, device=ids.device)
    return Call(length=length, total=total, last=(total - 1).expand(ids.shape[0]))


def fixed_call(ids: Tensor, position: Tensor, cache: Cache) -> tuple[Tensor, Call]:
    """The places [n] of ids, and the call of a cache with room for all, filled up to `position` int32 [1]."""
    length, count = cache[0][0].shape[2], ids.shape[1]
    places = at_most(torch.arange(count, dtype=torch.int32, device=ids.device) + position, length - 1)
    total = position + count
    return places, Call(length=length, total=total, last=total - 1)

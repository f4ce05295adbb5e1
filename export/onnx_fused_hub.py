"""Decoders of Hugging Face with the attention of each layer as one operator, where it is that operator and no more.

Queries and keys come turned by their positions, as the model itself does it. A model whose attention is not called by
transformers' interface, or with anything that the operator would compute otherwise (windows, caps of scores, sinks,
positions in the mask), stays as it is.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from edgekit.export.onnx_fused import HEAD, Call, attend, fixed_call, masked_call
from edgekit.model.decoder_pytorch import Cache
from edgekit.model.pytorch import KeyValue
from edgekit.sources.hub_writers import CacheLayer, HubDecoder, cache_utils

_NAME = "edgekit_fused"
#: what may be told to an attention, with values that change nothing; None: any value
_HARMLESS: dict[str, Any] = {
    "dropout": (0, 0.0),
    "sliding_window": (None,),
    "softcap": (None, 0, 0.0),
    "s_aux": (None,),
    "position_bias": (None,),
}
_ANY = frozenset({"scaling", "position_ids", "cache_position", "use_cache", "output_attentions", "is_causal"})


class OtherAttentionError(Exception):
    """A layer's attention is another than the operator's."""


def fused_hub_decoder(model: Any) -> "FusedHubDecoder | None":
    """The decoder with fused attention; None for one that it does not fit, which a call of one token shows."""
    if not isinstance(model, HubDecoder) or model.config.head_dim % HEAD:
        return None
    made = FusedHubDecoder(model)
    ids, place = torch.ones((1, 1), dtype=torch.int64), torch.zeros((1, 1), dtype=torch.int64)
    shape = (1, model.config.kv_heads, 0, model.config.head_dim)
    cache = tuple((torch.zeros(shape), torch.zeros(shape)) for _ in range(model.config.decoder_layers))
    try:
        with torch.inference_mode():
            made.grown(ids, torch.ones((1, 1), dtype=torch.int64), place, cache)
    except OtherAttentionError:
        return None
    return made


class _NewTokens(CacheLayer):
    """What a layer had, and what the operator makes of it; `update` gives the new keys and values alone."""

    def __init__(self, past: KeyValue) -> None:
        super().__init__(*past, None)
        self.past = past
        self.new: KeyValue | None = None
        self.present: KeyValue | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> KeyValue:
        """Keep new keys and values until the attention is called with them."""
        self.new = (key_states, value_states)
        return self.new


class FusedHubDecoder(nn.Module):
    """A decoder of transformers, called as edgekit's `Decoder`."""

    def __init__(self, decoder: HubDecoder) -> None:
        super().__init__()
        self.decoder, self.config = decoder, decoder.config

    def grown(self, ids: Tensor, mask: Tensor, places: Tensor, cache: Cache) -> tuple[Tensor, Cache]:
        """Return logits [batch, n, vocab] and the longer cache, as `Decoder.grown`."""
        return self._run(ids, places, masked_call(ids, mask), cache, last=False)

    def cached(self, ids: Tensor, position: Tensor, cache: Cache, *, last: bool = False) -> tuple[Tensor, Cache]:
        """Return logits and the new cache of the same size, as `Decoder.cached`."""
        places, call = fixed_call(ids, position, cache)
        return self._run(ids, places[None], call, cache, last=last)

    def _run(self, ids: Tensor, places: Tensor, call: Call, cache: Cache, *, last: bool) -> tuple[Tensor, Cache]:
        model: Any = self.decoder.model
        mask = torch.zeros((1, 1, 1, 1))  # models pass one of four dimensions on
        layers = [_NewTokens(past) for past in cache]
        before = model.config._attn_implementation
        AttentionInterface.register(_NAME, _Attention(layers, call, mask))
        model.set_attn_implementation(_NAME)
        try:
            outputs = model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=places,
                past_key_values=cache_utils.Cache(layers=layers),
                use_cache=True,
                logits_to_keep=1 if last else 0,
            )
        finally:
            model.set_attn_implementation(before)
        presents = tuple(layer.present for layer in layers if layer.present is not None)
        if len(presents) < len(layers):
            raise OtherAttentionError("a layer does not attend by the interface")
        return outputs.logits, presents


class _Attention:
    """What transformers calls in place of its own attention, for one call of the model."""

    def __init__(self, layers: list[_NewTokens], call: Call, mask: Tensor) -> None:
        self.layers, self.call, self.mask = layers, call, mask

    def __call__(
        self, module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **told: Any
    ) -> tuple[Tensor, None]:
        """[batch, heads, n, head_dim] → [batch, n, heads, head_dim]."""
        layer = next((each for each in self.layers if each.new is not None and each.new[0] is key), None)
        others = [name for name, given in told.items() if name not in _ANY and given not in _HARMLESS.get(name, ())]
        if layer is None or layer.new is None or layer.new[1] is not value or attention_mask is not self.mask or others:
            raise OtherAttentionError(f"told {', '.join(others) or 'other keys, values or masks'}")
        if value.shape != key.shape or told.get("is_causal") is False:
            raise OtherAttentionError("values of another size, or texts seen from behind")
        heads, size = query.shape[1], query.shape[3]
        scale = told.get("scaling") or size**-0.5
        flat = tuple(each.transpose(1, 2).flatten(2) for each in (query, key, value))
        found, *present = attend((flat[0], flat[1], flat[2]), layer.past, self.call, heads=heads, scale=scale)
        layer.present = (present[0], present[1])
        return found.unflatten(2, (heads, size)), None

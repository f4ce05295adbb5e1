"""Decoders and encoder–decoders of transformers, called step by step with caches as plain tensors."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from edgekit.errors import RefusedError
from edgekit.model.decoder_pytorch import Cache
from edgekit.sources.hub_writers import HubDecoder, HubEncoderDecoder, HubShape, hub_shape

LONGEST, VOCABULARY = 16, 64
SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
SIDES = {
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
    **{
        f"{side}_{name}": size
        for side in ("encoder", "decoder")
        for name, size in (("layers", 2), ("attention_heads", 4), ("ffn_dim", 48))
    },
}
SLIDING = {"sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"], "head_dim": 16}
T5 = {"vocab_size": VOCABULARY, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
GPT2 = {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 32}
GPT2 |= {"bos_token_id": 1, "eos_token_id": 2}

DECODERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "gpt2": ("GPT2LMHeadModel", "GPT2Config", GPT2),
    "llama": ("LlamaForCausalLM", "LlamaConfig", SMALL),
    "qwen2": ("Qwen2ForCausalLM", "Qwen2Config", SMALL),
    "qwen3": ("Qwen3ForCausalLM", "Qwen3Config", SMALL | {"head_dim": 16}),
    "gemma": ("GemmaForCausalLM", "GemmaConfig", SMALL | {"head_dim": 16}),
    "gemma3": ("Gemma3ForCausalLM", "Gemma3TextConfig", SMALL | SLIDING),
}
TRANSLATORS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "t5": ("T5ForConditionalGeneration", "T5Config", T5 | {"decoder_start_token_id": 0}),
    "bart": ("BartForConditionalGeneration", "BartConfig", SIDES),
    "marian": ("MarianMTModel", "MarianConfig", SIDES),
}


def build(name: str, **changed: Any) -> nn.Module:
    """A model of random weights, loud enough that tokens matter."""
    kind, configuration, sizes = (DECODERS | TRANSLATORS)[name]
    torch.manual_seed(1)
    config = getattr(transformers, configuration)(**(sizes | changed), attn_implementation="eager")
    model: nn.Module = getattr(transformers, kind)(config).eval()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def no_text(shape: HubShape, length: int) -> Cache:
    """A cache of zeros of a length."""
    size = (1, shape.kv_heads, length, shape.head_dim)
    return tuple((torch.zeros(size), torch.zeros(size)) for _ in range(shape.decoder_layers))


def stepwise(ids: Tensor, cache: Cache, call: Callable[[Tensor, int, Cache], tuple[Tensor, Cache]]) -> Tensor:
    """The logits of a text that is read in chunks."""
    found, place = [], 0
    with torch.inference_mode():
        for count in (5, 1, 3, 1, 2):
            logits, cache = call(ids[:, place : place + count], place, cache)
            found.append(logits)
            place += count
    return torch.cat(found, 1)


def at(place: int) -> Tensor:
    return torch.tensor([place], dtype=torch.int32)


def close(found: Tensor, expected: Tensor) -> None:
    bound = 1e-5 * max(1.0, float(expected.abs().max()))
    torch.testing.assert_close(found, expected, rtol=0, atol=bound)


@pytest.mark.parametrize("name", DECODERS)
def test_decoders_give_the_same_logits_by_either_cache(name: str) -> None:
    model = build(name)
    shape = hub_shape(model, "generate", LONGEST)
    decoder, ids = HubDecoder(model, shape), torch.randint(1, VOCABULARY, (1, 12), dtype=torch.int32)
    with torch.inference_mode():
        expected = model(input_ids=ids).logits
    close(stepwise(ids, no_text(shape, LONGEST), lambda i, p, c: decoder.cached(i, at(p), c)), expected)

    def grown(chunk: Tensor, place: int, cache: Cache) -> tuple[Tensor, Cache]:
        total = place + chunk.shape[1]
        mask = torch.ones((1, total), dtype=torch.int64)
        return decoder.grown(chunk, mask, torch.arange(place, total)[None], cache)

    close(stepwise(ids, no_text(shape, 0), grown), expected)


@pytest.mark.parametrize("name", TRANSLATORS)
def test_encoder_decoders_give_the_same_logits_by_either_cache(name: str) -> None:
    model = build(name)
    shape = hub_shape(model, "translate", LONGEST)
    translator = HubEncoderDecoder(model, shape)
    source, ids = (torch.randint(3, VOCABULARY, (1, n), dtype=torch.int32) for n in (9, 12))
    mask = (torch.arange(9) < 7).to(torch.int32)[None]
    with torch.inference_mode():
        expected = model(input_ids=source, attention_mask=mask, decoder_input_ids=ids, use_cache=False).logits
        memory = translator.encode(source, mask)
    fixed = stepwise(ids, no_text(shape, LONGEST), lambda i, p, c: translator.cached(i, at(p), mask, memory, c))
    close(fixed, expected)
    close(stepwise(ids, no_text(shape, 0), lambda i, p, c: translator.grown(i, mask, memory, c)), expected)


def test_what_is_no_cache_of_keys_and_values_is_refused_by_name() -> None:
    sizes = SMALL | {"layer_types": ["linear_attention", "full_attention"]}
    model = build("llama")
    model.config.layer_types = sizes["layer_types"]
    with pytest.raises(RefusedError, match="llama has layers of the kind linear_attention"):
        hub_shape(model, "generate", LONGEST)
    with pytest.raises(RefusedError, match="say --task translation"):
        hub_shape(build("t5"), "generate", LONGEST)
    with pytest.raises(RefusedError, match="say --task text-generation"):
        hub_shape(build("gpt2"), "translate", LONGEST)

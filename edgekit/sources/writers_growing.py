"""Signatures of models that write with a cache that grows: what runtimes of ONNX expect, by Optimum's names.

A decoder is one graph, as `ORTModelForCausalLM` and onnxruntime-genai load it. An encoder–decoder is three, each in the
file that `ORTModelForSeq2SeqLM` loads it from. Batches are free here; edgekit's own loop writes one text at a time.
"""

from edgekit.model.config import TransformerConfig
from edgekit.program import BATCH, COUNT, PAST, SOURCE, TOTAL, Signature, TensorSpec
from edgekit.sources.writers import DECODE, ENCODE, cache_names

BEGIN = "begin"
#: signature → file of an encoder–decoder's folder, as Optimum names them
FILES = {ENCODE: "encoder_model.onnx", BEGIN: "decoder_model.onnx", DECODE: "decoder_with_past_model.onnx"}


def growing_signatures(config: TransformerConfig) -> tuple[Signature, ...]:
    """`decode` of a decoder; or `encode`, `begin` and `decode` of a model to translate.

    - decode: input_ids, attention_mask (of past and ids), position_ids int64, the cache float32 [batch, kv_heads, past,
      head_dim] → logits [batch, n, vocab], the cache with ids in it. To translate: encoder_attention_mask, input_ids,
      the cache, what `encode` gave. The cache may be empty: past is 0 then.
    - encode: input_ids, attention_mask → last_hidden_state, keys and values of the source for each decoder block.
    - begin: what Optimum calls first: encoder_attention_mask, input_ids, encoder_hidden_states → logits, both caches.
    """
    if config.task == "translate":
        return (_encode(config), _begin(config), _translate(config))
    past, present = _caches(config, PAST, "past_key_values"), _caches(config, TOTAL, "present")
    mask = _ids(config, "attention_mask", TOTAL)
    return (
        Signature(
            name=DECODE,
            method="grow",
            inputs=(_ids(config, "input_ids", COUNT), mask, _ids(config, "position_ids", COUNT), *past),
            outputs=(_logits(config), *present),
            states=_paired(past, present),
        ),
    )


def _encode(config: TransformerConfig) -> Signature:
    return Signature(
        name=ENCODE,
        method="read",
        inputs=(_ids(config, "input_ids", SOURCE), _ids(config, "attention_mask", SOURCE)),
        outputs=(_hidden(config, "last_hidden_state"), *_memory(config, "present")),
    )


def _begin(config: TransformerConfig) -> Signature:
    mask, ids = _ids(config, "encoder_attention_mask", SOURCE), _ids(config, "input_ids", COUNT)
    present = _caches(config, COUNT, "present", "decoder.")
    return Signature(
        name=BEGIN,
        method="begin",
        inputs=(mask, ids, _hidden(config, "encoder_hidden_states")),
        outputs=(_logits(config), *present, *_memory(config, "present")),
    )


def _translate(config: TransformerConfig) -> Signature:
    past, present = (
        _caches(config, axis, prefix, "decoder.") for axis, prefix in ((PAST, "past_key_values"), (TOTAL, "present"))
    )
    memory, encoded = _memory(config, "past_key_values"), _memory(config, "present")
    return Signature(
        name=DECODE,
        method="grow",
        inputs=(
            _ids(config, "encoder_attention_mask", SOURCE),
            _ids(config, "input_ids", COUNT),
            *past,
            *memory,
        ),
        outputs=(_logits(config), *present),
        states=_paired(past, present),
        given=_paired(memory, encoded),
    )


def _ids(config: TransformerConfig, name: str, axis: str) -> TensorSpec:
    return TensorSpec(name=name, dtype="int64", shape=(1, config.max_length), axes={0: BATCH, 1: axis})


def _hidden(config: TransformerConfig, name: str) -> TensorSpec:
    shape = (1, config.max_length, config.hidden_size)
    return TensorSpec(name=name, dtype="float32", shape=shape, axes={0: BATCH, 1: SOURCE})


def _logits(config: TransformerConfig) -> TensorSpec:
    shape = (1, config.max_length, config.vocab_size)
    return TensorSpec(name="logits", dtype="float32", shape=shape, axes={0: BATCH, 1: COUNT})


def _caches(config: TransformerConfig, axis: str, prefix: str, side: str = "") -> tuple[TensorSpec, ...]:
    return _tensors(config, cache_names(prefix, config.decoder_layers, side), axis)


def _memory(config: TransformerConfig, prefix: str) -> tuple[TensorSpec, ...]:
    return _tensors(config, cache_names(prefix, config.num_decoder_blocks, "encoder."), SOURCE)


def _tensors(config: TransformerConfig, names: tuple[str, ...], axis: str) -> tuple[TensorSpec, ...]:
    shape = (1, config.kv_heads, config.max_length, config.head_dim)
    return tuple(TensorSpec(name=name, dtype="float32", shape=shape, axes={0: BATCH, 2: axis}) for name in names)


def _paired(inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> dict[str, str]:
    return {into.name: out.name for into, out in zip(inputs, outputs, strict=True)}

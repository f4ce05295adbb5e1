"""Signatures of models that write as ONNX has them: with a cache that grows, or of fixed size.

The growing cache is what runtimes of ONNX expect, by Optimum's names. A decoder is one graph, as
`ORTModelForCausalLM` and onnxruntime-genai load it. An encoder–decoder is three, each in the
file that `ORTModelForSeq2SeqLM` loads it from. Batches are free here; edgekit's own loop writes one text at a time.
"""

from collections.abc import Sequence
from typing import TypeVar

from edgekit.program import BATCH, COUNT, PAST, SOURCE, TOTAL, Framework, Signature, TensorSpec
from edgekit.sources.checkpoint import SIGNATURE
from edgekit.sources.writers import DECODE, ENCODE, WriterShape, cache_names

BEGIN = "begin"
#: in the metadata of a file whose cache may be one buffer before and after a call, with room for more
IN_PLACE = "edgekit.cache-in-place"
T = TypeVar("T")


def fixed_signatures(signatures: Sequence[Signature], framework: Framework) -> tuple[Signature, ...]:
    """Of the signatures of a program with a cache of fixed size, those of its ONNX files.

    A graph has one signature: `decode` of a decoder takes any number of ids, and serves as its prefill too. Through
    TensorFlow it takes one id in each call.
    """
    if any(signature.given for signature in signatures):
        return tuple(signatures)
    decode = next(signature for signature in signatures if signature.name == DECODE)
    if framework == "tensorflow":
        return (decode.model_copy(update={"name": SIGNATURE}),)
    longest = next(spec.shape[2] for spec in decode.inputs if spec.name in decode.states)
    ids = decode.inputs[0].model_copy(update={"shape": (1, longest), "axes": {1: COUNT}})
    return (decode.model_copy(update={"name": SIGNATURE, "method": "step", "inputs": (ids, *decode.inputs[1:])}),)


def growing_signatures(config: WriterShape) -> tuple[Signature, ...]:
    """`decode` of a decoder; or `encode`, `begin` and `decode` of a model to translate.

    - decode: input_ids, attention_mask (of past and ids), position_ids int64, the cache float32 [batch, kv_heads, past,
      head_dim] → logits [batch, n, vocab], the cache with ids in it. To translate: encoder_attention_mask, input_ids,
      the cache, what `encode` gave. The cache may be empty: past is 0 then. Fused rotations go by the places in the
      cache, whatever position_ids are: a text that is padded before or behind has the same logits by both.
    - encode: input_ids, attention_mask → last_hidden_state, keys and values of the source for each decoder block.
    - begin: what Optimum calls first: encoder_attention_mask, input_ids, encoder_hidden_states → logits, both caches.
    """
    if config.task == "translate":
        return (_encode(config), _begin(config), _translate(config))
    past, present = _caches(config, PAST, "past_key_values"), _caches(config, TOTAL, "present")
    mask = _ids(config, "attention_mask", TOTAL)
    return (
        Signature(
            name=SIGNATURE,
            method="grow",
            inputs=(_ids(config, "input_ids", COUNT), mask, _ids(config, "position_ids", COUNT), *past),
            outputs=(_logits(config), *present),
            states=_paired(past, present),
        ),
    )


def _encode(config: WriterShape) -> Signature:
    return Signature(
        name=ENCODE,
        method="read",
        inputs=(_ids(config, "input_ids", SOURCE), _ids(config, "attention_mask", SOURCE)),
        outputs=(_hidden(config, "last_hidden_state"), *_memory(config, "present")),
    )


def _begin(config: WriterShape) -> Signature:
    mask, ids = _ids(config, "encoder_attention_mask", SOURCE), _ids(config, "input_ids", COUNT)
    present = _caches(config, COUNT, "present", "decoder.")
    return Signature(
        name=BEGIN,
        method="begin",
        inputs=(mask, ids, _hidden(config, "encoder_hidden_states")),
        outputs=(_logits(config), *by_layer(present, _memory(config, "present"))),
    )


def _translate(config: WriterShape) -> Signature:
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
            *by_layer(past, memory),
        ),
        outputs=(_logits(config), *present),
        states=_paired(past, present),
        given=_paired(memory, encoded),
    )


def by_layer(cache: Sequence[T], memory: Sequence[T]) -> tuple[T, ...]:
    """Keys and values of each layer, then those of its source: the order that Optimum counts on."""
    pairs = range(0, len(cache), 2)
    return tuple(each for place in pairs for each in (*cache[place : place + 2], *memory[place : place + 2]))


def _ids(config: WriterShape, name: str, axis: str) -> TensorSpec:
    return TensorSpec(name=name, dtype="int64", shape=(1, config.max_length), axes={0: BATCH, 1: axis})


def _hidden(config: WriterShape, name: str) -> TensorSpec:
    shape = (1, config.max_length, config.hidden_size)
    return TensorSpec(name=name, dtype="float32", shape=shape, axes={0: BATCH, 1: SOURCE})


def _logits(config: WriterShape) -> TensorSpec:
    shape = (1, config.max_length, config.vocab_size)
    return TensorSpec(name="logits", dtype="float32", shape=shape, axes={0: BATCH, 1: COUNT})


def _caches(config: WriterShape, axis: str, prefix: str, side: str = "") -> tuple[TensorSpec, ...]:
    return _tensors(config, cache_names(prefix, config.decoder_layers, side), axis)


def _memory(config: WriterShape, prefix: str) -> tuple[TensorSpec, ...]:
    return _tensors(config, cache_names(prefix, config.num_decoder_blocks, "encoder."), SOURCE)


def _tensors(config: WriterShape, names: tuple[str, ...], axis: str) -> tuple[TensorSpec, ...]:
    shape = (1, config.kv_heads, config.max_length, config.head_dim)
    return tuple(TensorSpec(name=name, dtype="float32", shape=shape, axes={0: BATCH, 2: axis}) for name in names)


def _paired(inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> dict[str, str]:
    return {into.name: out.name for into, out in zip(inputs, outputs, strict=True)}

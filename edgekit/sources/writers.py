"""Checkpoint of a model that writes → Program: one signature for each step of a generation with a cache of fixed size.

Tensors are flat: `past_key_values.I.key` and `.value` go in, `present.I.key` and `.value` come out, float32
[1, kv_heads, max_length, head_dim] for each layer.
"""

from collections.abc import Sequence
from typing import Protocol

from edgekit.checkpoint import Checkpoint
from edgekit.errors import CheckpointError, RefusedError
from edgekit.extras import require
from edgekit.model.config import TransformerConfig
from edgekit.program import Framework, ModelTask, Program, Signature, TensorSpec

PREFILL, DECODE, ENCODE = "prefill", "decode", "encode"
#: chunks that a prompt is read in, in tokens: a short one wastes little on padding, a long one goes fast
PREFILL_LENGTHS = (8, 32, 128)
#: a model that reads fewer tokens can write none after its first
SHORTEST = 2


class WriterShape(Protocol):
    """What a model that writes has between calls: sizes of its cache and of what it gives."""

    @property
    def task(self) -> ModelTask:
        """Generate, or translate."""

    @property
    def vocab_size(self) -> int:
        """How many tokens it knows."""

    @property
    def max_length(self) -> int:
        """How many tokens it reads at most."""

    @property
    def hidden_size(self) -> int:
        """Width of what its encoder gives."""

    @property
    def decoder_layers(self) -> int:
        """Number of layers that keep a cache."""

    @property
    def num_decoder_blocks(self) -> int:
        """Number of them that have keys and values of a source text of their own."""

    @property
    def kv_heads(self) -> int:
        """Number of heads of keys and values."""

    @property
    def head_dim(self) -> int:
        """Size of one head."""


def check_writer(checkpoint: Checkpoint, what: str) -> None:
    """Raise RefusedError, naming what is asked for, for a classifier, CheckpointError for one too small."""
    if checkpoint.config.task == "classify":
        raise RefusedError(f"{what} takes models that write; {checkpoint.name} was trained with --task classify")
    check_context(checkpoint.config, checkpoint.name)


def check_context(config: TransformerConfig, name: str) -> None:
    """Raise CheckpointError for a context in which nothing can be written."""
    if config.max_length < SHORTEST:
        raise CheckpointError(
            f"{name} reads {config.max_length} token in all: to write takes at least {SHORTEST}; "
            f"train it with --max-length {SHORTEST} or more"
        )


def default_prefill_lengths(max_length: int) -> tuple[int, ...]:
    """The lengths of prefill chunks, in tokens, ascending, for a model of `max_length`: at least one."""
    return tuple(length for length in PREFILL_LENGTHS if length < max_length) or (max_length,)


def prefill_name(length: int) -> str:
    """The name of the signature that reads so many tokens of a prompt."""
    return f"{PREFILL}_{length}"


def encode_name(length: int) -> str:
    """The name of the signature that reads a source text of no more tokens, where it is not the longest's."""
    return f"{ENCODE}_{length}"


def writer_signatures(config: WriterShape, lengths: Sequence[int] = ()) -> tuple[Signature, ...]:
    """`prefill_N` for each of the lengths (ascending; none: `default_prefill_lengths`) and `decode`; or, of a model to
    translate, `encode_N` for each of the lengths, `encode` and `decode`. Batches are of one text.

    - prefill_N: ids int32 [1, N], position int32 [1] (how many tokens the cache holds), the cache → the new cache.
    - decode: ids int32 [1, 1], position, the cache → logits float32 [1, 1, vocab] of the next token, the new cache. To
      translate, `source_mask` and what `encode` gave beside them.
    - encode: source_ids and source_mask int32 [1, max_length] → keys and values of the source for each decoder block.
    - encode_N: the same of [1, N], and zeros behind the N: a short text costs no more than its length.
    """
    if config.task == "translate":
        shorter = (_encode_signature(config, n, encode_name(n)) for n in lengths if n < config.max_length)
        return (*shorter, _encode_signature(config, config.max_length, ENCODE), _translate_signature(config))
    lengths = tuple(lengths) or default_prefill_lengths(config.max_length)
    return (*(_prefill_signature(config, length) for length in lengths), _generate_signature(config))


def without_shorter(signatures: Sequence[Signature]) -> tuple[Signature, ...]:
    """The signatures without `encode_N`: every source text is read as padded to the longest."""
    return tuple(each for each in signatures if not each.name.startswith(f"{ENCODE}_"))


def build_writer_program(
    checkpoint: Checkpoint, framework: Framework, *, prefill_lengths: Sequence[int] = ()
) -> Program:
    """Build the checkpoint's decoder or encoder–decoder in `framework`, in inference mode.

    Raises CheckpointError for weights that do not fit, RefusedError for a classifier, MissingExtraError without the
    framework.
    """
    check_writer(checkpoint, "this program")
    signatures = writer_signatures(checkpoint.config, prefill_lengths)
    names = input_names(signatures)
    if framework == "torch":
        require("torch", "building the model in PyTorch")
        from edgekit.sources import writers_torch

        module: object = writers_torch.build_flat(checkpoint.config, checkpoint.weights, names)
    else:
        require("tensorflow", "building the model in TensorFlow")
        from edgekit.sources import writers_keras

        module = writers_keras.build_flat(checkpoint.config, checkpoint.weights)
    return Program(framework=framework, module=module, signatures=signatures)


def input_names(signatures: Sequence[Signature]) -> dict[str, tuple[str, ...]]:
    """The names of each method's inputs, in order."""
    return {each.method: tuple(spec.name for spec in each.inputs) for each in signatures}


def cache_names(prefix: str, count: int, side: str = "") -> tuple[str, ...]:
    """The names of the cache of `count` layers as Optimum has them: `present.0.key`, `present.0.encoder.value`."""
    return tuple(f"{prefix}.{index}.{side}{part}" for index in range(count) for part in ("key", "value"))


def _prefill_signature(config: WriterShape, length: int) -> Signature:
    past, present = (_cache(config, prefix) for prefix in ("past_key_values", "present"))
    return Signature(
        name=prefill_name(length),
        method=PREFILL,
        inputs=(*_tokens(length), *past),
        outputs=present,
        states=_states(past, present),
    )


def _generate_signature(config: WriterShape) -> Signature:
    past, present = (_cache(config, prefix) for prefix in ("past_key_values", "present"))
    return Signature(
        name=DECODE,
        method=DECODE,
        inputs=(*_tokens(1), *past),
        outputs=(_logits(config), *present),
        states=_states(past, present),
    )


def _translate_signature(config: WriterShape) -> Signature:
    past, present = (_cache(config, prefix, "decoder.") for prefix in ("past_key_values", "present"))
    memory, encoded = (_memory(config, prefix) for prefix in ("past_key_values", "present"))
    return Signature(
        name=DECODE,
        method=DECODE,
        inputs=(*_tokens(1), _ids("source_mask", config.max_length), *memory, *past),
        outputs=(_logits(config), *present),
        states=_states(past, present),
        given=_states(memory, encoded),
    )


def _encode_signature(config: WriterShape, length: int, name: str) -> Signature:
    return Signature(
        name=name,
        method=ENCODE,
        inputs=tuple(_ids(name, length) for name in ("source_ids", "source_mask")),
        outputs=_memory(config, "present"),
    )


def _tokens(length: int) -> tuple[TensorSpec, TensorSpec]:
    return _ids("ids", length), TensorSpec(name="position", dtype="int32", shape=(1,))


def _ids(name: str, length: int) -> TensorSpec:
    return TensorSpec(name=name, dtype="int32", shape=(1, length))


def _logits(config: WriterShape) -> TensorSpec:
    return TensorSpec(name="logits", dtype="float32", shape=(1, 1, config.vocab_size))


def _cache(config: WriterShape, prefix: str, side: str = "") -> tuple[TensorSpec, ...]:
    return _tensors(cache_names(prefix, config.decoder_layers, side), config)


def _memory(config: WriterShape, prefix: str) -> tuple[TensorSpec, ...]:
    return _tensors(cache_names(prefix, config.num_decoder_blocks, "encoder."), config)


def _tensors(names: Sequence[str], config: WriterShape) -> tuple[TensorSpec, ...]:
    shape = (1, config.kv_heads, config.max_length, config.head_dim)
    return tuple(TensorSpec(name=name, dtype="float32", shape=shape) for name in names)


def _states(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> dict[str, str]:
    return {into.name: out.name for into, out in zip(inputs, outputs, strict=True)}

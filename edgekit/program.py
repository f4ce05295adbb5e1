"""What exporters work on: a Program and its Signatures, and the SourceRef that names one across processes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict

Framework = Literal["torch", "tensorflow"]
#: the axis of a dynamic length, in files that name their axes
LENGTH = "length"
#: the free axes of a growing cache, as Optimum names them: texts, new tokens, tokens kept, both together, the source's
BATCH, COUNT, PAST, TOTAL = "batch_size", "sequence_length", "past_sequence_length", "total_sequence_length"
SOURCE = "encoder_sequence_length"
#: what a prefill gives that keeps its states itself: how many tokens they hold
NEXT_POSITION = "next_position"
FRAMEWORKS: tuple[Framework, ...] = ("torch", "tensorflow")
#: what edgekit's own models are for: the encoder, the decoder, the encoder–decoder
ModelTask = Literal["classify", "generate", "translate"]
MODEL_TASKS: tuple[ModelTask, ...] = get_args(ModelTask)
#: those of them whose models write texts
WRITING_TASKS: tuple[ModelTask, ...] = ("generate", "translate")
#: what anything exportable is for: `custom` is the user's module; those that are not edgekit's own are transformers'
Task = Literal[
    "classify",
    "generate",
    "translate",
    "text-classification",
    "token-classification",
    "feature-extraction",
    "fill-mask",
    "question-answering",
    "image-classification",
    "text-generation",
    "translation",
    "custom",
]
#: tasks of transformers' models that write, and what edgekit's own are called that do the same
HUB_WRITERS: dict[Task, ModelTask] = {"text-generation": "generate", "translation": "translate"}
Pooling = Literal["none", "mean", "cls", "max"]


class TensorSpec(BaseModel):
    """Name, element type and shape of one input or output; `axes` names those free up to what `shape` says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    dtype: Literal["int32", "int64", "float32", "float16", "int8"]
    shape: tuple[int, ...]
    axes: dict[int, str] = {}


class Signature(BaseModel):
    """One entry point of a program, as callers of the exported file see it.

    `method` is the method of the source module that it runs; `states` maps an input to the output that replaces
    it in the next call of any signature (a KV cache), `given` one to the output of the signature `encode` that fills it
    for a whole generation. Where the file itself keeps the states (Core ML's), it is `stateful`. With `dynamic_length`,
    axis 1 of every input may be anything up to what its shape says.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    method: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    states: dict[str, str] = {}
    given: dict[str, str] = {}
    stateful: bool = False
    dynamic_length: bool = False


def has_int8_cache(signatures: Sequence[Signature]) -> bool:
    """Whether what a file keeps between calls is int8."""
    return any(
        spec.dtype == "int8" for signature in signatures for spec in signature.inputs if spec.name in signature.states
    )


def argument_name(name: str) -> str:
    """The name of an input as Python can have it: torch 2.13 writes keyword arguments into source code as they are."""
    return name.replace(".", "_")


@dataclass(frozen=True, kw_only=True)
class Program:
    """A live module of one framework and the signatures to export; all that an exporter knows.

    `module` is a `torch.nn.Module` in eval mode, or a `keras.Model`.
    """

    framework: Framework
    module: Any
    signatures: tuple[Signature, ...]


class SourceOptions(BaseModel):
    """What the user decided about a source that is not a checkpoint.

    `length` is in tokens (None: not a text model, or its own); `inputs` are those of a factory as typed,
    `ids:int32[1,128]`; `folder` is where a factory's module is looked for first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    length: int | None = None
    pooling: Pooling = "none"
    normalize: bool = False
    trust_remote_code: bool = False
    inputs: tuple[str, ...] = ()
    folder: str = ""


class SourceRef(BaseModel):
    """Names something exportable, so that a worker process can build the Program from it.

    `path` is that of a folder or file, or `package.module:function` of a factory. `framework` is the one to build it
    in; `sha256` the hash of the content that was named, so that a source that changes between two workers is noticed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["checkpoint", "huggingface", "factory", "file"]
    path: str
    framework: Framework
    task: Task
    sha256: str
    options: SourceOptions = SourceOptions()

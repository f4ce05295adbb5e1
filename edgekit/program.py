"""What exporters work on: a Program and its Signatures, and the SourceRef that names one across processes."""

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

Framework = Literal["torch", "tensorflow"]
#: the axis of a dynamic length, in files that name their axes
LENGTH = "length"
FRAMEWORKS: tuple[Framework, ...] = ("torch", "tensorflow")


class TensorSpec(BaseModel):
    """Name, element type and shape of one input or output."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    dtype: Literal["int32", "float32"]
    shape: tuple[int, ...]


class Signature(BaseModel):
    """One entry point of a program, as callers of the exported file see it.

    `method` is the method of the source module that it runs; `states` maps an input to the output that replaces
    it in the next call (a KV cache). With `dynamic_length`, axis 1 of every input may be anything up to what its shape
    says.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    method: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    states: dict[str, str] = {}
    dynamic_length: bool = False


@dataclass(frozen=True, kw_only=True)
class Program:
    """A live module of one framework and the signatures to export; all that an exporter knows.

    `module` is a `torch.nn.Module` in eval mode, or a `keras.Model`.
    """

    framework: Framework
    module: Any
    signatures: tuple[Signature, ...]


class SourceRef(BaseModel):
    """Names something exportable, so that a worker process can build the Program from it.

    `framework` is the one to build it in; `sha256` the hash of the content that was named, so that a source that
    changes between two workers is noticed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["checkpoint"]
    path: str
    framework: Framework
    task: Literal["classify"]
    sha256: str

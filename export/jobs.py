"""What a worker process is asked to do, and what it answers: the two JSON files it reads and writes."""

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from edgekit.program import SourceRef

Operation = Literal["convert", "reference", "compress"]
TargetName = Literal["tflite", "onnx", "coreml", "savedmodel", "pt2"]
SchemeName = Literal["none", "fp16"]


class _Record(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_by_name=True, validate_by_alias=True, serialize_by_alias=True
    )


class Job(_Record):
    """One piece of work for one worker process.

    - `convert`: build the program of `source` and write it to `output` as `target`, in `scheme`.
    - `compress`: write the float32 file `input` of `target` again, in `scheme`; no framework of the source is needed.
    - `reference`: run the module of `source` on the inputs of `steps` and write them, with its outputs, to `output`.

    Paths are absolute. `length` is the number of tokens of the program's inputs (None: the model's longest).
    """

    schema_version: Literal[1] = Field(default=1, alias="schema")
    op: Operation
    source: SourceRef | None = None
    target: TargetName | None = None
    scheme: SchemeName = "none"
    input: str | None = None
    output: str
    result: str
    length: int | None = Field(default=None, ge=1)
    steps: str | None = None

    @model_validator(mode="after")
    def _check_operation(self) -> Self:
        needed = {
            "convert": ("source", "target"),
            "compress": ("input", "target"),
            "reference": ("source", "steps"),
        }
        for field in needed[self.op]:
            if getattr(self, field) is None:
                raise ValueError(f"a {self.op!r} job needs {field!r}")
        if self.op == "compress" and self.scheme == "none":
            raise ValueError("a 'compress' job needs a scheme other than 'none'")
        return self


class JobError(_Record):
    """Why a job failed: the class of edgekit's error, or "ConverterError" where a library raised; one clear line."""

    kind: str
    message: str


class WeightCount(_Record):
    """How many tensors of weights there are of one dtype, with how many elements, in how many bytes."""

    tensors: int
    elements: int
    bytes: int


class JobDetails(_Record):
    """What was counted: weights by dtype in the source module and in the file that was written, steps run, time."""

    source_weights: dict[str, WeightCount] = {}
    weights: dict[str, WeightCount] = {}
    operators: dict[str, int] = {}
    steps: int = 0
    seconds: float = 0.0


class JobResult(_Record):
    """What a worker answers. `files` are relative to the folder of the job's output; `tools` the versions used."""

    schema_version: Literal[1] = Field(default=1, alias="schema")
    ok: bool
    error: JobError | None = None
    files: tuple[str, ...] = ()
    details: JobDetails = JobDetails()
    tools: dict[str, str] = {}


def write_job(job: Job, path: Path) -> None:
    """Write a job for `python -P -m edgekit.export.worker PATH`."""
    path.write_text(job.model_dump_json(indent=2))


def write_result(result: JobResult, path: Path) -> None:
    """Write a result so that a reader finds the whole of it or none."""
    new = path.with_name(f"{path.name}.new")
    new.write_text(result.model_dump_json(indent=2))
    new.replace(path)


def read_result(path: Path) -> JobResult | None:
    """The result at `path`; None where the worker died before it could write one."""
    return JobResult.model_validate_json(path.read_bytes()) if path.is_file() else None

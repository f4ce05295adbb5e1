"""What a worker process is asked to do, and what it answers: the two JSON files it reads and writes."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from edgekit.export.coreml_options import CoremlOptions
from edgekit.export.recipes import Recipe
from edgekit.export.schemes import CALIBRATED, SCHEMES
from edgekit.program import Signature, SourceRef

Operation = Literal["convert", "reference", "compress", "score", "prepare", "write", "quantize-cache"]
TargetName = Literal["tflite", "onnx", "coreml", "savedmodel", "pt2"]


def _known_scheme(name: str) -> str:
    if name not in SCHEMES:
        raise ValueError(f"{name!r} is none of {', '.join(SCHEMES)}")
    return name


SchemeName = Annotated[str, AfterValidator(_known_scheme)]


class _Record(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_by_name=True, validate_by_alias=True, serialize_by_alias=True
    )


class Job(_Record):
    """One piece of work for one worker process.

    - `convert`: build the program of `source` and write it to `output` as `target`, in `scheme`.
    - `compress`: write the float32 file `input` of `target` again, in `scheme`, or as `recipe` says for the modules of
      the checkpoint `source`; no framework is needed.
    - `score`: make, run and compare each recipe of `candidates` from the float32 file `input`, with the golden `steps`;
      add a line for each to `output`. With `timed`, latency too.
    - `reference`: run the module of `source` on the inputs of `steps` and write them, with its outputs, to `output`.
    - `write`: let the model of `source` write after the prompts in `steps` and score the texts there; keep both, with
      steps of its signatures, in `output`.
    - `quantize-cache`: write the file `input` again with its cache as int8, ranges from the texts in `steps`, and with
      `signatures`.
    - `prepare`: run the module of a foreign `source`, on the texts of the file `texts`, and write what its bundles hold
      beside the target file to the folder `output`.

    Paths are absolute. `calibration` are steps of real text for schemes that quantize activations with fixed ranges;
    `length` is the number of tokens of the program's inputs (None: the model's longest); `signatures` are those to
    convert (none: the program's own); of a foreign model that writes, `lengths` are those of the signatures that read
    several tokens of a prompt, or a source text, at once (none: the default); `rewrites` are done to it before it is
    converted; `coreml` is what is asked of a Core ML package.
    """

    schema_version: Literal[1] = Field(default=1, alias="schema")
    op: Operation
    source: SourceRef | None = None
    target: TargetName | None = None
    scheme: SchemeName = "none"
    recipe: Recipe | None = None
    candidates: tuple[Recipe, ...] = ()
    timed: bool = False
    input: str | None = None
    output: str
    result: str
    length: int | None = Field(default=None, ge=1)
    lengths: tuple[int, ...] = ()
    signatures: tuple[Signature, ...] = ()
    steps: str | None = None
    texts: str | None = None
    calibration: str | None = None
    coreml: CoremlOptions | None = None
    rewrites: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _check_operation(self) -> Self:
        needed = {
            "convert": ("source", "target"),
            "compress": ("input", "target"),
            "reference": ("source", "steps"),
            "write": ("source", "texts" if self.texts else "steps"),
            "quantize-cache": ("input", "steps", "target"),
            "prepare": ("source", "texts"),
            "score": ("source", "target", "input", "steps"),
        }
        for field in needed[self.op]:
            if getattr(self, field) is None:
                raise ValueError(f"a {self.op!r} job needs {field!r}")
        if self.coreml and self.target != "coreml":
            raise ValueError(f"a job for {self.target!r} has no use for 'coreml'")
        if self.op == "compress":
            self._check_compress()
        return self

    def _check_compress(self) -> None:
        if self.recipe is None and self.scheme == "none":
            raise ValueError("a 'compress' job needs a scheme other than 'none', or a recipe")
        if self.recipe and self.source is None:
            raise ValueError("a 'compress' job with a recipe needs 'source'")
        for scheme in self.recipe.schemes if self.recipe else (self.scheme,):
            if scheme in CALIBRATED and self.calibration is None:
                raise ValueError(f"a job for {scheme!r} needs 'calibration'")


class JobError(_Record):
    """Why a job failed: the class of edgekit's error, or "ConverterError" where a library raised; one clear line."""

    kind: str
    message: str


class WeightCount(_Record):
    """How many tensors of weights there are of one dtype, with how many elements, in how many bytes."""

    tensors: int
    elements: int
    bytes: int


class WeightEvidence(_Record):
    """One quantized weight beside the source's: the largest difference, in steps between neighbouring values of its
    type (by channel, block or palette), and the root mean square of the difference over that of the source.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    difference_in_steps: float
    relative_difference: float


class Evidence(_Record):
    """What a quantizer took on: tensors and elements, of how many elements of matrices, and the largest ones."""

    quantized_tensors: int
    quantized_elements: int
    matrix_elements: int
    largest_difference_in_steps: float
    largest: tuple[WeightEvidence, ...]


class JobDetails(_Record):
    """What was counted: weights by dtype in the source module and in the file that was written, operators before and
    after, the file's format version, the evidence of quantization, steps run, time.
    """

    source_weights: dict[str, WeightCount] = {}
    weights: dict[str, WeightCount] = {}
    source_operators: dict[str, int] = {}
    operators: dict[str, int] = {}
    version: str = ""
    evidence: Evidence | None = None
    steps: int = 0
    seconds: float = 0.0


class JobResult(_Record):
    """What a worker answers. `files` are relative to the folder of the job's output; `tools` the versions used;
    `cached` says that an earlier run answered: `details.seconds` are its own.
    """

    schema_version: Literal[1] = Field(default=1, alias="schema")
    ok: bool
    error: JobError | None = None
    files: tuple[str, ...] = ()
    details: JobDetails = JobDetails()
    tools: dict[str, str] = {}
    cached: bool = False


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

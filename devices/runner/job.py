"""The job: which file to load into which runtime, which steps to replay, and what to measure."""

import json
from typing import Any, NamedTuple, Optional

from .failures import RunError

SCHEMA = 1
RUNTIMES = (
    "litert",
    "litert-compiled",
    "litert-openvino",
    "tflite-runtime",
    "onnxruntime",
    "onnxruntime-qnn",
    "onnxruntime-webgpu",
    "onnxruntime-openvino",
    "tensorflow",
    "torch",
    "coreml",
    "qnn-simulator",
)
#: replay: outputs of all steps. measure: those, then latency and memory. cold: one start. profile: time by operator.
#: generate: texts. measure-generation: first token, prefill, decode and memory of the cache
OPERATIONS = ("replay", "measure", "cold", "profile", "generate", "measure-generation")
WRITING = ("generate", "measure-generation")


class RunnerJob(NamedTuple):
    """One run. `die_with_parent`: end when the pipe on standard input does (not over ssh, where it has none).

    What follows `operation` is for measuring: `real_lengths` runs all steps in turn (else one, of the largest inputs);
    `prove` writes the outputs of all steps first; `energy` fails the run where energy can't be known.
    `compute_units` are those that Core ML may use: cpu, cpu+gpu, cpu+ane, all. `xnnpack` False: TFLite's own kernels on
    the CPU. `delegate` is PATH[:key=value,…] of an external TFLite delegate. `openvino_device` is what OpenVINO
    compiles for: CPU, GPU, NPU. `cache` is a folder in which the runtime may keep what it compiled. `generation`, in
    place of steps, is what `generation_job` reads.
    """

    runtime: str
    model: str
    steps: str = ""
    outputs: str = ""
    num_threads: int = 1
    die_with_parent: bool = False
    accelerator: str = "cpu"
    operation: str = "replay"
    prove: bool = True
    num_runs: int = 50
    min_secs: float = 1.0
    max_secs: float = 150.0
    warmup_runs: int = 1
    sustained_secs: float = 0.0
    pin_cores: tuple[int, ...] = ()
    real_lengths: bool = True
    energy: bool = False
    compute_units: str = "cpu"
    xnnpack: bool = True
    delegate: str = ""
    openvino_device: str = "NPU"
    cache: str = ""
    generation: Optional[dict[str, Any]] = None


_TYPES: dict[str, Any] = {
    "runtime": str,
    "model": str,
    "steps": str,
    "outputs": str,
    "num_threads": int,
    "die_with_parent": bool,
    "accelerator": str,
    "operation": str,
    "prove": bool,
    "num_runs": int,
    "min_secs": float,
    "max_secs": float,
    "warmup_runs": int,
    "sustained_secs": float,
    "pin_cores": list,
    "real_lengths": bool,
    "energy": bool,
    "compute_units": str,
    "xnnpack": bool,
    "delegate": str,
    "openvino_device": str,
    "cache": str,
    "generation": dict,
}
_LEAST = {"num_threads": 1, "num_runs": 1, "min_secs": 0, "max_secs": 0, "warmup_runs": 0, "sustained_secs": 0}


def read_job(path: str) -> RunnerJob:
    """Read a job's JSON file; raises RunError("bad-job") for anything but a complete job of schema 1."""
    try:
        with open(path, encoding="utf-8") as stream:
            fields = json.load(stream)
    except (OSError, ValueError) as error:
        raise RunError("bad-job", f"can't read the job {path}: {error}") from error
    return parse_job(fields)


def parse_job(fields: Any) -> RunnerJob:
    """Check a decoded job; raises RunError("bad-job") naming the field."""
    if not isinstance(fields, dict) or fields.get("schema") != SCHEMA:
        raise RunError("bad-job", f"the job is not of schema {SCHEMA}")
    given = {name: _checked(name, value) for name, value in fields.items() if name != "schema"}
    for name in ("runtime", "model", *(() if given.get("operation") in WRITING else ("steps", "outputs"))):
        if name not in given:
            raise RunError("bad-job", f"the job lacks {name!r}")
    for name, known in (("runtime", RUNTIMES), ("operation", OPERATIONS)):
        if name in given and given[name] not in known:
            raise RunError("bad-job", f"unknown {name} {given[name]!r}: known are {', '.join(known)}")
    return RunnerJob(**given)


def _checked(name: str, value: Any) -> Any:
    if name not in _TYPES:
        raise RunError("bad-job", f"the job has an unknown field {name!r}")
    if _TYPES[name] is float and type(value) is int:
        value = float(value)
    if type(value) is not _TYPES[name]:
        raise RunError("bad-job", f"the job's {name!r} must be of type {_TYPES[name].__name__}")
    if name in _LEAST and not value >= _LEAST[name]:
        raise RunError("bad-job", f"the job's {name!r} must be {_LEAST[name]} or more")
    if name != "pin_cores":
        return value
    if not all(type(core) is int and core >= 0 for core in value):
        raise RunError("bad-job", "the job's 'pin_cores' must be numbers of cores")
    return tuple(value)

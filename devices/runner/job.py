"""The job: which file to load into which runtime, and which steps to replay."""

import json
from typing import Any, NamedTuple

from .failures import RunError

SCHEMA = 1
RUNTIMES = ("litert", "tflite-runtime", "onnxruntime", "tensorflow", "torch", "coreml")


class RunnerJob(NamedTuple):
    """One run. `die_with_parent`: end when the pipe on standard input does (not over ssh, where it has none).

    `compute_units` are those that Core ML may use: cpu, cpu+gpu, cpu+ane, all.
    """

    runtime: str
    model: str
    steps: str
    outputs: str
    num_threads: int = 1
    die_with_parent: bool = False
    compute_units: str = "cpu"


_TYPES = {"runtime": str, "model": str, "steps": str, "outputs": str, "num_threads": int, "die_with_parent": bool}
_TYPES["compute_units"] = str


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
    given = {name: value for name, value in fields.items() if name != "schema"}
    for name, value in given.items():
        if name not in _TYPES:
            raise RunError("bad-job", f"the job has an unknown field {name!r}")
        if type(value) is not _TYPES[name]:
            raise RunError("bad-job", f"the job's {name!r} must be of type {_TYPES[name].__name__}")
    for name in ("runtime", "model", "steps", "outputs"):
        if name not in given:
            raise RunError("bad-job", f"the job lacks {name!r}")
    if given["runtime"] not in RUNTIMES:
        raise RunError("bad-job", f"unknown runtime {given['runtime']!r}: known are {', '.join(RUNTIMES)}")
    if given.get("num_threads", 1) < 1:
        raise RunError("bad-job", "the job's 'num_threads' must be 1 or more")
    return RunnerJob(**given)

"""What a runtime looks like to the runner, and which module serves which."""

import importlib
from typing import NamedTuple, Optional

from .failures import RunError, first_line
from .job import RunnerJob
from .steps import Arrays

#: runtime → module of this package
MODULES = {
    "litert": "backend_tflite",
    "tflite-runtime": "backend_tflite",
    "onnxruntime": "backend_onnxruntime",
    "tensorflow": "backend_tensorflow",
    "torch": "backend_torch",
    "coreml": "backend_coreml",
}
#: the signature of formats that have no name for their only entry
UNNAMED = ""


class Port(NamedTuple):
    """One input or output: numpy's name of its dtype, and its shape with None for what is not fixed."""

    dtype: str
    shape: tuple[Optional[int], ...]


class Signature(NamedTuple):
    """One entry point of a loaded file."""

    inputs: dict[str, Port]
    outputs: dict[str, Port]


class Backend:
    """A file loaded into a runtime. Subclasses set `version` and `signatures` and run one call."""

    version: str
    signatures: dict[str, Signature]

    def run(self, signature: str, inputs: Arrays) -> Arrays:
        """Call a signature with checked inputs; return its outputs as numpy arrays of their own memory."""
        raise NotImplementedError

    def resolve(self, name: str) -> str:
        """The loaded signature that a step's name means; an unnamed one answers to every name."""
        if name in self.signatures:
            return name
        if list(self.signatures) == [UNNAMED]:
            return UNNAMED
        known = ", ".join(sorted(self.signatures)) or "none"
        raise RunError("bad-input", f"the file has no signature {name!r}: it has {known}")


def load_backend(job: RunnerJob) -> Backend:
    """Load the job's file into its runtime.

    Raises RunError: "runtime-missing" where it is not installed, "load-failed" where it refuses the file.
    """
    try:
        module = importlib.import_module(f".{MODULES[job.runtime]}", __package__)
        runtime = module.import_runtime(job.runtime)
    except ImportError as error:
        raise RunError("runtime-missing", f"{job.runtime} can't be imported: {first_line(error)}") from error
    try:
        backend: Backend = module.load(runtime, job)
    except RunError:
        raise
    except Exception as error:
        raise RunError("load-failed", f"{job.runtime} can't load {job.model}: {first_line(error)}") from error
    return backend

"""What a runtime looks like to the runner, and which module serves which."""

import importlib
from typing import Any, Callable, NamedTuple, Optional

from .failures import AcceleratorError, RunError, first_line
from .job import RunnerJob
from .steps import Arrays

#: runtime → module of this package
MODULES = {
    "litert": "backend_tflite",
    "litert-compiled": "backend_litert_compiled",
    "litert-openvino": "backend_litert_compiled",
    "tflite-runtime": "backend_tflite",
    "onnxruntime": "backend_onnxruntime",
    "onnxruntime-qnn": "backend_onnxruntime",
    "onnxruntime-webgpu": "backend_onnxruntime",
    "onnxruntime-openvino": "backend_onnxruntime",
    "tensorflow": "backend_tensorflow",
    "torch": "backend_torch",
    "coreml": "backend_coreml",
    "qnn-simulator": "backend_qnn_context",
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


class Call(NamedTuple):
    """One call of a signature with given inputs, in the three parts that are timed apart.

    `write` puts the inputs in their place, `run` does the work and returns when it is done (on an accelerator that
    works on its own: when the outputs can be read), `read` makes numpy arrays of their own of what `run` returned.
    """

    write: Callable[[], Any]
    run: Callable[[], Any]
    read: Callable[[Any], Arrays]


def nothing() -> None:
    """The `write` of a runtime that takes its inputs when it runs."""


class Backend:
    """A file loaded into a runtime. Subclasses set `version` and `signatures` and prepare calls.

    `fallback` is why the file was loaded for the CPU although an accelerator was asked for; "" where it was not.
    """

    version: str
    signatures: dict[str, Signature]
    #: of the runtime's own cache of what it compiled: "" (it keeps none), able (it was not asked), written, read
    cache: str = ""
    fallback: str = ""

    def prepare(self, signature: str, inputs: Arrays) -> Call:
        """A call of a signature with checked inputs, to be made any number of times."""
        raise NotImplementedError

    def run(self, signature: str, inputs: Arrays) -> Arrays:
        """Call a signature once, in the parts that are measured."""
        call = self.prepare(signature, inputs)
        call.write()
        return call.read(call.run())

    def session(self) -> Any:
        """A Session that keeps states in buffers of the runtime's own; None where numpy arrays have to do."""
        return None

    def assignment(self) -> dict[str, Any]:
        """What the runtime tells of which node runs where, as it tells it; empty where it does not. After a run."""
        return {}

    def profile(self, call: Call, runs: int) -> dict[str, Any]:
        """Run a call and return the runtime's own times by operator; raises RunError("refused") where it has none."""
        raise RunError("refused", f"{type(self).__name__} can't tell the time of operators")

    def resolve(self, name: str) -> str:
        """The loaded signature that a step's name means; an unnamed one answers to every name."""
        if name in self.signatures:
            return name
        if list(self.signatures) == [UNNAMED]:
            return UNNAMED
        known = ", ".join(sorted(self.signatures)) or "none"
        raise RunError("bad-input", f"the file has no signature {name!r}: it has {known}")


class Runtime(NamedTuple):
    """An imported runtime and the module of this package that serves it."""

    module: Any
    imported: Any


def import_runtime(job: RunnerJob) -> Runtime:
    """Import the job's runtime.

    Raises RunError: "runtime-missing" where it is not installed, "refused" where it has not the job's accelerator.
    """
    try:
        module = importlib.import_module(f".{MODULES[job.runtime]}", __package__)
        offered = getattr(module, "ACCELERATORS", {}).get(job.runtime, ("cpu",))
        if job.accelerator not in offered:
            raise RunError(
                "refused", f"{job.accelerator} is not offered with {job.runtime}: it has {', '.join(offered)}"
            )
        return Runtime(module, module.import_runtime(job.runtime))
    except ImportError as error:
        raise RunError("runtime-missing", f"{job.runtime} can't be imported: {first_line(error)}") from error


def load_backend(runtime: Runtime, job: RunnerJob) -> Backend:
    """Load the job's file; where its accelerator can't be had, for the CPU, with the reason in `fallback`.

    Raises RunError("load-failed") where the runtime refuses the file.
    """
    try:
        backend: Backend = runtime.module.load(runtime.imported, job)
    except AcceleratorError as refused:
        backend = load_backend(runtime, job._replace(accelerator="cpu", delegate=""))
        backend.fallback = str(refused)
    except RunError:
        raise
    except Exception as error:
        raise RunError("load-failed", f"{job.runtime} can't load {job.model}: {first_line(error)}") from error
    return backend

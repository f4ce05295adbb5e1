"""TFLite files in ai-edge-litert, or in tflite-runtime on old device images: the same interface."""

import importlib
from typing import Any

import numpy as np

from .backend import Backend, Port, Signature
from .failures import RunError
from .job import RunnerJob
from .steps import Arrays

_PACKAGES = {"litert": "ai_edge_litert", "tflite-runtime": "tflite_runtime"}


def import_runtime(runtime: str) -> Any:
    """Import the interpreter's package; raises ImportError without it."""
    importlib.import_module(f"{_PACKAGES[runtime]}.interpreter")
    return importlib.import_module(_PACKAGES[runtime])


def load(runtime: Any, job: RunnerJob) -> Backend:
    """Load a file; raises ValueError for what is none, RunError for one without named signatures."""
    return TfliteBackend(runtime, job)


class TfliteBackend(Backend):
    """One interpreter; each signature is called through its own signature runner."""

    def __init__(self, runtime: Any, job: RunnerJob) -> None:
        self.version = str(getattr(runtime, "__version__", "unknown"))
        self._interpreter = runtime.interpreter.Interpreter(model_path=job.model, num_threads=job.num_threads)
        names = list(self._interpreter.get_signature_list())
        if not names:
            raise RunError("load-failed", f"{job.model} has no named signature")
        self._runners = {name: self._interpreter.get_signature_runner(name) for name in names}
        self.signatures = {
            name: Signature(_ports(runner.get_input_details()), _ports(runner.get_output_details()))
            for name, runner in self._runners.items()
        }

    def run(self, signature: str, inputs: Arrays) -> Arrays:
        """Call a signature runner; it copies its outputs out of the interpreter."""
        outputs = self._runners[signature](**inputs)
        return {name: np.array(value) for name, value in outputs.items()}


def _ports(details: dict[str, Any]) -> dict[str, Port]:
    return {name: _port(detail) for name, detail in details.items()}


def _port(detail: dict[str, Any]) -> Port:
    # Signature runners resize their inputs to whatever they are given: the shape that the file declares must hold.
    signed = detail["shape_signature"] if len(detail.get("shape_signature", ())) else detail["shape"]
    return Port(np.dtype(detail["dtype"]).name, tuple(None if size < 0 else int(size) for size in signed))

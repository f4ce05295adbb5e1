"""ONNX files in ONNX Runtime, on its CPU provider."""

from typing import Any

import numpy as np

from .backend import UNNAMED, Backend, Port, Signature
from .job import RunnerJob
from .steps import Arrays

_DTYPES = {"tensor(float)": "float32", "tensor(double)": "float64"}


def import_runtime(runtime: str) -> Any:
    """Import onnxruntime; raises ImportError without it."""
    import onnxruntime

    return onnxruntime


def load(runtime: Any, job: RunnerJob) -> Backend:
    """Load a file; raises onnxruntime's own errors for what it refuses."""
    return OnnxBackend(runtime, job)


class OnnxBackend(Backend):
    """One inference session; an ONNX graph has one unnamed entry."""

    def __init__(self, runtime: Any, job: RunnerJob) -> None:
        self.version = str(runtime.__version__)
        options = runtime.SessionOptions()
        options.intra_op_num_threads = job.num_threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = runtime.InferenceSession(job.model, options, providers=["CPUExecutionProvider"])
        self.signatures = {UNNAMED: Signature(_ports(self._session.get_inputs()), _ports(self._session.get_outputs()))}

    def run(self, signature: str, inputs: Arrays) -> Arrays:
        """Run the session for all outputs."""
        names = list(self.signatures[signature].outputs)
        return {name: np.array(value) for name, value in zip(names, self._session.run(names, inputs))}


def _ports(values: Any) -> dict[str, Port]:
    return {
        value.name: Port(
            _DTYPES.get(value.type, value.type[len("tensor(") : -1]),
            tuple(size if isinstance(size, int) else None for size in value.shape),
        )
        for value in values
    }

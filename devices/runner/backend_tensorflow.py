"""SavedModel folders in TensorFlow."""

import os
from functools import partial
from typing import Any

from .backend import Backend, Call, Port, Signature, nothing
from .job import RunnerJob
from .steps import Arrays


def import_runtime(runtime: str) -> Any:
    """Import TensorFlow, quietly; raises ImportError without it."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    import tensorflow

    return tensorflow


def load(runtime: Any, job: RunnerJob) -> Backend:
    """Load a folder; raises OSError for what is none."""
    return TensorflowBackend(runtime, job)


class TensorflowBackend(Backend):
    """A loaded SavedModel; its signatures take and give named tensors."""

    def __init__(self, runtime: Any, job: RunnerJob) -> None:
        self.version = str(runtime.__version__)
        self._tensorflow = runtime
        runtime.config.threading.set_intra_op_parallelism_threads(job.num_threads)
        runtime.config.threading.set_inter_op_parallelism_threads(1)
        self._loaded = runtime.saved_model.load(job.model)  # must outlive its functions
        self._functions = dict(self._loaded.signatures)
        self.signatures = {
            name: Signature(_ports(function.structured_input_signature[1]), _ports(function.structured_outputs))
            for name, function in self._functions.items()
        }

    def prepare(self, signature: str, inputs: Arrays) -> Call:
        """Call a signature with the inputs as tensors."""
        tensors = {name: self._tensorflow.constant(value) for name, value in inputs.items()}
        return Call(nothing, partial(self._functions[signature], **tensors), _read)


def _read(outputs: Any) -> Arrays:
    return {name: value.numpy() for name, value in outputs.items()}


def _ports(specs: dict[str, Any]) -> dict[str, Port]:
    return {name: Port(spec.dtype.name, tuple(spec.shape.as_list())) for name, spec in specs.items()}

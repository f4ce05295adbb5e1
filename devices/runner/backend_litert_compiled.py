"""TFLite files in LiteRT's CompiledModel (ai-edge-litert 2 or later), on its CPU accelerator."""

import importlib
import os
from functools import partial
from typing import Any

import numpy as np

from .backend import Backend, Call, Port, Signature
from .failures import RunError
from .job import RunnerJob
from .steps import Arrays

_CACHE = ":memory" if hasattr(os, "memfd_create") else ""


def import_runtime(runtime: str) -> Any:
    """Import the package with its compiled_model; raises ImportError without it (ai-edge-litert 1 has none)."""
    for name in ("compiled_model", "options", "hardware_accelerator"):
        importlib.import_module(f"ai_edge_litert.{name}")
    return importlib.import_module("ai_edge_litert")


def load(runtime: Any, job: RunnerJob) -> Backend:
    """Load and compile a file; raises the runtime's own errors for what it refuses."""
    return CompiledBackend(runtime, job)


class CompiledBackend(Backend):
    """One compiled model, and one buffer for each input and output of each signature, by name.

    XNNPACK packs the weights once for each signature, unless it has a cache for them; `:memory` is one that is no file,
    where the system has such (Linux, Android 11). ai-edge-litert 2.3.0: an encoder of 5 M parameters in float32 took
    105 MB with four signatures, 34 MB with it; with one, 48 and 31 MB.
    """

    def __init__(self, runtime: Any, job: RunnerJob) -> None:
        self.version = str(getattr(runtime, "__version__", "unknown"))
        self._job = job
        options = runtime.options.Options(
            hardware_accelerators=runtime.hardware_accelerator.HardwareAccelerator.CPU,
            cpu_options=runtime.options.CpuOptions(num_threads=job.num_threads, xnnpack_weight_cache_path=_CACHE),
        )
        self._model = runtime.compiled_model.CompiledModel.from_file(job.model, options=options)
        self._buffers: dict[str, tuple[Arrays, Arrays]] = {}
        self.signatures = {
            name: Signature(
                _ports(self._model.get_input_tensor_details(name)), _ports(self._model.get_output_tensor_details(name))
            )
            for name in self._model.get_signature_list()
        }

    def prepare(self, signature: str, inputs: Arrays) -> Call:
        """Write into the input buffers, run by name, read the output buffers, which copies."""
        taken, given = self._buffers_of(signature)
        ports = self.signatures[signature].outputs
        sizes = [(name, port, _size(port)) for name, port in ports.items()]

        def write() -> None:
            for name, value in inputs.items():
                taken[name].write(value)

        def read(_: Any) -> Arrays:
            return {name: given[name].read(size, np.dtype(p.dtype)).reshape(p.shape) for name, p, size in sizes}

        return Call(write, partial(self._model.run_by_name, signature, taken, given), read)

    def _buffers_of(self, signature: str) -> tuple[Arrays, Arrays]:
        if signature not in self._buffers:
            found, model = self.signatures[signature], self._model
            self._buffers[signature] = (
                {name: model.create_input_buffer_by_name(signature, name) for name in found.inputs},
                {name: model.create_output_buffer_by_name(signature, name) for name in found.outputs},
            )
        return self._buffers[signature]

    def profile(self, call: Call, runs: int) -> dict[str, Any]:
        """The summary that LiteRT's own profiler prints."""
        from .profile_litert import profile_file

        return {"format": "litert", "text": profile_file(self._job, self.version, runs)}


def _ports(details: dict[str, Any]) -> dict[str, Port]:
    return {
        name: Port(str(detail["dtype"]), tuple(int(size) if size >= 0 else None for size in detail["shape"]))
        for name, detail in details.items()
    }


def _size(port: Port) -> int:
    size = 1
    for each in port.shape:
        if each is None:
            raise RunError(
                "refused", "CompiledModel is run with fixed shapes only: use the runtime litert for this file"
            )
        size *= each
    return size

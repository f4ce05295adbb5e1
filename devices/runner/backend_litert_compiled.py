"""TFLite files in LiteRT's CompiledModel (ai-edge-litert 2 or later): on the CPU, the GPU, or an NPU by OpenVINO.

What an accelerator leaves runs on the CPU, as in applications; what it took, LiteRT tells mostly in its log on standard
error, which whoever started the runner reads.
"""

import ctypes
import importlib
import importlib.util
import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .backend import Backend, Call, Port, Signature
from .failures import AcceleratorError, RunError
from .job import RunnerJob
from .litert_library import CPU, GPU, is_accelerated
from .memory import drop_pages
from .steps import Arrays

ACCELERATORS = {"litert-compiled": ("cpu", "gpu"), "litert-openvino": ("cpu", "npu")}
#: a cache of packed weights that is no file
CACHE = ":memory" if hasattr(os, "memfd_create") else ""


def import_runtime(runtime: str) -> Any:
    """Import the package with its compiled_model; raises ImportError without it (ai-edge-litert 1 has none)."""
    for name in ("compiled_model", "options", "hardware_accelerator", "interpreter"):
        importlib.import_module(f"ai_edge_litert.{name}")
    if runtime == "litert-openvino":
        _load_openvino()
    return importlib.import_module("ai_edge_litert")


def _load_openvino() -> None:
    """Load OpenVINO's library, where it is installed, so that the part that runs compiled files finds it.

    ai-edge-litert 2.3.0 finds it by itself only where its compiler was loaded before, which a compiled file needs not.
    """
    found = importlib.util.find_spec("openvino")
    for folder in (found.submodule_search_locations or ()) if found else ():
        for library in sorted(Path(folder, "libs").glob("libopenvino.so.*")):
            ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)


def load(runtime: Any, job: RunnerJob) -> Backend:
    """Load and compile a file; raises the runtime's own errors for what it refuses."""
    from .litert_direct import open_direct

    return open_direct(runtime, job) or CompiledBackend(runtime, job)


class CompiledBackend(Backend):
    """One compiled model, and one buffer for each input and output of each signature, by name.

    XNNPACK packs the weights once for each signature, unless it has a cache for them; `:memory` is one that is no file,
    where the system has such (Linux, Android 11). ai-edge-litert 2.3.0: an encoder of 5 M parameters in float32 took
    105 MB with four signatures, 34 MB with it; with one, 48 and 31 MB.
    """

    def __init__(self, runtime: Any, job: RunnerJob) -> None:
        self.version = str(getattr(runtime, "__version__", "unknown"))
        self._job, self._runtime = job, runtime
        weights = ""
        if job.accelerator == "cpu" and job.xnnpack:
            weights, self.cache = use_cache(job.cache)
        self._model = _compile(runtime, job, weights)
        drop_pages(job.model)
        self._buffers: dict[str, tuple[Arrays, Arrays]] = {}
        self.signatures = {
            name: Signature(
                _ports(self._model.get_input_tensor_details(name)), _ports(self._model.get_output_tensor_details(name))
            )
            for name in self._model.get_signature_list()
        }

    def prepare(self, signature: str, inputs: Arrays) -> Call:
        """Write into the input buffers, run by name, read the output buffers, which copies.

        On an accelerator the reading is part of the run: `run_by_name` returns before it is done.
        """
        taken, given = self._buffers_of(signature)
        ports = self.signatures[signature].outputs
        sizes = [(name, port, count_values(port)) for name, port in ports.items()]

        def write() -> None:
            for name, value in inputs.items():
                taken[name].write(value)

        def read(_: Any) -> Arrays:
            return {name: given[name].read(size, np.dtype(p.dtype)).reshape(p.shape) for name, p, size in sizes}

        run = partial(self._model.run_by_name, signature, taken, given)
        if self._job.accelerator == "cpu":
            return Call(write, run, read)
        return Call(write, lambda: read(run()), _already_read)

    def session(self) -> Any:
        """States in LiteRT's buffers."""
        from .litert_states import updated_in_place
        from .session_litert import LitertSession

        in_place = updated_in_place(self._job.model) if self._job.accelerator == "cpu" else set()
        return LitertSession(self, self._model, in_place)

    def _buffers_of(self, signature: str) -> tuple[Arrays, Arrays]:
        if signature not in self._buffers:
            found, model = self.signatures[signature], self._model
            self._buffers[signature] = (
                {name: model.create_input_buffer_by_name(signature, name) for name in found.inputs},
                {name: model.create_output_buffer_by_name(signature, name) for name in found.outputs},
            )
        return self._buffers[signature]

    def assignment(self) -> dict[str, Any]:
        """The operators of the first subgraph, and whether LiteRT's C interface says that the GPU runs them all."""
        told: dict[str, Any] = {"format": "litert-compiled", "signatures": len(self.signatures)}
        resolver = self._runtime.interpreter.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        interpreter = self._runtime.interpreter.Interpreter(self._job.model, experimental_op_resolver_type=resolver)
        told["operators"] = [op["op_name"] for op in interpreter._get_ops_details()]
        if self._job.accelerator == "gpu":
            try:
                told["all_accelerated"] = is_accelerated(self._job.model, self.version, CPU | GPU)
            except RunError as unknown:  # another version: its log has to do
                told["note"] = str(unknown)
        return told

    def profile(self, call: Call, runs: int) -> dict[str, Any]:
        """The summary that LiteRT's own profiler prints; refused on accelerators, where runs fail with it (2.3.0)."""
        if self._job.accelerator != "cpu" or not self._job.xnnpack:
            raise RunError("refused", "LiteRT's profiler runs files on XNNPACK only: leave --op-profile out")
        from .profile_litert import profile_file

        return {"format": "litert", "text": profile_file(self._job, self.version, runs)}


def use_cache(folder: str) -> tuple[str, str]:
    """The file in which XNNPACK keeps its packed weights ("" without a folder), and whether it is there already."""
    if not folder:
        return "", "able"
    weights = Path(folder, "xnnpack")
    weights.parent.mkdir(parents=True, exist_ok=True)
    return str(weights), "read" if weights.exists() else "written"


def _compile(runtime: Any, job: RunnerJob, weights: str) -> Any:
    """The compiled model; raises AcceleratorError where the accelerator's part fails.

    `weights` is the file in which XNNPACK keeps its packed weights; the GPU keeps nothing (2.3.0 has no option for it).
    """
    hardware, options = runtime.hardware_accelerator.HardwareAccelerator, runtime.options
    kernels = {} if job.xnnpack else {"kernel_mode": options.CpuKernelMode.BUILTIN}
    cpu = options.CpuOptions(num_threads=job.num_threads, xnnpack_weight_cache_path=weights or CACHE, **kernels)
    chosen = {"cpu_options": cpu}
    accelerators = hardware.CPU
    if job.accelerator == "gpu":
        accelerators |= hardware.GPU
    elif job.accelerator == "npu":
        accelerators |= hardware.NPU
        backend = options.IntelOpenVinoOptions.GRAPH_BACKEND[job.openvino_device]
        chosen["intel_openvino_options"] = options.IntelOpenVinoOptions(graph_backend=backend)
    wanted = options.Options(hardware_accelerators=accelerators, **chosen)
    try:
        return runtime.compiled_model.CompiledModel.from_file(job.model, options=wanted)
    except RuntimeError as error:
        if job.accelerator == "cpu":
            raise
        raise AcceleratorError(f"LiteRT can't compile the file for the {job.accelerator}{_reason(error)}") from error


def _reason(error: Exception) -> str:
    """The last line of LiteRT's message, without those that only name its own source files."""
    lines = [line.strip("└ ") for line in str(error).splitlines()]
    told = [line for line in lines if line and not line.startswith("ERROR: [")]
    return f": {told[-1]}" if told else ""


def _already_read(outputs: Any) -> Arrays:
    """The `read` of a call whose run has read."""
    taken: Arrays = outputs
    return taken


def _ports(details: dict[str, Any]) -> dict[str, Port]:
    return {
        name: Port(str(detail["dtype"]), tuple(int(size) if size >= 0 else None for size in detail["shape"]))
        for name, detail in details.items()
    }


def count_values(port: Port) -> int:
    """How many values an input or output has; raises RunError for one whose shape is not fixed."""
    size = 1
    for each in port.shape:
        if each is None:
            raise RunError(
                "refused", "CompiledModel is run with fixed shapes only: use the runtime litert for this file"
            )
        size *= each
    return size

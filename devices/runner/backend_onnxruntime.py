"""ONNX files in ONNX Runtime: on its CPU provider, or one that a package of its own brings."""

import importlib
import json
import os
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .backend import UNNAMED, Backend, Call, Port, Signature, nothing
from .failures import RunError
from .job import RunnerJob
from .onnx_providers import PROVIDERS, describe, is_complete, open_session, read_placements, use_cache
from .steps import Arrays

ACCELERATORS = {name: ("cpu", provider.accelerator) for name, provider in PROVIDERS.items()}
#: graphs of a folder, as Optimum names them, and the signature of each; the loop that writes needs no `begin`
GRAPHS = {"encoder_model.onnx": "encode", "decoder_model.onnx": "begin", "decoder_with_past_model.onnx": "decode"}
_UNUSED = "decoder_model.onnx"
_DTYPES = {"tensor(float)": "float32", "tensor(double)": "float64"}


def import_runtime(runtime: str) -> Any:
    """Import onnxruntime, and the package of a provider that is one of its own; raises ImportError without it."""
    import onnxruntime

    if runtime in PROVIDERS and PROVIDERS[runtime].package:
        importlib.import_module(PROVIDERS[runtime].package)
    return onnxruntime


def load(runtime: Any, job: RunnerJob) -> Backend:
    """Load a file; raises onnxruntime's own errors for what it refuses, AcceleratorError where a provider does."""
    return OnnxBackend(runtime, job)


class OnnxBackend(Backend):
    """An inference session, or one for each graph of a folder; a lone graph has one unnamed entry.

    A session's run takes the inputs and gives the outputs.
    """

    def __init__(self, runtime: Any, job: RunnerJob) -> None:
        self.version = str(runtime.__version__)
        self._runtime, self._job = runtime, job
        options = self._options()
        if not Path(job.model).is_dir():  # of a folder every graph would be kept under the same name
            job, self.cache = use_cache(runtime, job, options)
        self._profiling = job.operation == "profile"
        if self._profiling:
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(tempfile.gettempdir(), f"edgekit-profile-{os.getpid()}"))
        models = _graphs(job)
        self._sessions = {
            name: open_session(runtime, job._replace(model=model), options) for name, model in models.items()
        }
        self._session = next(iter(self._sessions.values()))
        self.signatures = {
            name: Signature(_ports(session.get_inputs()), _ports(session.get_outputs()))
            for name, session in self._sessions.items()
        }

    def _options(self) -> Any:
        options = self._runtime.SessionOptions()
        options.intra_op_num_threads = self._job.num_threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        if self._job.operation != "replay":  # tells which provider took which node; runtimes before 1.24 pass it over
            options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        return options

    def prepare(self, signature: str, inputs: Arrays) -> Call:
        """Run the session for all outputs."""
        names = list(self.signatures[signature].outputs)

        def read(values: Any) -> Arrays:
            return {name: np.array(value) for name, value in zip(names, values)}

        return Call(nothing, partial(self._sessions[signature].run, names, inputs), read)

    def session(self) -> Any:
        """States as ONNX Runtime's values."""
        from .session_onnxruntime import make_session

        return make_session(self, self._runtime, self._sessions)

    def assignment(self) -> dict[str, Any]:
        """The operators that each provider took; from the log of another session where that tells of more nodes.

        Providers that bring kernels instead of compiling (WebGPU) are told of in part before onnxruntime 1.31.
        """
        ask = getattr(self._session, "get_provider_graph_assignment_info", list)
        parts = [[part.ep_name, [node.op_type for node in part.get_nodes()]] for part in ask()]
        told = {"format": "onnxruntime", "parts": parts, "partitions": True}
        if self._job.accelerator != "cpu" and not is_complete(self.version):
            logged = read_placements(self._runtime, self._job, self._options())
            if _count(logged) > _count(parts):
                parts = logged
                told = {"format": "onnxruntime", "parts": parts, "partitions": False}
        return dict(told, **describe(self._job)) if parts else {}

    def profile(self, call: Call, runs: int) -> dict[str, Any]:
        """The mean time of each node over the runs, from the profile that the session writes."""
        if not self._profiling:
            raise RunError("refused", "the session was made without profiling")
        for _ in range(runs):
            call.run()
        path = Path(self._session.end_profiling())
        try:
            events = json.loads(path.read_text(encoding="utf-8"))
        finally:
            path.unlink()
        return {"format": "onnxruntime", "nodes": _node_times(events)}


def _graphs(job: RunnerJob) -> dict[str, str]:
    """The files of the signatures; raises RunError for a folder that holds none."""
    folder = Path(job.model)
    if not folder.is_dir():
        return {UNNAMED: job.model}
    unused = _UNUSED if job.operation == "generate" else ""
    found = {signature: str(folder / name) for name, signature in GRAPHS.items() if name != unused}
    there = {signature: path for signature, path in found.items() if Path(path).is_file()}
    if not there:
        raise RunError("load-failed", f"the folder {job.model} has none of {', '.join(GRAPHS)}")
    return there


def _count(parts: list[list[Any]]) -> int:
    return sum(len(operators) for _, operators in parts)


def _node_times(events: list[dict[str, Any]]) -> list[list[Any]]:
    """[name, kind, provider, mean ms] of each node."""
    spent: dict[tuple[str, str, str], list[float]] = {}
    for event in events:
        name = event.get("name", "")
        if event.get("cat") == "Node" and name.endswith("_kernel_time"):
            told = event.get("args", {})
            key = (name[: -len("_kernel_time")], told.get("op_name", ""), told.get("provider", ""))
            spent.setdefault(key, []).append(event["dur"] / 1e3)
    return [[*key, sum(times) / len(times)] for key, times in spent.items()]


def _ports(values: Any) -> dict[str, Port]:
    return {
        value.name: Port(
            _DTYPES.get(value.type, value.type[len("tensor(") : -1]),
            tuple(size if isinstance(size, int) else None for size in value.shape),
        )
        for value in values
    }

"""ONNX Runtime's execution providers: how each is asked for, and what it took where the session does not tell."""

import importlib
import os
import platform
import re
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from .failures import AcceleratorError, first_line
from .job import RunnerJob

#: the SoC whose NPU the x86_64 library of QNN simulates (57: SM8650); without one it refuses float models
_SIMULATED_SOC = "57"
#: providers that can write what they compiled as a file of its own
_KEEPS_CONTEXT = ("onnxruntime-qnn", "onnxruntime-openvino")
_PLACED = re.compile(r"(?:Node\(s\)|All nodes) placed on \[(\w+)\]\. Number of nodes: (\d+)")
_NODE = re.compile(r"VerifyEachNodeIsAssignedToAnEp\]\s+(\w+) \(")


class Provider(NamedTuple):
    """A provider: its name, its accelerator, and the package that registers it ("": onnxruntime has it built in)."""

    name: str
    accelerator: str
    package: str = ""


PROVIDERS = {
    "onnxruntime-qnn": Provider("QNNExecutionProvider", "npu", "onnxruntime_qnn"),
    "onnxruntime-webgpu": Provider("WebGpuExecutionProvider", "gpu"),
    "onnxruntime-openvino": Provider("OpenVINOExecutionProvider", "npu"),
}


def open_session(runtime: Any, job: RunnerJob, options: Any) -> Any:
    """A session of the job's file on the job's accelerator; what the provider leaves runs on the CPU.

    Raises AcceleratorError where the provider is not there or refuses: ONNX Runtime itself would go on with the CPU.
    """
    if job.accelerator == "cpu":
        return runtime.InferenceSession(job.model, options, providers=["CPUExecutionProvider"])
    provider = PROVIDERS[job.runtime]
    try:
        if provider.package:
            session = _with_plugin(runtime, job, options, provider)
        else:
            session = _with_built_in(runtime, job, options, provider)
    except AcceleratorError:
        raise
    except Exception as error:  # each provider raises errors of its own
        raise AcceleratorError(f"{provider.name} can't be had: {_told(error)}") from error
    if provider.name not in session.get_providers():
        raise AcceleratorError(f"{provider.name} was passed over: the session has {', '.join(session.get_providers())}")
    return session


def use_cache(runtime: Any, job: RunnerJob, options: Any) -> tuple[RunnerJob, str]:
    """The job with the file that an earlier session kept in its cache, "read"; or the job and options that keep one.

    The CPU keeps its optimized graph, QNN and OpenVINO a compiled context; onnxruntime-webgpu 1.27.0 keeps nothing: "".
    """
    on_cpu = job.accelerator == "cpu"
    if not on_cpu and job.runtime not in _KEEPS_CONTEXT:
        return job, ""
    if not job.cache:
        return job, "able"
    kept = Path(job.cache, "optimized.onnx" if on_cpu else "context.onnx")
    if kept.exists():
        if on_cpu:
            options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
        return job._replace(model=str(kept)), "read"
    kept.parent.mkdir(parents=True, exist_ok=True)
    if on_cpu:
        options.optimized_model_filepath = str(kept)
    else:
        options.add_session_config_entry("ep.context_enable", "1")
        options.add_session_config_entry("ep.context_embed_mode", "1")
        options.add_session_config_entry("ep.context_file_path", str(kept))
    return job, "written"


def describe(job: RunnerJob) -> dict[str, str]:
    """What else is to be said of a run on the job's accelerator: `device`, `note`."""
    if job.accelerator == "cpu":
        return {}
    if job.runtime == "onnxruntime-openvino":
        return {"device": job.openvino_device}
    if job.runtime == "onnxruntime-qnn" and _simulates():
        return {"note": "QNN's simulator of the HTP: its times say nothing of an NPU"}
    return {}


def is_complete(version: str) -> bool:
    """Whether get_provider_graph_assignment_info of this onnxruntime tells of every node."""
    numbers = [int(part) for part in version.split(".")[:2] if part.isdigit()]
    return numbers >= [1, 31]


def read_placements(runtime: Any, job: RunnerJob, options: Any) -> list[list[Any]]:
    """[provider, its operators] from the log of a session that is made for it."""
    options.log_severity_level = 0
    with tempfile.TemporaryFile() as log:
        kept = os.dup(2)
        os.dup2(log.fileno(), 2)
        try:
            open_session(runtime, job, options)
        finally:
            os.dup2(kept, 2)
            os.close(kept)
        log.seek(0)
        text = log.read().decode(errors="replace")
    return parse_placements(text)


def parse_placements(text: str) -> list[list[Any]]:
    """[provider, its operators] from the verbose log of one session; operators are "" where they are not listed."""
    parts: list[list[Any]] = []
    for line in text.splitlines():
        placed, node = _PLACED.search(line), _NODE.search(line)
        if placed:
            parts.append([placed[1], [""] * int(placed[2])])
        elif node and parts:
            operators = parts[-1][1]
            if "" in operators:
                operators[operators.index("")] = node[1]
    return parts


def _with_plugin(runtime: Any, job: RunnerJob, options: Any, provider: Provider) -> Any:
    package = importlib.import_module(provider.package)
    if not any(device.ep_name == provider.name for device in runtime.get_ep_devices()):
        runtime.register_execution_provider_library(provider.name, package.get_library_path())
    devices = [device for device in runtime.get_ep_devices() if device.ep_name == provider.name]
    if not devices:
        raise AcceleratorError(f"{provider.name} finds no device that it runs on")
    options.add_provider_for_devices(devices[:1], _options(provider, job))
    return runtime.InferenceSession(job.model, options)


def _with_built_in(runtime: Any, job: RunnerJob, options: Any, provider: Provider) -> Any:
    there = runtime.get_available_providers()
    if provider.name not in there:
        raise AcceleratorError(
            f"this onnxruntime has no {provider.name} (it has {', '.join(there)}): another package of onnxruntime lies "
            "in the same folder"
        )
    providers = [(provider.name, _options(provider, job)), "CPUExecutionProvider"]
    return runtime.InferenceSession(job.model, options, providers=providers, enable_fallback=0)


def _options(provider: Provider, job: RunnerJob) -> dict[str, str]:
    if provider.name == "OpenVINOExecutionProvider":
        return {"device_type": job.openvino_device}
    if provider.name == "QNNExecutionProvider":
        return {"backend_type": "htp", **({"soc_model": _SIMULATED_SOC} if _simulates() else {})}
    return {}


def _simulates() -> bool:
    """Whether QNN's library for this machine is the one that simulates an NPU."""
    return platform.machine() in ("x86_64", "AMD64")


def _told(error: Exception) -> str:
    """What of an error is worth telling: ONNX Runtime's begin with the place in its own source files."""
    return first_line(error).rpartition(" was false. ")[2]

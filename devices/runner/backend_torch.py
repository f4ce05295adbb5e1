"""`.pt2` archives of torch.export in PyTorch, loaded without ever unpickling or compiling what is in them."""

import json
import os
import re
import zipfile
from typing import Any

from .backend import UNNAMED, Backend, Call, Port, Signature, nothing
from .failures import RunError
from .job import RunnerJob
from .steps import Arrays

#: what an archive of one float32 program holds, below its top folder; libraries of AOTInductor are not among it
_MEMBERS = re.compile(
    r"(archive_format|archive_version|byteorder|\.data/(version|serialization_id|storage_alignment|\.format_version)"
    r"|models/model\.json|data/weights/(model_weights_config\.json|weight_\d+)"
    r"|data/constants/(model_constants_config\.json|tensor_\d+)|data/sample_inputs/model\.pt)"
)


def import_runtime(runtime: str) -> Any:
    """Import PyTorch; raises ImportError without it."""
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"  # torch.export.load (2.13) unpickles members that ask for it
    import torch

    return torch


def load(runtime: Any, job: RunnerJob) -> Backend:
    """Load an archive; raises RunError for one with parts that could run code, else torch's own errors."""
    check_archive(job.model)
    return TorchBackend(runtime, job)


def check_archive(path: str) -> None:
    """Raise RunError("load-failed") for an archive that asks for pickles, libraries or evaluated expressions."""
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            member = name.split("/", 1)[-1]
            if not _MEMBERS.fullmatch(member):
                raise RunError("load-failed", f"{path} holds {member!r}, which is no part of an exported program")
            if member.endswith("_config.json"):
                entries = json.loads(archive.read(name)).get("config", {}).values()
                if any(entry.get("use_pickle") for entry in entries):
                    raise RunError("load-failed", f"{path} holds pickled tensors, which could run code")
            if member == "models/model.json" and _evaluates(json.loads(archive.read(name))):
                raise RunError("load-failed", f"{path} holds expressions that torch would evaluate as code")


def _evaluates(node: Any) -> bool:
    """Whether a program has symbolic sizes: torch 2.13 reads their text with sympy, which evaluates it."""
    if isinstance(node, dict):
        return any(key == "expr_str" or _evaluates(value) for key, value in node.items())
    return any(_evaluates(value) for value in node) if isinstance(node, list) else False


class TorchBackend(Backend):
    """An exported program as a module that takes keyword tensors and gives a dictionary of tensors."""

    def __init__(self, runtime: Any, job: RunnerJob) -> None:
        self.version = str(runtime.__version__)
        self._torch = runtime
        runtime.set_num_threads(job.num_threads)
        program = runtime.export.load(job.model)
        self._module = program.module(check_guards=False)  # guards are Python text in the archive
        self.signatures = {UNNAMED: _signature(program)}

    def prepare(self, signature: str, inputs: Arrays) -> Call:
        """Call the module without tracking gradients."""
        tensors = {name: self._torch.from_numpy(value) for name, value in inputs.items()}

        def run() -> Any:
            with self._torch.no_grad():
                return self._module(**tensors)

        return Call(nothing, run, _read)


def _read(outputs: Any) -> Arrays:
    return {name: value.numpy().copy() for name, value in outputs.items()}


def _signature(program: Any) -> Signature:
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    inputs = {name: _port(values[name]) for name in program.graph_signature.user_inputs}
    keys = program.call_spec.out_spec.context
    outputs = {key: _port(values[name]) for key, name in zip(keys, program.graph_signature.user_outputs)}
    return Signature(inputs, outputs)


def _port(tensor: Any) -> Port:
    return Port(str(tensor.dtype).rsplit(".", 1)[-1], tuple(int(size) for size in tensor.shape))

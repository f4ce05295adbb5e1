"""TFLite files in ai-edge-litert, or in tflite-runtime on old device images: the same interface."""

import importlib
from functools import partial
from typing import Any

import numpy as np

from .backend import Backend, Call, Port, Signature
from .failures import AcceleratorError, RunError, first_line
from .job import RunnerJob
from .steps import Arrays

_PACKAGES = {"litert": "ai_edge_litert", "tflite-runtime": "tflite_runtime"}
#: all but the CPU by an external delegate
ACCELERATORS = dict.fromkeys(_PACKAGES, ("cpu", "gpu", "npu", "nnapi", "edgetpu"))
#: accelerators whose delegate has a name of its own
_DELEGATES = {"edgetpu": "libedgetpu.so.1"}


def import_runtime(runtime: str) -> Any:
    """Import the interpreter's package; raises ImportError without it."""
    importlib.import_module(f"{_PACKAGES[runtime]}.interpreter")
    return importlib.import_module(_PACKAGES[runtime])


def load(runtime: Any, job: RunnerJob) -> Backend:
    """Load a file; raises ValueError for what is none, RunError for one without named signatures."""
    return TfliteBackend(runtime, job)


class TfliteBackend(Backend):
    """One interpreter; each signature runs on its own subgraph.

    Calls go where SignatureRunner sends them (ai-edge-litert 2.3.0, tflite-runtime 2.14.0), past its own __call__,
    which resizes and allocates all tensors every time: 2.6 % of 0.22 ms, which an application that cares does not pay.
    """

    def __init__(self, runtime: Any, job: RunnerJob) -> None:
        self.version = str(getattr(runtime, "__version__", "unknown"))
        self._job = job
        self._interpreter = _open(runtime.interpreter, job)
        self._delegated = _nodes(self._interpreter) if job.accelerator != "cpu" else []  # before XNNPACK takes the rest
        # tflite-runtime 2.14.0 applies XNNPACK here only, not where a subgraph is allocated: 2.3 times slower without
        self._interpreter.allocate_tensors()
        names = list(self._interpreter.get_signature_list())
        if not names:
            raise RunError("load-failed", f"{job.model} has no named signature")
        self._runners = {name: self._interpreter.get_signature_runner(name) for name in names}
        self._allocated: dict[str, list[tuple[int, ...]]] = {}
        self.signatures = {
            name: Signature(_ports(runner.get_input_details()), _ports(runner.get_output_details()))
            for name, runner in self._runners.items()
        }

    def prepare(self, signature: str, inputs: Arrays) -> Call:
        """Write with SetTensor, run with Invoke, read with GetTensor, which copies."""
        runner = self._runners[signature]
        graph, subgraph = runner._interpreter_wrapper, runner._subgraph_index
        tensors = [(detail["index"], inputs[name]) for name, detail in runner.get_input_details().items()]
        outputs = [(name, detail["index"]) for name, detail in runner.get_output_details().items()]
        shapes = [value.shape for _, value in tensors]

        def write() -> None:
            if self._allocated.get(signature) != shapes:
                self._allocate(signature, tensors)
            for index, value in tensors:
                graph.SetTensor(index, value, subgraph)

        def read(_: Any) -> Arrays:
            return {name: graph.GetTensor(index, subgraph) for name, index in outputs}

        return Call(write, partial(graph.Invoke, subgraph), read)

    def _allocate(self, signature: str, tensors: list[tuple[int, Any]]) -> None:
        runner = self._runners[signature]
        for index, value in tensors:
            shape = np.array(value.shape, dtype=np.int32)
            runner._interpreter_wrapper.ResizeInputTensor(index, shape, False, runner._subgraph_index)
        runner._interpreter_wrapper.AllocateTensors(runner._subgraph_index)
        self._allocated[signature] = [value.shape for _, value in tensors]

    def assignment(self) -> dict[str, Any]:
        """The operators of the first subgraph and the DELEGATE nodes that took some of them over.

        With an external delegate, as it was before XNNPACK took what that left.
        """
        nodes = self._delegated or _nodes(self._interpreter)
        if not nodes:
            return {}
        told = {"format": "tflite", "nodes": nodes, "signatures": len(self.signatures)}
        return dict(told, delegate=_delegate(self._job)[0]) if self._job.accelerator != "cpu" else told

    def profile(self, call: Call, runs: int) -> dict[str, Any]:
        """The summary that LiteRT's own profiler prints, of the same file run by the same library."""
        if self._job.accelerator != "cpu" or not self._job.xnnpack:
            raise RunError("refused", "LiteRT's profiler runs files on XNNPACK only: leave --op-profile out")
        from .profile_litert import profile_file

        return {"format": "litert", "text": profile_file(self._job, self.version, runs)}


def _open(package: Any, job: RunnerJob) -> Any:
    """An interpreter, with the external delegate that the job asks for; raises AcceleratorError without it."""
    options: dict[str, Any] = {"model_path": job.model, "num_threads": job.num_threads}
    if not job.xnnpack:
        options["experimental_op_resolver_type"] = package.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    if job.accelerator == "cpu":
        return package.Interpreter(**options)
    path, given = _delegate(job)
    if not path:
        raise AcceleratorError(f"no delegate was named for {job.accelerator}")
    try:
        delegate = package.load_delegate(path, given)
    except (OSError, ValueError) as error:
        why = str(error).strip().rpartition("\n")[2]  # a refusal follows a line that repeats the path
        raise AcceleratorError(f"the delegate {path} can't be loaded: {why}") from error
    try:
        return package.Interpreter(experimental_delegates=[delegate], **options)
    except (RuntimeError, ValueError) as error:
        raise AcceleratorError(f"the delegate {path} refused the file: {first_line(error)}") from error


def _delegate(job: RunnerJob) -> tuple[str, dict[str, str]]:
    """Path and options of the job's delegate, from PATH[:key=value,…]."""
    path, _, given = (job.delegate or _DELEGATES.get(job.accelerator, "")).partition(":")
    pairs = (item.partition("=") for item in given.split(",") if item)
    return path, {name: value for name, _, value in pairs}


def _nodes(interpreter: Any) -> list[list[Any]]:
    """[operator, inputs, outputs] of each node of the first subgraph; none where this version does not tell."""
    details = getattr(interpreter, "_get_ops_details", list)
    return [[op["op_name"], [int(t) for t in op["inputs"]], [int(t) for t in op["outputs"]]] for op in details()]


def _ports(details: dict[str, Any]) -> dict[str, Port]:
    return {name: _port(detail) for name, detail in details.items()}


def _port(detail: dict[str, Any]) -> Port:
    # Inputs are resized to whatever is given: the shape that the file declares must hold.
    signed = detail["shape_signature"] if len(detail.get("shape_signature", ())) else detail["shape"]
    return Port(np.dtype(detail["dtype"]).name, tuple(None if size < 0 else int(size) for size in signed))

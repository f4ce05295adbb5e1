"""One process of one peer's file in its runtime: latency of every text, memory, cold start; see peers_measure.py.

Reads a job as JSON on standard input: runtime, model (a file), texts (a JSON file of token ids), length (that they are
padded to; null: not at all), threads, passes (how often all are run; 0: once, for `outputs` only), first (the number of
the text to begin with), budget_s (after which no further text is run), outputs (a file to write the answers to, or "").
Or, for the rate of a matrix product: runtime, threads, columns, and rows ({"8": file, …}). Writes JSON as the last
line. What is timed is what edgekit's runner times: inputs in, run, outputs out, of arrays that are ready.
"""

import gc
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_STARTED = "--started="
if len(sys.argv) < 2:  # a process that counts from its own beginning, as edgekit's runner does for a cold start
    os.execv(sys.executable, [sys.executable, __file__, f"{_STARTED}{time.monotonic_ns()}"])

import numpy as np  # noqa: E402
from runner_memory import watch_memory  # noqa: E402

WARMUP_S, RATE_S = 1.0, 0.25

Arrays = dict[str, Any]
Call = Callable[[Arrays], Arrays]


class Litert:
    """ai-edge-litert's Interpreter; resized where a file's lengths may vary."""

    def __init__(self, threads: int) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._new, self._threads = Interpreter, threads

    def load(self, file: str) -> None:
        """Load a file; inputs without telling names are ids, then mask."""
        self._model = self._new(model_path=file, num_threads=self._threads)
        self._model.allocate_tensors()
        details = sorted(self._model.get_input_details(), key=lambda detail: detail["name"])
        self.inputs = {detail["name"]: np.dtype(detail["dtype"]).name for detail in details}
        self._index = {detail["name"]: detail["index"] for detail in details}
        self._shapes = {detail["name"]: tuple(detail["shape"]) for detail in details}
        self._outputs = [(detail["name"], detail["index"]) for detail in self._model.get_output_details()]

    def run(self, inputs: Arrays) -> Arrays:
        """Set, invoke, get."""
        if any(self._shapes[name] != value.shape for name, value in inputs.items()):
            for name, value in inputs.items():
                self._model.resize_tensor_input(self._index[name], value.shape)
                self._shapes[name] = value.shape
            self._model.allocate_tensors()
        for name, value in inputs.items():
            self._model.set_tensor(self._index[name], value)
        self._model.invoke()
        return {name: self._model.get_tensor(index) for name, index in self._outputs}


class Onnxruntime:
    """InferenceSession on the CPU."""

    def __init__(self, threads: int) -> None:
        import onnxruntime

        self._module, self._threads = onnxruntime, threads

    def load(self, file: str) -> None:
        """Load a file."""
        options = self._module.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self._threads, 1
        options.log_severity_level = 3
        self._model = self._module.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        kinds = {"tensor(float)": "float32", "tensor(int32)": "int32", "tensor(int64)": "int64"}
        self.inputs = {value.name: kinds[value.type] for value in self._model.get_inputs()}
        self._names = [value.name for value in self._model.get_outputs()]

    def run(self, inputs: Arrays) -> Arrays:
        """Run for all outputs."""
        return dict(zip(self._names, self._model.run(self._names, inputs), strict=True))


class Openvino:
    """A compiled model on the CPU, for latency."""

    def __init__(self, threads: int) -> None:
        import openvino

        self._module, self._threads = openvino, threads

    def load(self, file: str) -> None:
        """Read and compile a file."""
        options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": self._threads}
        compiled = self._module.Core().compile_model(file, "CPU", options)
        self.inputs = {port.any_name: np.dtype(port.element_type.to_dtype()).name for port in compiled.inputs}
        self._request, self._outputs = compiled.create_infer_request(), len(compiled.outputs)

    def run(self, inputs: Arrays) -> Arrays:
        """Infer."""
        self._request.infer(inputs)
        return {str(i): self._request.get_output_tensor(i).data.copy() for i in range(self._outputs)}


class Executorch:
    """ExecuTorch's Python runtime with the XNNPACK backend."""

    def __init__(self, threads: int) -> None:
        import torch
        from executorch.extension.pybindings import portable_lib
        from executorch.runtime import Runtime

        self._torch, self._runtime = torch, Runtime.get()
        torch.set_num_threads(threads)
        set_threads = getattr(portable_lib, "_unsafe_reset_threadpool", None)
        if set_threads is not None:
            set_threads(threads)

    def load(self, file: str) -> None:
        """Load a program and its one method; its inputs are by place."""
        self._model = self._runtime.load_program(Path(file)).load_method("forward")
        metadata = self._model.metadata
        kinds = {3: "int32", 4: "int64", 6: "float32"}  # ScalarType
        count = metadata.num_inputs()
        self.inputs = {f"{i}": kinds[metadata.input_tensor_meta(i).dtype()] for i in range(count)}

    def run(self, inputs: Arrays) -> Arrays:
        """Execute."""
        given = [self._torch.from_numpy(value) for value in inputs.values()]
        return {str(i): value.numpy().copy() for i, value in enumerate(self._model.execute(given))}


class Torch:
    """The model itself, eagerly; `file` holds the export job that names it."""

    def __init__(self, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self._torch = torch

    def load(self, file: str) -> None:
        """Build the module."""
        import peers_models

        job = json.loads(Path(file).read_text())
        self._model = peers_models.torch_module(job)
        kind = "int32" if job["model"] == "embedded" else "int64"
        self.inputs = {"x": "float32"} if job["model"] == "matmul" else {"ids": kind, "mask": kind}

    def run(self, inputs: Arrays) -> Arrays:
        """Call the module."""
        with self._torch.inference_mode():
            return {"0": self._model(*map(self._torch.from_numpy, inputs.values())).numpy()}


RUNTIMES = {
    "litert": Litert,
    "onnxruntime": Onnxruntime,
    "openvino": Openvino,
    "executorch": Executorch,
    "torch": Torch,
}


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Load, answer first, then time every text; ms and bytes."""
    runtime = RUNTIMES[job["runtime"]](job["threads"])
    reading = time.monotonic_ns()
    texts = json.loads(Path(job["texts"]).read_text())  # no memory of the model's, as edgekit's runner has it
    memory = watch_memory()
    before = time.monotonic_ns()
    runtime.load(job["model"])
    loaded = time.monotonic_ns()
    once = _inputs(runtime.inputs, texts[0], job["length"] or len(texts[0]))
    first = time.monotonic_ns()
    runtime.run(once)
    first_ms = (time.monotonic_ns() - first) / 1e6
    longest = max(texts, key=len)
    runtime.run(_inputs(runtime.inputs, longest, job["length"] or len(longest)))
    told = {"baseline_bytes": memory.baseline_bytes, "peak_bytes": memory.peak_bytes()}
    calls = [_inputs(runtime.inputs, ids, job["length"] or len(ids)) for ids in texts]
    if job["outputs"]:
        found = [_answer(runtime.run(inputs), len(ids)) for inputs, ids in zip(calls, texts, strict=True)]
        np.save(job["outputs"], np.stack(found))
    started = int(sys.argv[1].removeprefix(_STARTED))
    cold_ms = (loaded - started - (before - reading)) / 1e6 + first_ms
    told |= {"cold_ms": cold_ms, "load_ms": (loaded - before) / 1e6, "first_ms": first_ms}
    if not job["passes"]:
        return told
    order = [(job["first"] + place) % len(calls) for place in range(job["passes"] * len(calls))]
    spent = _time(runtime.run, calls, order, job["budget_s"])
    return told | {"latency_ms": spent, "texts": order[: len(spent)]}


def rate(job: dict[str, Any]) -> dict[str, float]:
    """The median ms of one matrix product at each number of rows."""
    runtime = RUNTIMES[job["runtime"]](job["threads"])
    medians = {}
    for rows, file in job["rows"].items():
        runtime.load(file)
        columns = job["columns"]
        inputs = {name: np.random.default_rng(0).random((int(rows), columns), np.float32) for name in runtime.inputs}
        spent: list[float] = []
        until = time.monotonic() + RATE_S
        while time.monotonic() < until:
            began = time.perf_counter_ns()
            runtime.run(inputs)
            spent.append((time.perf_counter_ns() - began) / 1e6)
        medians[rows] = statistics.median(spent[len(spent) // 4 :])
    return medians


def _time(run: Call, calls: list[Arrays], order: list[int], budget_s: float) -> list[float]:
    """ms of each call in order, while the budget lasts; after warming up on the same texts."""
    until = time.monotonic() + WARMUP_S
    for place in order:
        run(calls[place])
        if time.monotonic() > until:
            break
    gc.collect()
    gc.disable()
    clock, spent = time.perf_counter_ns, []
    until = time.monotonic() + budget_s
    for place in order:
        began = clock()
        run(calls[place])
        spent.append((clock() - began) / 1e6)
        if time.monotonic() > until:
            break
    return spent


def _inputs(declared: dict[str, str], ids: list[int], length: int) -> Arrays:
    """Arrays by the names of the file: what is called mask or type is that; else ids come first, then the mask."""
    row, mask = np.zeros((1, length), np.int64), np.zeros((1, length), np.int64)
    row[0, : len(ids)], mask[0, : len(ids)] = ids, 1
    unnamed = iter((row, mask))
    named = {"mask": mask, "type": np.zeros_like(row), "ids": row}
    made = {}
    for name, kind in declared.items():
        found = next((value for word, value in named.items() if word in name.lower()), None)
        made[name] = (next(unnamed) if found is None else found).astype(kind)
    return made


def _answer(outputs: Arrays, tokens: int) -> Any:
    """The one vector of a text: its logits or embedding; a matrix of hidden states is pooled here, and not timed."""
    value = outputs.get("sentence_embedding")
    if value is None:
        value = next(iter(outputs.values()))
    vector = np.asarray(value[0], np.float64)
    return vector[:tokens].mean(0) if vector.ndim == 2 else vector


if __name__ == "__main__":
    given = json.load(sys.stdin)
    print("\n" + json.dumps(rate(given) if "rows" in given else measure(given)))

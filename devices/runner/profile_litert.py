"""Time by operator of a TFLite file, from the profiler inside libLiteRt.so.

No Python interface leads there (ai-edge-litert 2.3.0): its C interface is called by ctypes.
"""

import ctypes
from typing import Any

import numpy as np

from .failures import RunError
from .job import RunnerJob
from .litert_library import CPU, POINTER, VERSION, Library, handles_of
from .steps import Arrays, read_steps


def profile_file(job: RunnerJob, version: str, runs: int) -> str:
    """Compile the job's file with profiling, run its largest step so many times, and return the printed summary.

    Raises RunError: "refused" for another version of ai-edge-litert, "run-failed" where a call fails.
    """
    if version != VERSION or job.runtime == "tflite-runtime":
        raise RunError(
            "refused", f"the profiler of {job.runtime} {version} is not known: it is that of litert {VERSION}"
        )
    return _Profiled(Library(version), job).summary(runs)


class _Profiled:
    """A file compiled with profiling, and buffers for one of its signatures."""

    def __init__(self, library: Library, job: RunnerJob) -> None:
        self._library, self._call = library, library.call
        profiling, xnnpack = "enable_profiling = true\n", f"num_threads = {job.num_threads}\n"
        self._model = library.compile(job.model, CPU, runtime_options_string=profiling, xnnpack=xnnpack)
        self._bind(job)

    def summary(self, runs: int) -> str:
        """The printed summary of so many runs after one that is not counted."""
        profiler, text = POINTER(), ctypes.c_char_p()
        self._run()
        self._call("LiteRtCompiledModelGetProfiler", self._model, ctypes.byref(profiler))
        self._call("LiteRtStartProfiler", profiler)
        for _ in range(runs):
            self._run()
        self._call("LiteRtStopProfiler", profiler)
        self._call("LiteRtGetProfileSummary", profiler, self._model, ctypes.byref(text))
        return (text.value or b"").decode(errors="replace")

    def _bind(self, job: RunnerJob) -> None:
        """Make buffers of the inputs of the largest step, and of its outputs, in the order of the signature."""
        from ai_edge_litert.interpreter import Interpreter

        step = max(read_steps(job.steps), key=lambda step: sum(value.size for value in step.inputs.values()))
        listed = Interpreter(model_path=job.model)._get_full_signature_list()
        names = list(listed)
        self._signature = names.index(step.signature) if step.signature in names else 0
        runner = Interpreter(model_path=job.model).get_signature_runner(names[self._signature])
        taken = {name: step.inputs[name].astype(detail["dtype"]) for name, detail in runner.get_input_details().items()}
        given = {
            name: np.zeros(detail["shape"], detail["dtype"]) for name, detail in runner.get_output_details().items()
        }
        self._inputs, self._outputs = self._buffers(taken), self._buffers(given)

    def _buffers(self, arrays: Arrays) -> Any:
        return handles_of([self._library.buffer(value)[0] for value in arrays.values()])

    def _run(self) -> None:
        counts = [ctypes.c_size_t(n) for n in (self._signature, len(self._inputs), len(self._outputs))]
        run = "LiteRtRunCompiledModel"
        self._call(run, self._model, counts[0], counts[1], self._inputs, counts[2], self._outputs)

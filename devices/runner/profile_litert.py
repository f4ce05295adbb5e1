"""Time by operator of a TFLite file, from the profiler inside libLiteRt.so.

No Python interface leads there (ai-edge-litert 2.3.0): its C interface is called by ctypes. It is private to that
version, so every other is refused; the layout of its structures and its constants are those of LiteRT's C headers.
"""

import ctypes
from pathlib import Path
from typing import Any, Optional

import numpy as np

from .failures import RunError
from .job import RunnerJob
from .steps import Arrays, read_steps

VERSION = "2.3.0"
_RUNTIME_LIBRARY_DIR, _LOG_SEVERITY, _SILENT = 22, 25, 4  # tags of an environment's options; severity of the log
_TYPE_INT, _TYPE_STRING = 2, 8  # of a LiteRtAny
_CPU = 1
_DTYPES = {"float32": 1, "int32": 2, "int64": 4, "int8": 9, "float16": 10}
_ALIGNMENT = 64
_POINTER = ctypes.c_void_p


class _Value(ctypes.Union):
    _fields_ = [("integer", ctypes.c_int64), ("text", ctypes.c_char_p), ("real", ctypes.c_double)]


class _Any(ctypes.Structure):
    _fields_ = [("type", ctypes.c_int), ("value", _Value)]


class _Option(ctypes.Structure):
    _fields_ = [("tag", ctypes.c_int), ("value", _Any)]


class _Layout(ctypes.Structure):
    _fields_ = [("rank", ctypes.c_uint32), ("sizes", ctypes.c_int32 * 8), ("strides", ctypes.c_uint32 * 8)]


class _TensorType(ctypes.Structure):
    _fields_ = [("element", ctypes.c_int), ("layout", _Layout)]


def profile_file(job: RunnerJob, version: str, runs: int) -> str:
    """Compile the job's file with profiling, run its largest step so many times, and return the printed summary.

    Raises RunError: "refused" for another version of ai-edge-litert, "run-failed" where a call fails.
    """
    if version != VERSION or job.runtime == "tflite-runtime":
        raise RunError(
            "refused", f"the profiler of {job.runtime} {version} is not known: it is that of litert {VERSION}"
        )
    import ai_edge_litert

    folder = Path(ai_edge_litert.__file__).parent
    return _Profiled(folder, job).summary(runs)


class _Profiled:
    """A compiled model; what the library points to is kept alive in `_kept`."""

    def __init__(self, folder: Path, job: RunnerJob) -> None:
        self._library = ctypes.CDLL(str(folder / "libLiteRt.so"), mode=ctypes.RTLD_GLOBAL)
        self._kept: list[Any] = []
        self._compile(self._environment(folder), job)
        self._bind(job)

    def summary(self, runs: int) -> str:
        """The printed summary of so many runs after one that is not counted."""
        profiler, text = _POINTER(), ctypes.c_char_p()
        self._run()
        self._call("LiteRtCompiledModelGetProfiler", self._model, ctypes.byref(profiler))
        self._call("LiteRtStartProfiler", profiler)
        for _ in range(runs):
            self._run()
        self._call("LiteRtStopProfiler", profiler)
        self._call("LiteRtGetProfileSummary", profiler, self._model, ctypes.byref(text))
        return (text.value or b"").decode(errors="replace")

    def _call(self, function: str, *arguments: Any) -> None:
        status = getattr(self._library, function)(*arguments)
        if status:
            raise RunError("run-failed", f"{function} of libLiteRt.so failed with status {status}")

    def _environment(self, folder: Path) -> Any:
        options = (_Option * 2)()
        library = str(folder).encode()
        options[0].tag, options[0].value.type, options[0].value.value.text = _RUNTIME_LIBRARY_DIR, _TYPE_STRING, library
        options[1].tag, options[1].value.type, options[1].value.value.integer = _LOG_SEVERITY, _TYPE_INT, _SILENT
        self._kept += [options, library]
        environment = _POINTER()
        self._call("LiteRtCreateEnvironment", ctypes.c_int(2), options, ctypes.byref(environment))
        return environment

    def _compile(self, environment: Any, job: RunnerJob) -> None:
        file, options, self._model = _POINTER(), _POINTER(), _POINTER()
        self._call("LiteRtCreateModelFromFile", environment, job.model.encode(), ctypes.byref(file))
        self._call("LiteRtCreateOptions", ctypes.byref(options))
        self._call("LiteRtSetOptionsHardwareAccelerators", options, ctypes.c_int(_CPU))
        self._add(options, "runtime_options_string", "enable_profiling = true\n")
        self._add(options, "xnnpack", f"num_threads = {job.num_threads}\n")
        self._call("LiteRtCreateCompiledModel", environment, file, options, ctypes.byref(self._model))

    def _add(self, options: Any, name: str, text: str) -> None:
        """Add opaque options: a name, and TOML that the library reads."""
        content, identifier = ctypes.create_string_buffer(text.encode()), ctypes.create_string_buffer(name.encode())
        release = ctypes.CFUNCTYPE(None, _POINTER)(lambda _: None)
        self._kept += [content, identifier, release]
        opaque = _POINTER()
        self._call("LiteRtCreateOpaqueOptions", identifier, content, release, ctypes.byref(opaque))
        self._call("LiteRtAddOpaqueOptions", options, opaque)

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
        handles = (_POINTER * len(arrays))()
        for place, value in enumerate(arrays.values()):
            kind = _TensorType(_dtype(value), _Layout(value.ndim))
            for axis, size in enumerate(value.shape):
                kind.layout.sizes[axis] = size
            aligned = _aligned(value)
            handle = _POINTER()
            address, size_bytes = _POINTER(aligned.ctypes.data), ctypes.c_size_t(aligned.nbytes)
            create = "LiteRtCreateTensorBufferFromHostMemory"
            self._call(create, ctypes.byref(kind), address, size_bytes, None, ctypes.byref(handle))
            handles[place] = handle
            self._kept += [aligned, kind]
        return handles

    def _run(self) -> None:
        counts = [ctypes.c_size_t(n) for n in (self._signature, len(self._inputs), len(self._outputs))]
        run = "LiteRtRunCompiledModel"
        self._call(run, self._model, counts[0], counts[1], self._inputs, counts[2], self._outputs)


def _dtype(value: Any) -> int:
    code: Optional[int] = _DTYPES.get(value.dtype.name)
    if code is None:
        raise RunError("refused", f"the profiler can't be fed {value.dtype.name}")
    return code


def _aligned(value: Any) -> Any:
    """A copy of an array at an address that the library takes."""
    raw = np.zeros(value.nbytes + _ALIGNMENT, np.uint8)
    offset = -raw.ctypes.data % _ALIGNMENT
    copied = raw[offset : offset + value.nbytes].view(value.dtype).reshape(value.shape)
    copied[...] = value
    return copied

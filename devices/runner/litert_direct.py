"""TFLite files on the CPU by the C interface of libLiteRt.so: the runtime of CompiledModel, without its Python.

The wheel's Python looks for accelerators whatever it is asked for, and loads the GPU's library, which takes 3.9 MB;
and it finds every buffer by name in every run. This does neither: int8 of the embedded model with four lengths takes
6 MB instead of 10. Private to ai-edge-litert 2.3.0, as is all of `litert_library`.
"""

import ctypes
import weakref
from typing import Any, Callable, Optional

import numpy as np

from .backend import Call, Port, Signature
from .backend_litert_compiled import CACHE, CompiledBackend, count_values, use_cache
from .failures import RunError
from .job import RunnerJob
from .litert_library import CPU, DTYPES, POINTER, Library, TensorType, handles_of
from .memory import drop_pages, return_heap
from .session import past_names
from .steps import Arrays

_NAMES = {code: name for name, code in DTYPES.items()}
_RANK = 0x7F
_DESTROYED = ("LiteRtDestroyCompiledModel", "LiteRtDestroyEnvironment")


def open_direct(runtime: Any, job: RunnerJob) -> Optional["DirectBackend"]:
    """A file loaded so; None where CompiledModel has to do it.

    That is another version, an accelerator or no XNNPACK asked for, a file with states or shapes that are not fixed, or
    one that can't be loaded, of which CompiledModel tells why.
    """
    if job.accelerator != "cpu" or not job.xnnpack:
        return None
    try:
        return DirectBackend(runtime, job)
    except (OSError, ValueError, RunError):
        return None


class DirectBackend(CompiledBackend):
    """One compiled model, and one buffer for each input and output of each signature, which numpy sees in place."""

    def __init__(self, runtime: Any, job: RunnerJob) -> None:
        self.version = str(getattr(runtime, "__version__", "unknown"))
        self._job, self._runtime = job, runtime
        self._library = Library(self.version, accelerated=False)
        environment, file = self._library.open_mapped(job.model)
        self.signatures = _signatures(self._library, file)
        _check_fixed(self.signatures)
        weights, self.cache = use_cache(job.cache)
        options = f"num_threads = {job.num_threads}\nweight_cache_file_path = '{weights or CACHE}'\n"
        self._handle = self._library.compile_file(environment, file, CPU, xnnpack=options)
        weakref.finalize(self, _destroy, self._library, (self._handle, environment))
        self._library.function("LiteRtDestroyModel")(file)
        return_heap()
        for path in (job.model, self._library.path):
            drop_pages(path)
        self._calls: dict[str, tuple[Arrays, Arrays, Callable[[], None]]] = {}

    def prepare(self, signature: str, inputs: Arrays) -> Call:
        """Copy into the input buffers, run, copy from the output buffers."""
        if signature not in self._calls:
            self._calls[signature] = self._made(signature)
        taken, given, run = self._calls[signature]
        pairs = [(taken[name], value) for name, value in inputs.items()]

        def write() -> None:
            for buffer, value in pairs:
                buffer[...] = value

        return Call(write, run, lambda _: {name: value.copy() for name, value in given.items()})

    def session(self) -> Any:
        """None: files with states are not run so."""
        return None

    def _made(self, signature: str) -> tuple[Arrays, Arrays, Callable[[], None]]:
        """Views of the buffers of a signature, and its run."""
        found, place = self.signatures[signature], list(self.signatures).index(signature)
        taken, inputs = self._buffers_for(found.inputs)
        given, outputs = self._buffers_for(found.outputs)
        model, invoke = self._handle, self._library.function("LiteRtRunCompiledModel")
        counts = [ctypes.c_size_t(count) for count in (place, len(inputs), len(outputs))]

        def run() -> None:
            status = invoke(model, counts[0], counts[1], inputs, counts[2], outputs)
            if status:
                raise RunError("run-failed", f"LiteRtRunCompiledModel failed with status {status}")

        return taken, given, run

    def _buffers_for(self, ports: dict[str, Port]) -> tuple[Arrays, Any]:
        made = {name: self._library.buffer(np.zeros(p.shape, p.dtype)) for name, p in ports.items()}
        views = {name: view for name, (_, view) in made.items()}
        return views, handles_of([handle for handle, _ in made.values()])


def _check_fixed(signatures: dict[str, Signature]) -> None:
    """Raise RunError("refused") for states, and shapes that are not fixed."""
    for signature in signatures.values():
        if past_names(signature):
            raise RunError("refused", "files with states are run by CompiledModel")
        for port in (*signature.inputs.values(), *signature.outputs.values()):
            count_values(port)


def _destroy(library: Library, handles: tuple[Any, ...]) -> None:
    for function, handle in zip(_DESTROYED, handles):
        library.function(function)(handle)


def _signatures(library: Library, file: Any) -> dict[str, Signature]:
    """The signatures of an open file, in its order."""
    count = ctypes.c_size_t()
    library.call("LiteRtGetNumModelSignatures", file, ctypes.byref(count))
    found = {}
    for place in range(count.value):
        handle = POINTER()
        library.call("LiteRtGetModelSignature", file, ctypes.c_size_t(place), ctypes.byref(handle))
        name = _text(library, "LiteRtGetSignatureKey", handle)
        found[name] = Signature(_ports(library, handle, "Input"), _ports(library, handle, "Output"))
    return found


def _ports(library: Library, signature: Any, side: str) -> dict[str, Port]:
    count = ctypes.c_size_t()
    library.call(f"LiteRtGetNumSignature{side}s", signature, ctypes.byref(count))
    found = {}
    for place in map(ctypes.c_size_t, range(count.value)):
        name = _text(library, f"LiteRtGetSignature{side}Name", signature, place)
        tensor, kind = POINTER(), TensorType()
        library.call(f"LiteRtGetSignature{side}TensorByIndex", signature, place, ctypes.byref(tensor))
        library.call("LiteRtGetRankedTensorType", tensor, ctypes.byref(kind))
        if kind.element not in _NAMES:
            raise RunError("refused", f"{name} is of a type that numpy has not")
        sizes = kind.layout.sizes[: kind.layout.rank & _RANK]
        found[name] = Port(_NAMES[kind.element], tuple(int(size) if size >= 0 else None for size in sizes))
    return found


def _text(library: Library, function: str, *arguments: Any) -> str:
    told = ctypes.c_char_p()
    library.call(function, *arguments, ctypes.byref(told))
    return (told.value or b"").decode()

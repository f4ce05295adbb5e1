"""Compiles TFLite files through the C interface of libLiteRt.so, for what no Python interface tells.

It is private to ai-edge-litert 2.3.0: the layout of its structures and its constants are those of LiteRT's C headers,
and every other version is refused.
"""

import ctypes
from pathlib import Path
from typing import Any, Optional

import numpy as np

from .failures import RunError

VERSION = "2.3.0"
CPU, GPU = 1, 2
POINTER = ctypes.c_void_p
_RUNTIME_LIBRARY_DIR, _LOG_SEVERITY, _SILENT = 22, 25, 4  # tags of an environment's options; severity of the log
_TYPE_INT, _TYPE_STRING = 2, 8  # of a LiteRtAny
#: numpy's name of a type → LiteRT's
DTYPES = {"float32": 1, "int32": 2, "int64": 4, "uint8": 3, "bool": 6, "int16": 7, "int8": 9, "float16": 10}
_ALIGNMENT = 64
_OVERREAD = 128  # bytes behind its inputs that XNNPACK may read


class _Value(ctypes.Union):
    _fields_ = [("integer", ctypes.c_int64), ("text", ctypes.c_char_p), ("real", ctypes.c_double)]


class _Any(ctypes.Structure):
    _fields_ = [("type", ctypes.c_int), ("value", _Value)]


class _Option(ctypes.Structure):
    _fields_ = [("tag", ctypes.c_int), ("value", _Any)]


class Layout(ctypes.Structure):
    """The shape of a tensor: its rank is in the low 7 bits of `rank`, whether it has strides in the bit above."""

    _fields_ = [("rank", ctypes.c_uint32), ("sizes", ctypes.c_int32 * 8), ("strides", ctypes.c_uint32 * 8)]


class TensorType(ctypes.Structure):
    """The type of a tensor's values, and its shape."""

    _fields_ = [("element", ctypes.c_int), ("layout", Layout)]


class Library:
    """The library of the installed package; what it points to is kept alive in `kept`.

    Without `accelerated`, no library of an accelerator is looked for: that of the GPU takes 3.9 MB as soon as it is
    loaded, also where everything runs on the CPU. Raises RunError("refused") for another version.
    """

    def __init__(self, version: str, *, accelerated: bool = True) -> None:
        if version != VERSION:
            raise RunError("refused", f"the C interface of litert {version} is not known: it is that of {VERSION}")
        import ai_edge_litert

        folder = Path(ai_edge_litert.__file__).parent
        self.path = str(folder / "libLiteRt.so")
        self._library = ctypes.CDLL(self.path, mode=ctypes.RTLD_GLOBAL)
        self._accelerators = str(folder if accelerated else folder / "none")
        self.kept: list[Any] = []

    def function(self, name: str) -> Any:
        """A function of the library."""
        return getattr(self._library, name)

    def call(self, function: str, *arguments: Any) -> None:
        """Call a function; raises RunError("run-failed") where it does not answer 0."""
        status = self.function(function)(*arguments)
        if status:
            raise RunError("run-failed", f"{function} of libLiteRt.so failed with status {status}")

    def compile(self, path: str, accelerators: int, **opaque: str) -> Any:
        """The handle of a compiled file; `opaque` maps names of option groups to their TOML."""
        return self.compile_file(*self.open(path), accelerators, **opaque)

    def open(self, path: str) -> tuple[Any, Any]:
        """An environment, and the handle of a file that was read in it."""
        file, environment = POINTER(), self._environment()
        self.call("LiteRtCreateModelFromFile", environment, path.encode(), ctypes.byref(file))
        return environment, file

    def open_mapped(self, path: str) -> tuple[Any, Any]:
        """As `open`, of a file that this maps into memory itself: once compiled, the handle may be destroyed.

        Raises ValueError for an empty file. The handle's own form of a file takes 0.3 MB a signature for
        all-MiniLM-L6-v2; what is compiled reads none of it (2.3.0, by Valgrind), but the file's bytes.
        """
        file, environment = POINTER(), self._environment()
        mapped = np.memmap(path, np.uint8, "r")
        self.kept.append(mapped)
        size_bytes = ctypes.c_size_t(mapped.nbytes)
        create = "LiteRtCreateModelFromBuffer"
        self.call(create, environment, POINTER(mapped.ctypes.data), size_bytes, ctypes.byref(file))
        return environment, file

    def compile_file(self, environment: Any, file: Any, accelerators: int, **opaque: str) -> Any:
        """The handle of an open file, compiled; see `compile`."""
        options, model = POINTER(), POINTER()
        self.call("LiteRtCreateOptions", ctypes.byref(options))
        self.call("LiteRtSetOptionsHardwareAccelerators", options, ctypes.c_int(accelerators))
        for name, text in opaque.items():
            self._add(options, name, text)
        self.call("LiteRtCreateCompiledModel", environment, file, options, ctypes.byref(model))
        return model

    def _environment(self) -> Any:
        options = (_Option * 2)()
        folder = self._accelerators.encode()
        options[0].tag, options[0].value.type, options[0].value.value.text = _RUNTIME_LIBRARY_DIR, _TYPE_STRING, folder
        options[1].tag, options[1].value.type, options[1].value.value.integer = _LOG_SEVERITY, _TYPE_INT, _SILENT
        self.kept += [options, folder]
        environment = POINTER()
        self.call("LiteRtCreateEnvironment", ctypes.c_int(2), options, ctypes.byref(environment))
        return environment

    def _add(self, options: Any, name: str, text: str) -> None:
        """Add opaque options: a name, and TOML that the library reads."""
        content, identifier = ctypes.create_string_buffer(text.encode()), ctypes.create_string_buffer(name.encode())
        release = ctypes.CFUNCTYPE(None, POINTER)(lambda _: None)
        self.kept += [content, identifier, release]
        opaque = POINTER()
        self.call("LiteRtCreateOpaqueOptions", identifier, content, release, ctypes.byref(opaque))
        self.call("LiteRtAddOpaqueOptions", options, opaque)

    def buffer(self, value: Any) -> tuple[Any, Any]:
        """A buffer that LiteRT reads and writes in place, with this array's values: its handle, and numpy's view of it.

        Raises RunError("refused") for a type that it does not know.
        """
        code: Optional[int] = DTYPES.get(value.dtype.name)
        if code is None:
            raise RunError("refused", f"LiteRT can't be fed {value.dtype.name}")
        kind = TensorType(code, Layout(value.ndim))
        for axis, size in enumerate(value.shape):
            kind.layout.sizes[axis] = size
        aligned, handle = _aligned(value), POINTER()
        address, size_bytes = POINTER(aligned.ctypes.data), ctypes.c_size_t(aligned.nbytes)
        create = "LiteRtCreateTensorBufferFromHostMemory"
        self.call(create, ctypes.byref(kind), address, size_bytes, None, ctypes.byref(handle))
        self.kept += [aligned, kind]
        return handle, aligned


def handles_of(buffers: list[Any]) -> Any:
    """Handles of buffers as an array that the library takes."""
    return (POINTER * len(buffers))(*buffers)


def _aligned(value: Any) -> Any:
    """A copy of an array at an address that the library takes."""
    raw = np.zeros(value.nbytes + _ALIGNMENT + _OVERREAD, np.uint8)
    offset = -raw.ctypes.data % _ALIGNMENT
    copied = raw[offset : offset + value.nbytes].view(value.dtype).reshape(value.shape)
    copied[...] = value
    return copied


def is_accelerated(path: str, version: str, accelerators: int) -> bool:
    """Whether every operator of a file runs on an accelerator that is not the CPU, when it is compiled for these.

    `CompiledModel.is_fully_accelerated` answers True for what runs on the CPU alone; this does not.
    """
    library = Library(version)
    answer = ctypes.c_bool()
    model = library.compile(path, accelerators)
    library.call("LiteRtCompiledModelIsNonCpuFullyAccelerated", model, ctypes.byref(answer))
    return answer.value

"""Compiles TFLite files through the C interface of libLiteRt.so, for what no Python interface tells.

It is private to ai-edge-litert 2.3.0: the layout of its structures and its constants are those of LiteRT's C headers,
and every other version is refused.
"""

import ctypes
from pathlib import Path
from typing import Any

from .failures import RunError

VERSION = "2.3.0"
CPU, GPU = 1, 2
POINTER = ctypes.c_void_p
_RUNTIME_LIBRARY_DIR, _LOG_SEVERITY, _SILENT = 22, 25, 4  # tags of an environment's options; severity of the log
_TYPE_INT, _TYPE_STRING = 2, 8  # of a LiteRtAny


class _Value(ctypes.Union):
    _fields_ = [("integer", ctypes.c_int64), ("text", ctypes.c_char_p), ("real", ctypes.c_double)]


class _Any(ctypes.Structure):
    _fields_ = [("type", ctypes.c_int), ("value", _Value)]


class _Option(ctypes.Structure):
    _fields_ = [("tag", ctypes.c_int), ("value", _Any)]


class Library:
    """The library of the installed package; what it points to is kept alive in `kept`.

    Raises RunError("refused") for another version.
    """

    def __init__(self, version: str) -> None:
        if version != VERSION:
            raise RunError("refused", f"the C interface of litert {version} is not known: it is that of {VERSION}")
        import ai_edge_litert

        self._folder = Path(ai_edge_litert.__file__).parent
        self._library = ctypes.CDLL(str(self._folder / "libLiteRt.so"), mode=ctypes.RTLD_GLOBAL)
        self.kept: list[Any] = []

    def call(self, function: str, *arguments: Any) -> None:
        """Call a function; raises RunError("run-failed") where it does not answer 0."""
        status = getattr(self._library, function)(*arguments)
        if status:
            raise RunError("run-failed", f"{function} of libLiteRt.so failed with status {status}")

    def compile(self, path: str, accelerators: int, **opaque: str) -> Any:
        """The handle of a compiled file; `opaque` maps names of option groups to their TOML."""
        file, options, model = POINTER(), POINTER(), POINTER()
        environment = self._environment()
        self.call("LiteRtCreateModelFromFile", environment, path.encode(), ctypes.byref(file))
        self.call("LiteRtCreateOptions", ctypes.byref(options))
        self.call("LiteRtSetOptionsHardwareAccelerators", options, ctypes.c_int(accelerators))
        for name, text in opaque.items():
            self._add(options, name, text)
        self.call("LiteRtCreateCompiledModel", environment, file, options, ctypes.byref(model))
        return model

    def _environment(self) -> Any:
        options = (_Option * 2)()
        folder = str(self._folder).encode()
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


def is_accelerated(path: str, version: str, accelerators: int) -> bool:
    """Whether every operator of a file runs on an accelerator that is not the CPU, when it is compiled for these.

    `CompiledModel.is_fully_accelerated` answers True for what runs on the CPU alone; this does not.
    """
    library = Library(version)
    answer = ctypes.c_bool()
    model = library.compile(path, accelerators)
    library.call("LiteRtCompiledModelIsNonCpuFullyAccelerated", model, ctypes.byref(answer))
    return answer.value

"""Peak memory of this process above what the runtime and numpy take by themselves."""

import ctypes
import os
import sys
from typing import Optional

_DONTNEED = 4  # of madvise, on Linux


class Memory:
    """Made once the runtime is imported and before the file is loaded; None where the system does not tell."""

    def __init__(self) -> None:
        reset = _reset_peak()
        self.baseline_bytes = _status("VmRSS") if reset else self.peak_bytes()

    def peak_bytes(self) -> Optional[int]:
        """The most physical memory that this process has had since then."""
        found = _status("VmHWM")
        return found if found is not None else _getrusage_peak()


def _reset_peak() -> bool:
    """Forget the peak of importing (Linux 4.0 or later)."""
    try:
        with open("/proc/self/clear_refs", "w") as stream:
            stream.write("5")
    except OSError:
        return False
    return _status("VmRSS") is not None


def _status(name: str) -> Optional[int]:
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as stream:
            for line in stream:
                if line.startswith(f"{name}:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def _getrusage_peak() -> Optional[int]:
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def return_heap() -> None:
    """Give the system back what was freed of the heap, where the C library can (glibc)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def drop_pages(path: str) -> None:
    """Let the system forget what was read of a file that is mapped into this process: it is read again where needed.

    Runtimes read weights once to pack them, and code once to load a file, and keep the pages of both. Only pages that
    nobody can have changed are dropped: of a library that is its code, not its tables. Nothing is done but on Linux.
    """
    if sys.platform != "linux":
        return
    try:
        name, libc = os.path.realpath(path), ctypes.CDLL(None, use_errno=True)
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as stream:
            mapped = [line.split(maxsplit=5) for line in stream]
    except OSError:
        return
    for place, access, *_, file in (fields for fields in mapped if len(fields) == 6):
        if file.rstrip("\n") == name and "w" not in access and ("s" in access or "x" in access):
            start, end = (int(side, 16) for side in place.split("-"))
            libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _DONTNEED)

"""A `tflite_runtime` that really runs files, with ai-edge-litert, in 1 ms, and really crashes or hangs at some run."""

from pathlib import Path

_SOURCE = """
import ctypes, mmap, os, platform, time
from ai_edge_litert import interpreter as real

WHAT, AT = os.environ["FAULT"].split(":")
runs = 0


def fault():
    if WHAT == "segv":
        ctypes.string_at(0)
    if WHAT == "ill":
        code = {"x86_64": b"\\x0f\\x0b", "aarch64": b"\\0\\0\\0\\0"}[platform.machine()]
        page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        page.write(code)
        ctypes.CFUNCTYPE(None)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
    if WHAT == "hang":
        time.sleep(1000)
    raise RuntimeError("the accelerator was reset\\nand a second line")


class Graph:
    def __init__(self, graph):
        self.graph = graph

    def __getattr__(self, name):
        return getattr(self.graph, name)

    def Invoke(self, subgraph):
        global runs
        runs += 1
        time.sleep(0.001)
        if runs == int(AT):
            fault()
        self.graph.Invoke(subgraph)


class Interpreter(real.Interpreter):
    def __init__(self, **options):
        if AT == "0":
            fault()
        super().__init__(**options)

    def get_signature_runner(self, name):
        runner = super().get_signature_runner(name)
        runner._interpreter_wrapper = Graph(runner._interpreter_wrapper)
        return runner
"""


def write_runtime(folder: Path) -> Path:
    """Write the package and return its folder; FAULT=segv|ill|hang|raise:N makes the Nth run fault, 0 the loading."""
    package = folder / "tflite_runtime"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("__version__ = '0.0.faulty'\n")
    (package / "interpreter.py").write_text(_SOURCE)
    return folder

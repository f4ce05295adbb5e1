"""edgekit's own reading of a process's memory, for processes in the environments of peers, where edgekit is not."""

import importlib.util
from pathlib import Path
from typing import Any

_MEMORY = Path(__file__).parents[1] / "devices" / "runner" / "memory.py"


def watch_memory() -> Any:
    """Watch this process's memory from now on."""
    spec = importlib.util.spec_from_file_location("edgekit_memory", _MEMORY)
    assert spec is not None  # the file is in this repository
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Memory()

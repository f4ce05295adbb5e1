"""`python3 FOLDER/start.py JOB.json`: starts the runner wherever its folder was copied to, in any working folder."""

import sys

del sys.path[0]  # this folder: its modules must not be taken for others of the same name

import importlib  # noqa: E402
import importlib.util  # noqa: E402
from pathlib import Path  # noqa: E402

_NAME = "edgekit_runner"


def _load() -> None:
    """Import the folder as a package, whatever it is called, without a search path that would find anything else."""
    folder = Path(__file__).resolve().parent
    found = importlib.util.spec_from_file_location(
        _NAME, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if found is None or found.loader is None:
        raise ImportError(f"{folder} is not the runner")
    package = importlib.util.module_from_spec(found)
    sys.modules[_NAME] = package
    found.loader.exec_module(package)


_load()
sys.exit(importlib.import_module(f"{_NAME}.__main__").main(sys.argv[1:]))

"""`edgekit --help` without what it does not show: Typer 0.29 imports rich's Markdown and tracebacks to draw any help.

With them come a parser of Markdown and a highlighter of code: a third of the time of `edgekit --help`.
"""

import importlib
import sys
from types import ModuleType
from typing import Any

_LATER = {"rich.markdown": "Markdown", "rich.traceback": "Traceback"}


def load_help() -> None:
    """Import Typer's help, with stand-ins for those classes, which load them where something uses them after all."""
    put = {module: _stand_in(module, name) for module, name in _LATER.items() if module not in sys.modules}
    sys.modules.update(put)
    try:
        importlib.import_module("typer.rich_utils")
    finally:
        for module in put:
            del sys.modules[module]


def _stand_in(module: str, name: str) -> ModuleType:
    class Later(type):
        def __call__(cls, *args: Any, **options: Any) -> Any:
            return getattr(importlib.import_module(module), name)(*args, **options)

        def __getattr__(cls, attribute: str) -> Any:
            return getattr(getattr(importlib.import_module(module), name), attribute)

    made = ModuleType(module)
    setattr(made, name, Later(name, (), {}))
    return made

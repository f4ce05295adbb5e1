"""Says which operation of a PyTorch model a converter could not take: the module it is in, the line, and what to do."""

import re
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import edgekit
from edgekit.errors import EdgekitError, ExportError
from edgekit.program import Program

_OPERATION = re.compile(r"(?:aten|prims|prim)(?:\.|::)(\w+)")
_LINE = re.compile(r'File "(.+?)", line (\d+)')
_DYNAMIC = ("data-dependent", "data dependent", "Could not guard", "GuardOnDataDependent", "is_nonzero")
#: part of an operation's name → what converters take in its place
_INSTEAD = {
    "nonzero": "torch.where(condition, a, b), which keeps the shape",
    "unique": "work with all values and a mask, which keeps the shape",
    "masked_select": "multiply by the mask, which keeps the shape",
    "bincount": "torch.nn.functional.one_hot(x, n).sum(0)",
    "sort": "torch.topk",
    "cdist": "(a.unsqueeze(-2) - b.unsqueeze(-3)).pow(2).sum(-1).sqrt()",
    "fft": "a matrix product with a constant matrix of cosines and sines",
    "linalg": "compute it beforehand and keep the result as a buffer",
}
_ELSE = "the same value by arithmetic, matrix products and torch.where, or compute it outside of the exported model"
#: parts of paths that are not the user's code
_OURS = (
    f"{Path(__file__).parent}/",
    f"{Path(edgekit.__file__).parent}/",
    "/torch/",
    "/litert_torch/",
    "/coremltools/",
    "/onnxscript/",
    "contextlib.py",
    "<frozen",
)


def explain_failure(program: Program, error: Exception) -> Exception:
    """An ExportError in the model's own terms, where the failure is one of its operations; else `error` itself."""
    if program.framework != "torch" or isinstance(error, EdgekitError):
        return error
    text = "\n".join(str(each) for each in _chain(error))
    if any(sign in text or sign in type(error).__name__ for sign in _DYNAMIC):
        return ExportError(
            f"the model chooses by the values of its inputs{_place(error)}; an exported file always computes the same. "
            "Write torch.where(condition, a, b) instead of if, and masks instead of loops of changing length"
        )
    for name in dict.fromkeys(_OPERATION.findall(text)):
        found = _find(program, name)
        if found:
            return ExportError(found)
    return error


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _place(error: BaseException) -> str:
    """The last line of the user's own code on the way to an error."""
    frames = [frame for each in _chain(error) for frame in traceback.extract_tb(each.__traceback__)]
    own = [frame for frame in frames if not any(part in frame.filename for part in _OURS) and frame.line]
    return f" at {Path(own[-1].filename).name}:{own[-1].lineno} ({own[-1].line})" if own else ""


def _find(program: Program, name: str) -> str | None:
    """Where the model calls an operation of this name, as captured before any converter changed it."""
    import torch

    from edgekit.export.torch_modules import SignatureModule, example_inputs

    signature = program.signatures[0]
    module = SignatureModule(program, signature).eval()
    try:
        graph = torch.export.export(module, (), kwargs=example_inputs(signature), strict=False).graph
    except Exception:  # noqa: BLE001  (what fails here has failed before, and is told as it was)
        return None
    for node in graph.nodes:
        if node.op == "call_function" and name in str(node.target):
            instead = next((way for part, way in _INSTEAD.items() if part in name), _ELSE)
            return f"no converter for {node.target}{_module(node)}{_line(node)}. Write instead: {instead}"
    return None


def _module(node: Any) -> str:
    stack = [path for path, _ in (node.meta.get("nn_module_stack") or {}).values() if path]
    name = stack[-1].removeprefix("module.").removeprefix("module.") if stack else ""
    return f", called in the module {name!r}" if name and name != "module" else ""


def _line(node: Any) -> str:
    lines = _LINE.findall(node.meta.get("stack_trace") or "")
    own = [(file, line) for file, line in lines if not any(part in file for part in _OURS)]
    return f" at {Path(own[-1][0]).name}:{own[-1][1]}" if own else ""

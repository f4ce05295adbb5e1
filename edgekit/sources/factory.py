"""A function of the user's, `package.module:function`, which makes a torch.nn.Module or Keras model → Program.

The function is the user's own code, named on the command line; it runs in worker processes, never in the parent.
"""

import hashlib
import importlib
import importlib.util
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.errors import CheckpointError, RefusedError
from edgekit.extras import require
from edgekit.program import Framework, Program, Signature, SourceOptions, SourceRef, TensorSpec
from edgekit.sources.checkpoint import SIGNATURE

_NAMED = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_INPUT = re.compile(r"(?P<name>[A-Za-z_]\w*):(?P<dtype>\w+)\[(?P<shape>\d+(?:,\d+)*)?\]")
#: dtypes of inputs: 64-bit integers are what PyTorch's own code asks for, but exported files take 32 bits
_DTYPES = ("int32", "int64", "float32")


def is_factory(source: str) -> bool:
    """Whether a source is named as `package.module:function`."""
    return _NAMED.fullmatch(source) is not None


def factory_source(named: str, inputs: Sequence[str], framework: Framework) -> SourceRef:
    """Name the function, to be found from the current folder first; its module's file is hashed, but not run.

    Raises RefusedError where inputs are missing or can't be read, CheckpointError where there is no such module.
    """
    if not inputs:
        raise RefusedError(f"say what {named} takes: --input name:dtype[shape], as in --input ids:int32[1,128]")
    for text in inputs:
        parse_input(text)
    folder = Path.cwd()
    return SourceRef(
        kind="factory",
        path=named,
        framework=framework,
        task="custom",
        sha256=hashlib.sha256(_module_file(named, folder).read_bytes()).hexdigest(),
        options=SourceOptions(inputs=tuple(inputs), folder=str(folder)),
    )


def parse_input(text: str) -> tuple[TensorSpec, str]:
    """One `--input` as the exported file has it, and the dtype that the model is called with.

    Raises RefusedError for anything but name:dtype[shape].
    """
    found = _INPUT.fullmatch(text.replace(" ", ""))
    if found is None or found["dtype"] not in _DTYPES:
        raise RefusedError(
            f"--input {text!r} is not name:dtype[shape] with a dtype of {', '.join(_DTYPES)}: ids:int32[1,128]"
        )
    shape = tuple(int(size) for size in (found["shape"] or "").split(",") if size)
    dtype = "float32" if found["dtype"] == "float32" else "int32"
    return TensorSpec.model_validate({"name": found["name"], "dtype": dtype, "shape": shape}), found["dtype"]


def guess_framework(named: str) -> Framework:
    """The framework that a factory's module imports, by its text; PyTorch where it says neither or both."""
    text = _module_file(named, Path.cwd()).read_text(encoding="utf-8", errors="replace")
    imports = re.findall(r"^\s*(?:import|from)\s+(torch|tensorflow|keras)\b", text, flags=re.MULTILINE)
    return "tensorflow" if imports and "torch" not in imports else "torch"


def build_factory_program(source: SourceRef) -> Program:
    """Import the module, call the function, and find out what its model gives.

    Raises CheckpointError where that fails or the code changed, RefusedError for what is no model of the framework.
    """
    folder = Path(source.options.folder)
    if hashlib.sha256(_module_file(source.path, folder).read_bytes()).hexdigest() != source.sha256:
        raise CheckpointError(f"the module of {source.path} has changed since this export began; start it again")
    _seed(source.framework)
    model = _call_factory(source.path, folder)
    return program_of(model, source.framework, [parse_input(text) for text in source.options.inputs], source.path)


def program_of(model: Any, framework: Framework, inputs: Sequence[tuple[TensorSpec, str]], name: str) -> Program:
    """A live model as a Program; `inputs` with the dtypes that it is called with."""
    if framework == "torch":
        from edgekit.sources.live_torch import torch_program

        return torch_program(model, inputs, name)
    from edgekit.sources.live_keras import keras_program

    return keras_program(model, tuple(spec for spec, _ in inputs), name)


def signature_of(specs: Sequence[TensorSpec], outputs: dict[str, Any], method: str, name: str) -> Signature:
    """A signature, from the outputs of one call as numpy arrays by name.

    Raises RefusedError for a model without outputs, or one that is no float32 or integer of 32 bits.
    """
    if not outputs:
        raise RefusedError(f"{name} gives no tensor: a model must give one, a tuple, or a dictionary of them")
    made = []
    for key, value in outputs.items():
        dtype = {"float32": "float32", "int32": "int32", "int64": "int32"}.get(str(np.asarray(value).dtype))
        if dtype is None:
            raise RefusedError(f"{name} gives {key!r} as {np.asarray(value).dtype}: edgekit exports float32 and int32")
        made.append(TensorSpec.model_validate({"name": key, "dtype": dtype, "shape": np.shape(value)}))
    return Signature(name=SIGNATURE, method=method, inputs=tuple(specs), outputs=tuple(made))


def _module_file(named: str, folder: Path) -> Path:
    """The file of a factory's module, without importing it or its packages."""
    parts = named.split(":")[0].split(".")
    for candidate in (folder.joinpath(*parts).with_suffix(".py"), folder.joinpath(*parts, "__init__.py")):
        if candidate.is_file():
            return candidate
    spec = importlib.util.find_spec(parts[0])
    for root in (spec.submodule_search_locations or ()) if spec else ():
        for candidate in (Path(root, *parts[1:]).with_suffix(".py"), Path(root, *parts[1:], "__init__.py")):
            if candidate.is_file():
                return candidate
    if spec and spec.origin and len(parts) == 1 and Path(spec.origin).is_file():
        return Path(spec.origin)
    raise CheckpointError(f"there is no module {'.'.join(parts)} in {folder} or among the installed packages")


def _seed(framework: Framework) -> None:
    """Let a function that draws weights draw the same ones in every worker: the reference's and the file's are two."""
    if framework == "torch":
        import random

        import torch

        random.seed(0)
        np.random.seed(0)
        torch.manual_seed(0)
    else:
        require("keras", "building a Keras model").utils.set_random_seed(0)


def _call_factory(named: str, folder: Path) -> Any:
    module_name, function_name = named.split(":")
    sys.path.insert(0, str(folder))  # `python -P` left it out; the user named this code
    try:
        function = getattr(importlib.import_module(module_name), function_name, None)
        if not callable(function):
            raise CheckpointError(f"{module_name} has no function {function_name}")
        return function()
    except CheckpointError:
        raise
    except Exception as error:  # the user's code raises anything
        first = (str(error).strip() or "no word").splitlines()[0]
        raise CheckpointError(f"{named} failed: {type(error).__name__}: {first}") from error
    finally:
        sys.path.remove(str(folder))

"""Any `torch.nn.Module` → an ML program: captured by torch.export, or traced where that or its conversion fails."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from edgekit.errors import ExportError
from edgekit.export.coreml_workarounds import workarounds
from edgekit.export.torch_modules import StatefulModule, without_stack_traces
from edgekit.extras import require
from edgekit.sources.torch_outputs import named_tensors

ct = require("coremltools", "converting to Core ML")

Precision = Literal["fp32", "fp16"]
Shapes = Mapping[str, Sequence[tuple[int, ...]]]  # input → its enumerated shapes, the default first
Capture = Literal["export", "trace"]

_DTYPES = {torch.float16: np.float16, torch.float32: np.float32, torch.float64: np.float32, torch.bool: np.bool_}


def convert_torch_module(
    module: nn.Module,
    example_inputs: Mapping[str, Tensor],
    *,
    output_names: Sequence[str] = (),
    minimum_deployment_target: str = "iOS17",
    precision: Precision = "fp32",
    shapes: Shapes | None = None,
    captures: Sequence[Capture] = ("export", "trace"),
) -> Any:
    """Convert a module in eval mode to a `coremltools.models.MLModel`, not loaded, with named inputs and outputs.

    `example_inputs` are given by position, in order; their shapes are the program's, but for inputs named in `shapes`,
    which get those (shapes of several inputs belong together by position). `output_names` default to the keys of a
    dictionary, else output_0, …. The ways of `captures` are tried in order. Raises ExportError, which names the
    operation and module that each way failed at. Buffers that a StatefulModule changes become states.
    """
    flat = module if isinstance(module, StatefulModule) else _Flat(module).eval()
    with torch.no_grad(), workarounds("torch"):
        values = flat(*example_inputs.values())
        names = tuple(output_names) or flat.names
        options = {
            "inputs": [_input(name, value, shapes or {}) for name, value in example_inputs.items()],
            "outputs": [
                ct.TensorType(name=name, dtype=_dtype(value)) for name, value in zip(names, values, strict=True)
            ],
            "convert_to": "mlprogram",
            "minimum_deployment_target": getattr(ct.target, minimum_deployment_target),
            "compute_precision": ct.precision.FLOAT16 if precision == "fp16" else ct.precision.FLOAT32,
            "skip_model_load": True,
        }
        return _first_that_converts(
            {way: _CAPTURES[way] for way in captures}, flat, dict(example_inputs), shapes or {}, options
        )


class _Flat(nn.Module):
    """Gives the tensors of whatever a module gives, a dictionary or nested tuples, as one tuple."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.names: tuple[str, ...] = ()

    def forward(self, *args: Tensor) -> tuple[Tensor, ...]:
        """Call the module and note the outputs' names."""
        found = dict(named_tensors(self.module(*args)))
        self.names = tuple(found)
        return tuple(found.values())


def _first_that_converts(
    captures: Mapping[str, Callable[..., Any]],
    module: nn.Module,
    example_inputs: dict[str, Tensor],
    shapes: Shapes,
    options: dict[str, Any],
) -> Any:
    failures = []
    for way, capture in captures.items():
        try:
            return ct.convert(capture(module, example_inputs, shapes), **options)
        except Exception as error:  # noqa: BLE001  (torch and coremltools raise anything; all of it is told below)
            last = error
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            text = (lines or [""])[0]
            failures.append(
                f"by {way}: {text if isinstance(error, ExportError) else f'{type(error).__name__}: {text}'}"
            )
    raise ExportError("; ".join(failures)) from last


def _export(module: nn.Module, example_inputs: dict[str, Tensor], shapes: Shapes) -> Any:
    """A torch.export.ExportedProgram; axes that differ between the shapes of an input are dynamic."""
    axes = {name: _dynamic_axes(shapes[name]) if name in shapes else {} for name in example_inputs}
    dynamic = (tuple(axes.values()),) if shapes else None
    values = tuple(example_inputs.values())
    exported = torch.export.export(module, values, dynamic_shapes=dynamic, strict=False)
    return without_stack_traces(exported.run_decompositions({}))


def _dynamic_axes(shapes: Sequence[tuple[int, ...]]) -> dict[int, Any]:
    sizes = {axis: sorted(set(each)) for axis, each in enumerate(zip(*shapes, strict=True))}
    return {axis: torch.export.Dim(f"size_{axis}", min=s[0], max=s[-1]) for axis, s in sizes.items() if len(s) > 1}


def _trace(module: nn.Module, example_inputs: dict[str, Tensor], shapes: Shapes) -> Any:
    """A TorchScript trace; sizes that the module reads in Python are those of the example."""
    return torch.jit.trace(module, tuple(example_inputs.values()), strict=False, check_trace=False)


_CAPTURES: dict[str, Callable[..., Any]] = {"export": _export, "trace": _trace}


def _input(name: str, value: Tensor, shapes: Shapes) -> Any:
    given = shapes.get(name, ())
    shape = ct.EnumeratedShapes(shapes=list(given), default=given[0]) if len(given) > 1 else tuple(value.shape)
    return ct.TensorType(name=name, shape=shape, dtype=_dtype(value))


def _dtype(value: Tensor) -> Any:
    """The numpy dtype that a package declares for a tensor: integers of every width are int32."""
    return _DTYPES.get(value.dtype, np.int32)

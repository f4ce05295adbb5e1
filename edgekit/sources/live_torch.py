"""A live torch.nn.Module → Program: plain inputs of 32 bits, outputs by name."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from edgekit.errors import CheckpointError, RefusedError
from edgekit.program import Program, TensorSpec
from edgekit.sources.factory import signature_of
from edgekit.sources.torch_outputs import named_tensors


class NamedModule(nn.Module):
    """Calls a module with the dtypes that it wants and gives its tensors, in order; integers as 32 bits."""

    def __init__(self, module: nn.Module, dtypes: dict[str, str]) -> None:
        super().__init__()
        self.module = module
        self.dtypes = dtypes

    def forward(self, *args: Tensor, **kwargs: Tensor) -> tuple[Tensor, ...]:
        """The outputs; inputs come by position or by name."""
        return tuple(self.call(*args, **kwargs).values())

    def call(self, *args: Tensor, **kwargs: Tensor) -> dict[str, Tensor]:
        """The outputs by name."""
        given = dict(zip(self.dtypes, args, strict=False)) | kwargs
        values = [given[name].to(getattr(torch, dtype)) for name, dtype in self.dtypes.items()]
        outputs = dict(named_tensors(self.module(*values)))
        return {name: value.to(torch.int32) if value.dtype == torch.int64 else value for name, value in outputs.items()}


def torch_program(model: Any, inputs: Sequence[tuple[TensorSpec, str]], name: str) -> Program:
    """The model in eval mode, called with its inputs in the order that they are given in.

    Raises RefusedError for what is no module or gives no tensors, CheckpointError where it can't be called so.
    """
    if not isinstance(model, nn.Module):
        raise RefusedError(f"{name} gives a {type(model).__name__}: it must give a torch.nn.Module or a Keras model")
    specs = tuple(spec for spec, _ in inputs)
    module = NamedModule(model.eval().float(), {spec.name: dtype for spec, dtype in inputs})
    values = [torch.zeros(spec.shape, dtype=getattr(torch, spec.dtype)) for spec in specs]
    try:
        with torch.inference_mode():
            outputs = module.call(*values)
    except Exception as error:  # the user's code raises anything
        first = (str(error).strip() or "no word").splitlines()[0]
        shapes = ", ".join(f"{spec.name}:{dtype}{list(spec.shape)}" for spec, dtype in inputs)
        raise CheckpointError(f"{name} can't be called with {shapes}: {type(error).__name__}: {first}") from error
    signature = signature_of(specs, {key: value.numpy() for key, value in outputs.items()}, "forward", name)
    return Program(framework="torch", module=module, signatures=(signature,))

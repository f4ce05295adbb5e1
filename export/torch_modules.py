"""A PyTorch program as converters take it: one module per signature, example inputs, a captured graph."""

from typing import Any

import torch
from torch import Tensor, nn

from edgekit.program import COUNT, LENGTH, PAST, TOTAL, Program, Signature, argument_name


class SignatureModule(nn.Module):
    """Runs one signature of a program: inputs in its order or by argument name, outputs as {name: tensor}."""

    def __init__(self, program: Program, signature: Signature) -> None:
        super().__init__()
        self.module: nn.Module = program.module
        self.method = signature.method
        self.input_names = {argument_name(spec.name): spec.name for spec in signature.inputs}
        self.output_names = tuple(spec.name for spec in signature.outputs)

    def forward(self, *args: Tensor, **kwargs: Tensor) -> dict[str, Tensor]:
        """Call the method; its single output or its tuple of outputs gets the signature's names."""
        named = {self.input_names.get(name, name): value for name, value in kwargs.items()}
        outputs = getattr(self.module, self.method)(*args, **named)
        values = outputs if isinstance(outputs, (tuple, list)) else (outputs,)
        return dict(zip(self.output_names, values, strict=True))


def example_inputs(signature: Signature) -> dict[str, Tensor]:
    """Inputs of the signature's shapes and dtypes by argument name, all ones: valid ids, a mask that hides nothing.

    Axes that are free get small sizes, none of which is another's, but for those that are the sum of two.
    """
    sizes = free_sizes(signature)
    return {
        argument_name(spec.name): torch.ones(
            [sizes.get(spec.axes.get(axis, ""), size) for axis, size in enumerate(spec.shape)],
            dtype=getattr(torch, spec.dtype),
        )
        for spec in signature.inputs
    }


def free_sizes(signature: Signature) -> dict[str, int]:
    """A size for each free axis: 2 of a batch, 3, 4, … of others; the total of a growing cache is past and new."""
    names = dict.fromkeys(name for spec in signature.inputs for name in spec.axes.values())
    sizes = {name: place + 2 for place, name in enumerate(names)}
    if TOTAL in sizes:
        sizes[TOTAL] = sizes[PAST] + sizes[COUNT]
    return sizes


def captured(program: Program, signature: Signature) -> Any:
    """The signature as a `torch.export.ExportedProgram`, without the source lines of the machine it was made on."""
    module = SignatureModule(program, signature).eval()
    given = example_inputs(signature)
    if any(spec.axes for spec in signature.inputs):
        free = tuple(dict.fromkeys(spec.axes, torch.export.Dim.DYNAMIC) for spec in signature.inputs)
        exported = torch.export.export(module, tuple(given.values()), dynamic_shapes=(free,), strict=False)
        return without_stack_traces(exported)
    if not signature.dynamic_length:
        return without_stack_traces(torch.export.export(module, (), kwargs=given, strict=False))
    # By position: torch 2.13 does not match sizes with keyword arguments of a forward that takes any.
    axes = tuple({1: torch.export.Dim(LENGTH, min=1, max=spec.shape[1])} for spec in signature.inputs)
    exported = torch.export.export(module, tuple(given.values()), dynamic_shapes=(axes,), strict=False)
    return without_stack_traces(exported)


def without_stack_traces(exported: Any) -> Any:
    """Remove the stack trace of every node, which torch 2.13 notes with absolute paths: converters copy them."""
    for graph_module in exported.graph_module.modules():
        if isinstance(graph_module, torch.fx.GraphModule):
            for node in graph_module.graph.nodes:
                node.meta.pop("stack_trace", None)
    return exported

"""A PyTorch program as converters take it: one module per signature, example inputs, a captured graph."""

from typing import Any

import torch
from torch import Tensor, nn

from edgekit.program import COUNT, LENGTH, NEXT_POSITION, PAST, TOTAL, Program, Signature, TensorSpec, argument_name


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


class StatefulModule(nn.Module):
    """Runs one signature whose states it keeps itself, in buffers of the names of its inputs.

    The states of a signature without another output would have nobody to wait for: it tells `next_position`.
    """

    def __init__(self, program: Program, signature: Signature) -> None:
        super().__init__()
        self.module: nn.Module = program.module
        self.signature = signature
        self.names = tuple(spec.name for spec in signature.outputs if spec.name not in signature.states.values())
        for spec in signature.inputs:
            if spec.name in signature.states:
                self.register_buffer(spec.name, torch.zeros(spec.shape))

    def forward(self, *args: Tensor) -> tuple[Tensor, ...]:
        """Take the inputs that are no states; give the outputs that are none, and keep the others."""
        signature, names = self.signature, self.names
        given = dict(zip((spec.name for spec in free_inputs(signature)), args, strict=True))
        values = [given[s.name] if s.name in given else getattr(self, s.name) for s in signature.inputs]
        found = getattr(self.module, signature.method)(*values)
        wanted = [spec.name for spec in signature.outputs if spec.name != NEXT_POSITION]
        outputs = dict(zip(wanted, found, strict=True))
        for name, replaced in signature.states.items():
            getattr(self, name)[:] = outputs[replaced]
        if NEXT_POSITION in names:
            outputs[NEXT_POSITION] = given["position"] + given["ids"].shape[1]
        return tuple(outputs[name] for name in names)


def free_inputs(signature: Signature) -> tuple[TensorSpec, ...]:
    """The inputs that a caller gives: all, or those that are no states where the file keeps them."""
    return tuple(s for s in signature.inputs if not (signature.stateful and s.name in signature.states))


def free_outputs(signature: Signature) -> tuple[TensorSpec, ...]:
    """The outputs that a caller gets."""
    kept = set(signature.states.values()) if signature.stateful else set()
    return tuple(spec for spec in signature.outputs if spec.name not in kept)


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
        for spec in free_inputs(signature)
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

"""Program → ONNX, opset 18: through torch.onnx's exporter, or through tf2onnx."""

import itertools
from pathlib import Path
from typing import Any

import onnx

from edgekit.errors import RefusedError
from edgekit.export.onnx_folder import FILES, read_folder, write_folder
from edgekit.export.onnx_simplified import mark_cache, simplify_writer
from edgekit.program import LENGTH, Program, Signature

OPSET = 18


def convert(program: Program, output: Path, *, scheme: str = "none") -> None:
    """Write `program` to `output`, one file with its weights inside; inputs and outputs are named as its signature.

    `fp16` has float16 weights and arithmetic; inputs and outputs keep their types. A signature of a dynamic length
    gets an axis `length`, as fast at each size as a graph of that size alone. An ONNX graph has one signature: several
    become a folder of graphs, each in the file that its name has in `FILES`, over one copy of the weights. Raises
    RefusedError for several signatures of other names, and for weights beyond float16's range.
    """
    program = _with_fused_attention(program)
    models = {signature.name: _convert(program, signature, scheme) for signature in program.signatures}
    if len(models) == 1:
        write_model(next(iter(models.values())), output)
        return
    if unknown := [name for name in models if name not in FILES]:
        raise RefusedError(f"an ONNX graph has one signature; this program has several, {unknown[0]} among them")
    write_folder({FILES[name]: clean_model(model) for name, model in models.items()}, output)


def _with_fused_attention(program: Program) -> Program:
    """A program of PyTorch that keeps a cache has its attention as one operator, where that is possible."""
    if program.framework != "torch" or not any(signature.states for signature in program.signatures):
        return program
    from edgekit.export.onnx_fused import fused

    return fused(program)


def _convert(program: Program, signature: Signature, scheme: str) -> Any:
    route = _convert_torch if program.framework == "torch" else _convert_tensorflow
    model = route(program, signature)
    if signature.dynamic_length:
        _name_length(model, signature)
    _name_axes(model, signature)
    if any(each.states for each in program.signatures):
        simplify_writer(model)
    if scheme == "fp16":
        from edgekit.export.onnx_float16 import to_float16

        model = to_float16(model)
    return model


def compress_fp16(source: Path, output: Path) -> None:
    """Write the float32 file `source` to `output` with float16 weights and arithmetic."""
    from edgekit.export.onnx_float16 import to_float16

    if source.is_dir():
        write_folder({name: clean_model(to_float16(model)) for name, model in read_folder(source).items()}, output)
    else:
        write_model(to_float16(onnx.load(source, load_external_data=False)), output)


def write_model(model: Any, output: Path) -> None:
    """Check a model and write it without the notes that exporters leave in it."""
    output.write_bytes(clean_model(model).SerializeToString(deterministic=True))


def clean_model(model: Any) -> Any:
    """Return the model, checked, without the notes that exporters leave in it.

    torch 2.13 gives every node the stack trace that made it, with absolute paths of this machine.
    """
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    for item in (*model.graph.node, *model.graph.value_info, *model.graph.initializer):
        del item.metadata_props[:]
        item.doc_string = ""
    for item in (*model.graph.input, *model.graph.output):
        del item.metadata_props[:]
    model.graph.name = "encoder"
    mark_cache(model)
    onnx.checker.check_model(model, full_check=True)
    return model


def _name_length(model: Any, signature: Signature) -> None:
    """Give the axis of free size its name, which exporters number, and outputs their sizes, which tf2onnx loses."""
    for value in model.graph.input:
        for dimension in value.type.tensor_type.shape.dim:
            if not dimension.HasField("dim_value"):
                dimension.dim_param = LENGTH
    shapes = {spec.name: spec.shape for spec in signature.outputs}
    for value in model.graph.output:
        for dimension, size in zip(value.type.tensor_type.shape.dim, shapes[value.name], strict=True):
            dimension.dim_value = size
    del model.graph.value_info[:]  # sizes by the old name


def _name_axes(model: Any, signature: Signature) -> None:
    """Give free axes their names, which exporters number."""
    specs = {spec.name: spec for spec in (*signature.inputs, *signature.outputs) if spec.axes}
    for value in (*model.graph.input, *model.graph.output):
        if value.name in specs:
            axes, shape = specs[value.name].axes, specs[value.name].shape
            for axis, dimension in enumerate(value.type.tensor_type.shape.dim):
                if axis in axes:
                    dimension.dim_param = axes[axis]
                else:
                    dimension.dim_value = shape[axis]
    if specs:
        del model.graph.value_info[:]  # sizes by the old names


def _convert_torch(program: Program, signature: Signature) -> Any:
    import torch

    from edgekit.export.torch_modules import captured

    exported = torch.onnx.export(
        captured(program, signature),
        dynamo=True,
        external_data=False,
        opset_version=OPSET,
        input_names=[spec.name for spec in signature.inputs],
        output_names=[spec.name for spec in signature.outputs],
        verbose=False,
    )
    if exported is None:
        raise RuntimeError("torch.onnx.export returned no program")
    return exported.model_proto


def _convert_tensorflow(program: Program, signature: Signature) -> Any:
    import tf2onnx

    from edgekit.export.tf_graphs import flexible_inputs, input_specs, signature_function

    _order_nodes(tf2onnx.graph.Node)
    model, _ = tf2onnx.convert.from_function(
        signature_function(program, signature, flexible_inputs(signature)),
        input_signature=input_specs(signature, flexible_inputs(signature)),
        opset=OPSET,
    )
    return model


def _order_nodes(node_class: Any) -> None:
    """Number nodes as they are first hashed, so that two runs write the same bytes.

    tf2onnx 1.17 walks over sets of nodes, which hash by address: nodes, and the names of constants that it merges,
    come out in another order on every run.
    """
    counter = itertools.count()

    def number(node: Any) -> int:
        if not hasattr(node, "_number"):
            node._number = next(counter)
        return int(node._number)

    node_class.__hash__ = number

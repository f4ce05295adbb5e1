"""What users of the converters themselves write for one target, float32 and int8; started by export_speed.py.

    python benchmarks/export_speed_bare.py TARGET CHECKPOINT LENGTHS FOLDER      with LENGTHS as 8,16,36,64

One process for each target: a converter, then its own quantizer on what it wrote. A longest length of several gets a
signature each in TFLite, and an axis of any length in ONNX; Core ML takes one.
"""

import sys
from pathlib import Path
from typing import Any

import peers_models


def main(target: str, source: str, lengths: str, folder: str) -> None:
    """Convert and quantize."""
    module = peers_models.torch_module({"model": "embedded", "source": source})
    {"tflite": tflite, "onnx": onnx, "coreml": coreml}[target](module, list(map(int, lengths.split(","))), Path(folder))


def tflite(module: Any, lengths: list[int], folder: Path) -> None:
    """litert-torch, then ai-edge-quantizer's dynamic int8."""
    import litert_torch
    from ai_edge_quantizer import quantizer, recipe

    file, converter = str(folder / "model.tflite"), litert_torch
    for length in lengths[:-1]:
        converter = converter.signature(f"length_{length}", module, _inputs(length))
    converter.convert(module, _inputs(lengths[-1])).export(file)
    work = quantizer.Quantizer(file)
    work.load_quantization_recipe(recipe.dynamic_wi8_afp32())
    work.quantize().export_model(str(folder / "int8.tflite"))


def onnx(module: Any, lengths: list[int], folder: Path) -> None:
    """torch.onnx, then ONNX Runtime's pre-processing and dynamic int8, as its documentation says."""
    import onnx as package
    import torch
    from onnxruntime.quantization import quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    file, ready = folder / "model.onnx", folder / "ready.onnx"
    free = {1: torch.export.Dim.DYNAMIC} if len(lengths) > 1 else None
    shapes = (free, free) if free else None
    torch.onnx.export(module, _inputs(lengths[-1]), str(file), dynamo=True, external_data=False, dynamic_shapes=shapes)
    # onnxruntime 1.31 can't infer the shapes of a model whose length is free, and ends there unless told not to
    quant_pre_process(str(file), str(ready), skip_symbolic_shape=free is not None)
    model = package.load(ready)
    if free:  # nor does it do without those that torch's exporter left, of which some are wrong
        del model.graph.value_info[:]
    quantize_dynamic(model, str(folder / "int8.onnx"))


def coreml(module: Any, lengths: list[int], folder: Path) -> None:
    """coremltools of what torch.export captured, then its int8 weights."""
    import coremltools as ct
    import coremltools.optimize.coreml as optimize
    import torch

    captured = torch.export.export(module, _inputs(lengths[-1])).run_decompositions({})
    options = {"minimum_deployment_target": ct.target.iOS17, "compute_precision": ct.precision.FLOAT32}
    model = ct.convert(captured, **options)
    model.save(str(folder / "model.mlpackage"))
    config = optimize.OptimizationConfig(optimize.OpLinearQuantizerConfig(mode="linear_symmetric"))
    optimize.linear_quantize_weights(model, config).save(str(folder / "int8.mlpackage"))


def _inputs(length: int) -> tuple[Any, Any]:
    import torch

    return torch.zeros((1, length), dtype=torch.int32), torch.ones((1, length), dtype=torch.int32)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Exports one model by one peer, as its own documentation shows; started by peers.py in the peer's environment.

Reads {"peer", "model", "source", "output", "length", "calibration", "float", "rows"} as JSON on standard input, writes
{"file"} as the last line. `float` is the float32 file that a quantizer starts from. For a matrix product `rows` are all
that are wanted, `float` has a file for each, and {"files"} come out.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peers_models as models

BIN = Path(sys.executable).parent
_LITERT_SCRIPT = {"get_model": "torch_module", "get_args": "example"}


def litert_torch(job: dict[str, Any]) -> Path:
    """`litert_torch.convert`."""
    import litert_torch

    file = Path(job["output"], "model.tflite")
    litert_torch.convert(models.torch_module(job), models.example(job)).export(str(file))
    return file


def ai_edge_quantizer(job: dict[str, Any]) -> Path:
    """The quantizer's recipe for dynamic int8, on every operator that it covers."""
    from ai_edge_quantizer import quantizer, recipe

    file = Path(job["output"], "model.tflite")
    work = quantizer.Quantizer(job["float"])
    work.load_quantization_recipe(recipe.dynamic_wi8_afp32())
    work.quantize().export_model(str(file))
    return file


def keras_litert(job: dict[str, Any]) -> Path:
    """`model.export(format="litert")`."""
    file = Path(job["output"], "model.tflite")
    models.keras_model(job).export(str(file), format="litert", input_signature=_keras_signature(job), verbose=False)
    return file


def keras_saved_model(job: dict[str, Any]) -> Path:
    """`model.export` to a SavedModel, then TensorFlow's converter."""
    return _keras_converted(job, optimize=False)


def keras_saved_model_int8(job: dict[str, Any]) -> Path:
    """The same with `Optimize.DEFAULT`: dynamic int8."""
    return _keras_converted(job, optimize=True)


def keras_onnx(job: dict[str, Any]) -> Path:
    """`model.export(format="onnx")`."""
    file = Path(job["output"], "model.onnx")
    models.keras_model(job).export(str(file), format="onnx", input_signature=_keras_signature(job), verbose=False)
    return file


def torch_onnx(job: dict[str, Any]) -> Path:
    """`torch.onnx.export`."""
    import torch

    file = Path(job["output"], "model.onnx")
    torch.onnx.export(models.torch_module(job), models.example(job), str(file), dynamo=True, external_data=False)
    return file


def onnxruntime_quantize(job: dict[str, Any]) -> Path:
    """`onnxruntime.quantization.quantize_dynamic`."""
    from onnxruntime.quantization import quantize_dynamic

    file = Path(job["output"], "model.onnx")
    quantize_dynamic(job["float"], str(file))
    return file


def onnxruntime_preprocess(job: dict[str, Any]) -> Path:
    """`quant_pre_process`, which its documentation recommends first, then `quantize_dynamic`."""
    from onnxruntime.quantization import quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    ready, file = Path(job["output"], "ready.onnx"), Path(job["output"], "model.onnx")
    quant_pre_process(job["float"], str(ready))
    quantize_dynamic(str(ready), str(file))
    return file


def optimum(job: dict[str, Any]) -> Path:
    """`optimum-cli export onnx`."""
    _run(BIN / "optimum-cli", "export", "onnx", "--model", job["source"], "--task", "feature-extraction", job["output"])
    return Path(job["output"], "model.onnx")


def optimum_quantize(job: dict[str, Any]) -> Path:
    """`optimum-cli onnxruntime quantize`, for the instructions that this processor has."""
    flag = "--avx512_vnni" if "avx512_vnni" in Path("/proc/cpuinfo").read_text() else "--avx2"
    command = ("onnxruntime", "quantize", "--onnx_model", Path(job["float"]).parent, flag, "-o", job["output"])
    _run(BIN / "optimum-cli", *command)
    return Path(job["output"], "model_quantized.onnx")


def onnx2tf(job: dict[str, Any]) -> Path:
    """`onnx2tf`, of the file that the ONNX peer wrote."""
    _run(BIN / "onnx2tf", "-i", job["float"], "-o", job["output"], *_static_shapes(job))
    return Path(job["output"], f"{Path(job['float']).stem}_float32.tflite")


def onnx2tf_int8(job: dict[str, Any]) -> Path:
    """`onnx2tf` with dynamic int8."""
    _run(BIN / "onnx2tf", "-i", job["float"], "-o", job["output"], "-odrqt", *_static_shapes(job))
    return Path(job["output"], f"{Path(job['float']).stem}_dynamic_range_quant.tflite")


def litert_cli(job: dict[str, Any]) -> Path:
    """`litert convert` of a script that gives model and inputs: of Hugging Face's models it takes causal ones only."""
    return _litert_convert(job)


def litert_cli_int8(job: dict[str, Any]) -> Path:
    """The same with its recipe for dynamic int8."""
    return _litert_convert(job, "--quantize", "dynamic_wi8_afp32")


def onnx2tf_optimum(job: dict[str, Any]) -> Path:
    """`onnx2tf`, of the file that Optimum wrote."""
    return onnx2tf(job)


def onnx2tf_optimum_int8(job: dict[str, Any]) -> Path:
    """The same with dynamic int8."""
    return onnx2tf_int8(job)


def executorch(job: dict[str, Any]) -> Path:
    """Lowered to XNNPACK."""
    import torch

    with torch.no_grad():
        return _lower(job, torch.export.export(models.torch_module(job), models.example(job)))


def executorch_int8(job: dict[str, Any]) -> Path:
    """XNNPACKQuantizer, dynamic, a scale for each channel, of the whole model; then lowered."""
    return _executorch_quantized(job, linear_only=False)


def executorch_int8_linear(job: dict[str, Any]) -> Path:
    """The same of linear layers only."""
    return _executorch_quantized(job, linear_only=True)


def openvino(job: dict[str, Any]) -> Path:
    """`openvino.convert_model`, with lengths that may vary, as it converts text models."""
    import openvino as ov
    import torch

    file = Path(job["output"], "model.xml")
    with torch.no_grad():
        converted = ov.convert_model(models.torch_module(job), example_input=models.example(job))
    ov.save_model(converted, file)
    return file


def nncf(job: dict[str, Any]) -> Path:
    """`nncf.quantize` with real texts and its preset for Transformers."""
    import nncf as quantizer
    import openvino as ov

    file = Path(job["output"], "model.xml")
    whole = ov.Core().read_model(job["float"])
    if job["model"] == "matmul":
        texts: list[Any] = [tuple(tensor.numpy() for tensor in models.example(job))]
    else:
        texts = [models.padded(ids, len(ids), job["model"]) for ids in models.calibration_ids(job)]
    dataset = quantizer.Dataset(texts, list)
    made = quantizer.quantize(whole, dataset, model_type=quantizer.ModelType.TRANSFORMER, subset_size=len(texts))
    ov.save_model(made, file)
    return file


def _executorch_quantized(job: dict[str, Any], *, linear_only: bool) -> Path:
    import torch
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    given, quantizer = models.example(job), XNNPACKQuantizer()
    config = get_symmetric_quantization_config(is_per_channel=True, is_dynamic=True)
    if linear_only:
        quantizer.set_module_type(torch.nn.Linear, config)
    else:
        quantizer.set_global(config)
    with torch.no_grad():
        prepared = prepare_pt2e(torch.export.export(models.torch_module(job), given).module(), quantizer)
        prepared(*given)
        return _lower(job, torch.export.export(convert_pt2e(prepared), given))


def _keras_signature(job: dict[str, Any]) -> list[Any]:
    import tensorflow as tf

    return [tuple(tf.TensorSpec((1, job["length"]), tf.int32, name=name) for name in ("ids", "mask"))]


def _keras_converted(job: dict[str, Any], *, optimize: bool) -> Path:
    import tensorflow as tf

    folder, file = Path(job["output"], "saved"), Path(job["output"], "model.tflite")
    models.keras_model(job).export(str(folder), input_signature=_keras_signature(job), verbose=False)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder))
    if optimize:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    file.write_bytes(converter.convert())
    return file


def _lower(job: dict[str, Any], program: Any) -> Path:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    file = Path(job["output"], "model.pte")
    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()]).to_executorch()
    file.write_bytes(lowered.buffer)
    return file


def _static_shapes(job: dict[str, Any]) -> list[str]:
    """onnx2tf takes no unknown lengths: every input at the model's own."""
    import onnx

    names = [value.name for value in onnx.load(job["float"], load_external_data=False).graph.input]
    return ["-ois", *(f"{name}:1,{job['length']}" for name in names)]


def _run(*command: str | Path) -> None:
    run = subprocess.run(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False)
    if run.returncode:
        raise SystemExit(f"{Path(command[0]).name} ended with exit code {run.returncode}")


def _litert_convert(job: dict[str, Any], *options: str) -> Path:
    script = Path(job["output"], "script.py")
    lines = ("import json", "import peers_models", f"JOB = json.loads({json.dumps(json.dumps(job))})")
    functions = (f"def {name}(): return peers_models.{call}(JOB)" for name, call in _LITERT_SCRIPT.items())
    script.write_text("\n".join((*lines, *functions)) + "\n")
    _run(BIN / "litert", "convert", script, *options, "--output", Path(job["output"], "made"))
    return _only(Path(job["output"], "made"))


def _only(folder: Path) -> Path:
    files = sorted(folder.rglob("*.tflite"))
    if not files:
        raise SystemExit(f"it wrote no .tflite file, but {sorted(path.name for path in folder.rglob('*'))}")
    return files[0]


PEERS: dict[str, Callable[[dict[str, Any]], Path]] = {
    function.__name__: function
    for function in (
        litert_torch, ai_edge_quantizer, litert_cli, litert_cli_int8, keras_litert, keras_saved_model,
        keras_saved_model_int8, keras_onnx, torch_onnx, onnxruntime_quantize, onnxruntime_preprocess, optimum,
        optimum_quantize, onnx2tf, onnx2tf_int8, onnx2tf_optimum, onnx2tf_optimum_int8, executorch, executorch_int8,
        executorch_int8_linear, openvino, nncf,
    )
}  # fmt: skip


def main(job: dict[str, Any]) -> dict[str, Any]:
    """Make the job's file; of a matrix product one for each number of rows."""
    peer = PEERS[job["peer"]]
    if job["model"] != "matmul":
        Path(job["output"]).mkdir(parents=True, exist_ok=True)
        return {"file": str(peer(job))}
    files = {}
    for rows in job["rows"]:
        output = Path(job["output"], str(rows))
        output.mkdir(parents=True, exist_ok=True)
        fields = {"rows": rows, "output": str(output), "float": job["float"].get(str(rows), "")}
        files[rows] = str(peer(job | fields))
    return {"files": files}


if __name__ == "__main__":
    given = json.load(sys.stdin)
    os.environ |= {"HF_HUB_OFFLINE": "1", "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
    print("\n" + json.dumps(main(given)))

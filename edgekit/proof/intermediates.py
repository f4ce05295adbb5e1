"""`python -P -m edgekit.proof.intermediates JOB.json`: every tensor that a file computes for one step, for bisecting.

A job names `model`, `runtime`, `steps` (a golden file), `step` (its number) and `output`: a .npz of float32 arrays
keyed `{place:05d}/{name}` in the order of computation. Quantized tensors are given as the numbers that they stand for.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.proof.golden import Arrays, read_golden

Tensors = dict[str, NDArray[np.float32]]


def main(path: str) -> None:
    """Run one job; raises whatever the runtime raises."""
    job = json.loads(Path(path).read_text())
    step = read_golden(Path(job["steps"])).steps[job["step"]]
    tensors = _COLLECT[job["runtime"]](Path(job["model"]), step.signature, step.inputs)
    np.savez(job["output"], **{f"{i:05d}/{name}": value for i, (name, value) in enumerate(tensors.items())})  # type: ignore[arg-type]


def _coreml(model: Path, signature: str, inputs: Arrays) -> Tensors:
    from edgekit.mil.evaluator import load_evaluator
    from edgekit.mil.package import hide_frameworks

    hide_frameworks()
    evaluator, tensors = load_evaluator(model), {}
    function = "" if list(evaluator.inputs) == [""] else signature

    def keep(operation: Any, name: str, value: NDArray[Any]) -> None:
        if value.dtype.kind == "f" and not operation.kind.startswith("constexpr_"):
            tensors[name] = value.astype(np.float32)

    evaluator.run(inputs, function, watch=keep)
    return tensors


def _tflite(model: Path, signature: str, inputs: Arrays) -> Tensors:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType
    from ai_edge_litert.tools import flatbuffer_utils

    interpreter = Interpreter(
        model_path=str(model),
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,  # delegates keep no tensors
    )
    runner = interpreter.get_signature_runner(signature)
    runner(**inputs)
    place = runner._subgraph_index
    operators = flatbuffer_utils.read_model(str(model)).subgraphs[place].operators  # the interpreter lists the first's
    tensors = {}
    for index in (int(index) for operator in operators for index in operator.outputs):
        detail = interpreter._get_tensor_details(index, place)
        value = interpreter.get_tensor(index, place)
        if value.dtype.kind == "f" or detail["quantization_parameters"]["scales"].size == 1:
            tensors[f"{detail['name']} ({index})"] = _dequantized(value, detail["quantization_parameters"])
    return tensors


def _dequantized(value: NDArray[Any], parameters: Any) -> NDArray[np.float32]:
    if value.dtype.kind == "f":
        return np.array(value, np.float32)
    return (value.astype(np.float32) - parameters["zero_points"][0]) * parameters["scales"][0]


def _onnx(model: Path, signature: str, inputs: Arrays) -> Tensors:
    import onnx
    import onnxruntime

    del signature  # a graph has one entry
    graph = onnx.load(model)
    kept = {output.name for output in graph.graph.output}
    names = [name for node in graph.graph.node for name in node.output if name]
    graph.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in kept)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # fused nodes have no outputs
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    given = {
        port.name: inputs[port.name].astype(np.int64 if port.type == "tensor(int64)" else inputs[port.name].dtype)
        for port in session.get_inputs()
    }
    values = dict(zip(names, session.run(names, given), strict=True))
    return {name: np.asarray(value, np.float32) for name, value in values.items() if value.dtype.kind == "f"}


_COLLECT = {"coreml": _coreml, "litert": _tflite, "litert-compiled": _tflite, "onnxruntime": _onnx}


if __name__ == "__main__":
    main(sys.argv[1])

"""ONNX float32 → float16: weights and arithmetic, with inputs and outputs as they were."""

from typing import Any

from onnx import TensorProto, numpy_helper

from edgekit.export.float16 import check_range


def to_float16(model: Any) -> Any:
    """Return `model` with float16 weights and arithmetic, by ONNX Runtime's own converter.

    Raises RefusedError where a weight lies beyond ±65504: the converter would clip it and say nothing.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    for initializer in model.graph.initializer:
        if initializer.data_type == TensorProto.FLOAT:
            check_range(initializer.name, numpy_helper.to_array(initializer))
    converted = convert_float_to_float16(model, keep_io_types=True)
    OnnxModel.graph_topological_sort(converted.graph)  # onnxruntime 1.31 puts casts behind the nodes that need them
    return converted

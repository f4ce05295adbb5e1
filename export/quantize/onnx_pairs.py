"""int8 weights of dynamically quantized ONNX products whose sums fit every x86 processor's arithmetic.

Without VNNI, x86 adds two neighbouring products of uint8 activations and int8 weights in 16 bits, which saturate.
onnxruntime's `reduce_range` avoids it by 7 bits for all weights; here each column's step is just so large that no two
neighbours' sum can be too large, which for most columns costs half a bit. Tried with onnxruntime 1.31 on an emulated
processor with AVX2 alone (qemu-x86_64 -cpu max): sums of weights of full 8 bits are wrong there, of these exact.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import numpy_helper

from edgekit.export.quantize.evidence import Floats

#: the largest sum of two neighbours of one sign: rounded, it is at most 128, and 255 · 128 < 2 ** 15
PAIR = 127


def fit_pairs(model: Any, floats: dict[str, Floats]) -> None:
    """Quantize the matrices of MatMulInteger anew, in place; `floats` are the float32 ones by name."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        name = node.input[1].removesuffix("_quantized") if node.op_type == "MatMulInteger" else ""
        if name in floats and floats[name].ndim == 2:
            step = pair_steps(floats[name])
            values = np.rint(floats[name] / step).astype(np.int8)
            for tensor, content in ((f"{name}_quantized", values), (f"{name}_scale", step)):
                constants[tensor].CopyFrom(numpy_helper.from_array(content, tensor))


def pair_steps(matrix: Floats) -> Floats:
    """The step of each column of a matrix [inputs, outputs]."""
    even = np.pad(matrix, ((0, matrix.shape[0] % 2), (0, 0))).reshape(-1, 2, matrix.shape[1])
    first, second = even[:, 0], even[:, 1]
    sums: NDArray[Any] = np.where(first * second > 0, np.abs(first + second), 0)
    largest = np.maximum(np.max(sums, axis=0), np.max(np.abs(matrix), axis=0))
    return np.asarray(np.where(largest > 0, largest / PAIR, 1), np.float32)

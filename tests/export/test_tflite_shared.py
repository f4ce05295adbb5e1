"""What quantized TFLite files keep once, or apart: scales of a table's rows, and the beginning of a constant."""

from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from ai_edge_litert.tools import flatbuffer_utils

from edgekit.export.quantize.tflite_rows import row_scales, scale_rows_apart
from edgekit.export.quantize.tflite_signatures import share_parts
from edgekit.export.quantize.tflite_weights import quantized_weights
from edgekit.export.tflite_writer import write_model
from tests.export.hand_made import Op, write_tflite

_F, _I = "float32", "int32"
ROWS, WIDTH = 9, 16
POSITIONS = np.random.default_rng(2).normal(size=(1, 128, WIDTH)).astype(np.float32)
LENGTHS = {"short": 72, "long": 128}


def looked_up(path: Path) -> Path:
    """A table of int8 with a scale for each row, and the rows that are asked for."""
    write_tflite(
        path, {"x": (_I, (4,)), "table": ("int8", (ROWS, WIDTH)), "y": (_F, (4, WIDTH))},
        [Op(kind="EMBEDDING_LOOKUP", inputs=["x", "table"], outputs=["y"])], inputs=["x"], outputs=["y"],
        constants={"table": np.random.default_rng(1).integers(-127, 128, (ROWS, WIDTH))},
    )  # fmt: skip
    model = flatbuffer_utils.read_model(str(path))
    scales = schema.QuantizationParametersT()
    scales.scale, scales.zeroPoint = np.linspace(0.01, 0.3, ROWS, dtype=np.float32), np.zeros(ROWS, np.int64)
    model.subgraphs[0].tensors[1].quantization = scales
    model.operatorCodes[0].version = 3  # the first that reads int8
    write_model(path, model)
    return path


def of_two_lengths(folder: Path, beginning: bool) -> Path:
    """Positions are added to what comes in, at each of two lengths; the shorter's begin the longer's, or not."""
    model: Any = None
    for name, length in LENGTHS.items():
        positions = POSITIONS[:, :length] if beginning else POSITIONS[:, -length:]
        shape = (1, length, WIDTH)
        path = write_tflite(
            folder / f"{name}.tflite", {"x": (_F, shape), "positions": (_F, shape), "y": (_F, shape)},
            [Op(kind="ADD", inputs=["x", "positions"], outputs=["y"])], inputs=["x"], outputs=["y"],
            constants={"positions": positions},
        )  # fmt: skip
        read = flatbuffer_utils.read_model(str(path))
        read.signatureDefs[0].signatureKey = name.encode()
        if model is None:
            model = read
            continue
        read.signatureDefs[0].subgraphIndex, read.subgraphs[0].tensors[1].buffer = 1, len(model.buffers)
        model.buffers.append(read.buffers[1])
        model.subgraphs.append(read.subgraphs[0])
        model.signatureDefs.append(read.signatureDefs[0])
    write_model(folder / "both.tflite", model)
    return folder / "both.tflite"


def answers(path: Path) -> list[Any]:
    interpreter = Interpreter(str(path))
    found = []
    for name in sorted(interpreter.get_signature_list()):
        runner = interpreter.get_signature_runner(name)
        (port,) = runner.get_input_details().values()
        values = np.arange(np.prod(port["shape"])).reshape(port["shape"]) % ROWS
        found.append(runner(x=values.astype(port["dtype"]))["y"].copy())
    return found


def test_scales_of_rows_are_a_table_of_their_own_and_the_answers_the_same(tmp_path: Path) -> None:
    path = looked_up(tmp_path / "rows.tflite")
    wanted, (weight,) = answers(path), quantized_weights(path).values()
    values, step = weight.values.copy(), weight.step.copy()  # of a file that is mapped, and written anew
    share_parts(path)
    np.testing.assert_array_equal(answers(path), wanted)
    model = flatbuffer_utils.read_model(str(path))
    table = model.subgraphs[0].tensors[1]
    assert len(table.quantization.scale) == 1
    assert row_scales(model, model.subgraphs[0], table) is not None
    (stored,) = quantized_weights(path).values()
    np.testing.assert_array_equal(stored.values, values)
    np.testing.assert_array_equal(stored.step, step)


def test_a_table_that_a_product_reads_keeps_its_scales(tmp_path: Path) -> None:
    path = looked_up(tmp_path / "rows.tflite")
    model = flatbuffer_utils.read_model(str(path))
    product = schema.OperatorT()
    product.opcodeIndex, product.inputs, product.outputs = 1, [2, 1], [0]
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.FULLY_CONNECTED
    model.operatorCodes.append(code)
    model.subgraphs[0].operators.append(product)
    scale_rows_apart(model)
    assert len(model.subgraphs[0].tensors[1].quantization.scale) == ROWS
    assert len(model.subgraphs[0].operators) == 2


def test_the_longest_length_is_joined_of_the_shorter_and_the_rest(tmp_path: Path) -> None:
    path = of_two_lengths(tmp_path, beginning=True)
    before, wanted = path.stat().st_size, answers(path)
    share_parts(path)
    for answer, expected in zip(answers(path), wanted, strict=True):
        np.testing.assert_array_equal(answer, expected)
    assert before - path.stat().st_size > POSITIONS[:, : LENGTHS["short"]].nbytes - 500


def test_constants_that_begin_otherwise_stay_apart(tmp_path: Path) -> None:
    path = of_two_lengths(tmp_path, beginning=False)
    wanted = answers(path)
    share_parts(path)
    for answer, expected in zip(answers(path), wanted, strict=True):
        np.testing.assert_array_equal(answer, expected)
    assert [len(graph.operators) for graph in flatbuffer_utils.read_model(str(path)).subgraphs] == [1, 1]

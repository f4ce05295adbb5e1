"""Norms and attention as converters write them, in fewer operators: the same answers, and what must stay as it is."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from ai_edge_litert.tools import flatbuffer_utils

from edgekit.export.tflite_simplify import simplify
from edgekit.export.tflite_writer import write_model
from tests.export.hand_made import Op, write_tflite

Made = dict[str, Any]
_F, _I = "float32", "int32"
#: as litert-converter writes a norm: x · r + (0 − r · mean)
NORM: Made = {
    "tensors": {"x": (_F, (1, 3, 4)), "axes": (_I, (1,)), "mean": (_F, (1, 3, 1)), "squares": (_F, (1, 3, 4)),
                "variance": (_F, (1, 3, 1)), "eps": (_F, ()), "more": (_F, (1, 3, 1)), "r": (_F, (1, 3, 1)),
                "shift": (_F, (1, 3, 1)), "zero": (_F, ()), "negated": (_F, (1, 3, 1)), "scaled": (_F, (1, 3, 4)),
                "y": (_F, (1, 3, 4))},
    "constants": {"axes": [2], "eps": 1e-6, "zero": 0.0},
    "ops": [Op(kind="MEAN", inputs=["x", "axes"], outputs=["mean"]),
            Op(kind="SQUARED_DIFFERENCE", inputs=["x", "mean"], outputs=["squares"]),
            Op(kind="MEAN", inputs=["squares", "axes"], outputs=["variance"]),
            Op(kind="ADD", inputs=["variance", "eps"], outputs=["more"]),
            Op(kind="RSQRT", inputs=["more"], outputs=["r"]),
            Op(kind="MUL", inputs=["r", "mean"], outputs=["shift"]),
            Op(kind="SUB", inputs=["zero", "shift"], outputs=["negated"]),
            Op(kind="MUL", inputs=["x", "r"], outputs=["scaled"]),
            Op(kind="ADD", inputs=["scaled", "negated"], outputs=["y"])],
}  # fmt: skip
#: scores of attention: queries times keys, divided by the root of the head's size
SCORES: Made = {
    "tensors": {"x": (_F, (3, 4)), "w": (_F, (4, 4)), "b": (_F, (4,)), "q": (_F, (3, 4)), "k": (_F, (3, 4)),
                "split": (_I, (4,)), "heads": (_F, (1, 3, 2, 2)), "keys": (_F, (1, 3, 2, 2)), "turn": (_I, (4,)),
                "turned": (_F, (1, 2, 3, 2)), "over": (_I, (4,)), "keys_t": (_F, (1, 2, 2, 3)),
                "scores": (_F, (1, 2, 3, 3)), "scale": (_F, ()), "scaled": (_F, (1, 2, 3, 3)), "y": (_F, (1, 2, 3, 3))},
    "constants": {"w": np.arange(16).reshape(4, 4) / 9 - 1, "b": [0.5, -1, 2, 0], "split": [1, 3, 2, 2],
                  "turn": [0, 2, 1, 3], "over": [0, 2, 3, 1], "scale": 0.3},
    "ops": [Op(kind="FULLY_CONNECTED", inputs=["x", "w", "b"], outputs=["q"]),
            Op(kind="FULLY_CONNECTED", inputs=["x", "w", "b"], outputs=["k"]),
            Op(kind="RESHAPE", inputs=["q", "split"], outputs=["heads"]),
            Op(kind="TRANSPOSE", inputs=["heads", "turn"], outputs=["turned"]),
            Op(kind="RESHAPE", inputs=["k", "split"], outputs=["keys"]),
            Op(kind="TRANSPOSE", inputs=["keys", "over"], outputs=["keys_t"]),
            Op(kind="BATCH_MATMUL", inputs=["turned", "keys_t"], outputs=["scores"]),
            Op(kind="MUL", inputs=["scores", "scale"], outputs=["scaled"]),
            Op(kind="SOFTMAX", inputs=["scaled"], outputs=["y"])],
}  # fmt: skip
#: as above, where the shift is not that of a norm
OTHER_SHIFT = NORM | {"constants": NORM["constants"] | {"zero": 1.0}}
#: as above, where the queries are read by others too
SEEN_QUERIES = SCORES | {"outputs": ["y", "q"]}


def written(path: Path, made: Made) -> Path:
    """A file of the graph, whose means keep the axis that they are taken over."""
    outputs = made.get("outputs", ["y"])
    write_tflite(path, made["tensors"], made["ops"], inputs=["x"], outputs=outputs, constants=made["constants"])
    model = flatbuffer_utils.read_model(str(path))
    for operator in model.subgraphs[0].operators:
        if model.operatorCodes[operator.opcodeIndex].builtinCode == schema.BuiltinOperator.MEAN:
            operator.builtinOptionsType = schema.BuiltinOptions.ReducerOptions
            operator.builtinOptions = schema.ReducerOptionsT()
            operator.builtinOptions.keepDims = True
    write_model(path, model)
    return path


def run(path: Path) -> list[Any]:
    runner = Interpreter(str(path)).get_signature_runner()
    (port,) = runner.get_input_details().values()
    return list(runner(x=np.random.default_rng(1).normal(3, 2, port["shape"]).astype(np.float32)).values())


def kinds(path: Path) -> Counter[str]:
    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    model = flatbuffer_utils.read_model(str(path))
    codes = [names[code.builtinCode] for code in model.operatorCodes]
    return Counter(codes[operator.opcodeIndex] for operator in model.subgraphs[0].operators)


@pytest.mark.parametrize(
    ("made", "fewer"), [(NORM, {"MUL": 1, "ADD": 1}), (SCORES, {"MUL": 1})], ids=["norm", "attention"]
)
def test_fewer_operators_give_the_same(made: Made, fewer: dict[str, int], tmp_path: Path) -> None:
    path = written(tmp_path / "made.tflite", made)
    before, answers = kinds(path), run(path)
    simplify(path)
    assert before - kinds(path) == Counter(fewer)
    for answer, wanted in zip(run(path), answers, strict=True):
        np.testing.assert_allclose(answer, wanted, atol=2e-6)


@pytest.mark.parametrize("made", [OTHER_SHIFT, SEEN_QUERIES], ids=["another shift", "queries that are seen"])
def test_what_only_looks_alike_stays(made: Made, tmp_path: Path) -> None:
    path = written(tmp_path / "made.tflite", made)
    before, answers = kinds(path), run(path)
    simplify(path)
    assert kinds(path) == before
    for answer, wanted in zip(run(path), answers, strict=True):
        np.testing.assert_allclose(answer, wanted, atol=2e-6)

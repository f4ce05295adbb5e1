"""What is left out of TFLite files: hand-made graphs of what converters write, and what must stay as it is."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from ai_edge_litert.tools import flatbuffer_utils

from edgekit.export.describe import describe_file
from edgekit.export.tflite_simplify import simplify
from tests.export.hand_made import Op, write_tflite

Made = dict[str, Any]
_F, _I, _B = "float32", "int32", "bool"
#: the mean of rows, and the rows without it, as litert-converter writes norms
NORM: Made = {
    "tensors": {"x": (_F, (1, 3, 4)), "axes": (_I, (1,)), "mean": (_F, (3,)), "eps": (_F, ()), "more": (_F, (3,)),
                "to": (_I, (3,)), "wide": (_F, (1, 3, 1)), "y": (_F, (1, 3, 4))},
    "constants": {"axes": [2], "eps": 0.5, "to": [1, 3, 1]},
    "ops": [Op(kind="MEAN", inputs=["x", "axes"], outputs=["mean"]),
            Op(kind="ADD", inputs=["mean", "eps"], outputs=["more"]),
            Op(kind="RESHAPE", inputs=["more", "to"], outputs=["wide"]),
            Op(kind="SUB", inputs=["x", "wide"], outputs=["y"])],
}  # fmt: skip
#: scores of two heads, masked: transformers lets every token see "all, and those that are no padding"
ATTENTION: Made = {
    "tensors": {"x": (_F, (1, 2, 3, 4)), "mask": (_I, (1, 3)), "seen": (_B, (1, 3)), "where": (_I, (1, 1, 1, 3, 2)),
                "row": (_B, (1, 1, 1, 3)), "all": (_B, (1, 1, 3, 1)), "table": (_B, (1, 1, 3, 3)), "zero": (_F, ()),
                "low": (_F, ()), "added": (_F, (1, 1, 3, 3)), "flat": (_I, (3,)), "heads": (_F, (2, 3, 4)),
                "turned": (_I, (4,)), "order": (_F, (1, 2, 4, 3)), "flat_t": (_I, (3,)), "keys": (_F, (2, 4, 3)),
                "scores": (_F, (2, 3, 3)), "scale": (_F, ()), "scaled": (_F, (2, 3, 3)), "y": (_F, (1, 2, 3, 3))},
    "constants": {"where": [[[[[0, 0], [0, 1], [0, 2]]]]], "all": np.ones((1, 1, 3, 1)), "zero": 0.0, "low": -1e4,
                  "flat": [2, 3, 4], "turned": [0, 1, 3, 2], "flat_t": [2, 4, 3], "scale": 0.25},
    "ops": [Op(kind="CAST", inputs=["mask"], outputs=["seen"]),
            Op(kind="GATHER_ND", inputs=["seen", "where"], outputs=["row"]),
            Op(kind="LOGICAL_AND", inputs=["all", "row"], outputs=["table"]),
            Op(kind="SELECT_V2", inputs=["table", "zero", "low"], outputs=["added"]),
            Op(kind="RESHAPE", inputs=["x", "flat"], outputs=["heads"]),
            Op(kind="TRANSPOSE", inputs=["x", "turned"], outputs=["order"]),
            Op(kind="RESHAPE", inputs=["order", "flat_t"], outputs=["keys"]),
            Op(kind="BATCH_MATMUL", inputs=["heads", "keys"], outputs=["scores"]),
            Op(kind="MUL", inputs=["scores", "scale"], outputs=["scaled"]),
            Op(kind="ADD", inputs=["scaled", "added"], outputs=["y"])],
}  # fmt: skip
#: embeddings of positions and of the type of token
SUMS: Made = {
    "tensors": {"x": (_F, (1, 3, 4)), "a": (_F, (1, 3, 4)), "b": (_F, (4,)), "first": (_F, (1, 3, 4)),
                "y": (_F, (1, 3, 4))},
    "constants": {"a": np.arange(12).reshape(1, 3, 4), "b": [1.5, -2, 3, 0]},
    "ops": [Op(kind="ADD", inputs=["x", "a"], outputs=["first"]), Op(kind="ADD", inputs=["first", "b"], outputs=["y"])],
}  # fmt: skip
#: as above, where the file gives what lies between
SEEN_SUMS = SUMS | {"outputs": ["y", "first"]}
#: a mask that differs by token: what comes before is seen
CAUSAL = ATTENTION | {
    "tensors": ATTENTION["tensors"] | {"all": (_B, (1, 1, 3, 3))},
    "constants": ATTENTION["constants"] | {"all": np.tril(np.ones((1, 1, 3, 3)))},
}
#: a mean that is read as it is, too
BARE_MEAN = NORM | {"outputs": ["y", "mean"]}


def written(path: Path, made: Made) -> Path:
    inputs = [name for name in ("x", "mask") if name in made["tensors"]]
    return write_tflite(
        path, made["tensors"], made["ops"], inputs=inputs, outputs=made.get("outputs", ["y"]),
        constants=made["constants"],
    )  # fmt: skip


def run(path: Path) -> Mapping[str, Any]:
    runner = Interpreter(str(path)).get_signature_runner()
    given = np.random.default_rng(1)
    inputs = {}
    for name, port in runner.get_input_details().items():
        values = (
            given.normal(size=port["shape"]) if name == "x" else np.arange(np.prod(port["shape"])).reshape(1, -1) % 3
        )
        inputs[name] = values.astype(port["dtype"])
    found: Mapping[str, Any] = runner(**inputs)
    return found


@pytest.mark.parametrize(
    ("made", "left_out"),
    [
        (NORM, {"RESHAPE": 1}),
        (ATTENTION, {"GATHER_ND": 1, "LOGICAL_AND": 1, "RESHAPE": 1}),  # two reshapes less, one for GATHER_ND
        (SUMS, {"ADD": 1}),
        (SEEN_SUMS, {}),
        (CAUSAL, {"GATHER_ND": 1, "RESHAPE": 1}),
        (BARE_MEAN, {}),
    ],
    ids=["norm", "attention", "sums", "seen-sums", "causal", "bare-mean"],
)
def test_the_same_numbers_in_fewer_operators(made: Made, left_out: dict[str, int], tmp_path: Path) -> None:
    path = written(tmp_path / "model.tflite", made)
    before, operators = run(path), Counter(describe_file(path).operators)
    simplify(path)
    after = run(path)
    assert before.keys() == after.keys()
    for name in before:
        np.testing.assert_allclose(after[name], before[name], rtol=1e-6)
    assert operators - Counter(describe_file(path).operators) == Counter(left_out)


def test_kinds_of_operators_that_are_left_out_are_not_declared(tmp_path: Path) -> None:
    """Old runtimes refuse a file that declares a version which they have not, whether it is used or not."""
    path = written(tmp_path / "model.tflite", ATTENTION)
    simplify(path)
    codes = flatbuffer_utils.read_model(str(path)).operatorCodes
    assert len(codes) == len(Counter(describe_file(path).operators))

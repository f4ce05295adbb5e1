"""Tables in float16 files: their rows are unpacked, never the whole table."""

import copy
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from ai_edge_litert.tools import flatbuffer_utils

from edgekit.export.describe import describe_file
from edgekit.export.tflite_float16 import store_as_float16
from edgekit.export.tflite_writer import serialize
from tests.export.hand_made import Op, write_tflite

TABLE = np.random.default_rng(1).normal(size=(50, 8)).astype(np.float32)
TENSORS = {"ids": ("int32", (3,)), "table": ("float32", TABLE.shape), "rows": ("float32", (3, 8))}
LOOKUP = Op(kind="EMBEDDING_LOOKUP", inputs=["ids", "table"], outputs=["rows"])
GATHER = Op(kind="GATHER", inputs=["table", "ids"], outputs=["rows"])


@pytest.mark.parametrize("reader", [LOOKUP, GATHER], ids=["lookup", "gather"])
def test_rows_of_a_table_are_unpacked_and_not_the_table(reader: Op, tmp_path: Path) -> None:
    ends = {"inputs": ["ids"], "outputs": ["rows"], "constants": {"table": TABLE}}
    source = twice(write_tflite(tmp_path / "float32.tflite", TENSORS, [reader], **ends))
    half = tmp_path / "float16.tflite"
    store_as_float16(source, half)
    runner = Interpreter(str(half)).get_signature_runner()
    (rows,) = runner(ids=np.array([4, 0, 49], np.int32)).values()
    np.testing.assert_array_equal(rows, TABLE[[4, 0, 49]].astype(np.float16).astype(np.float32))
    assert describe_file(half).largest[0].dtype == "float16"
    assert _computed_of(half, TABLE.size) == []


def test_a_table_that_a_product_reads_too_is_unpacked_for_it(tmp_path: Path) -> None:
    tensors = TENSORS | {"scores": ("float32", (3, 50))}
    product = Op(kind="FULLY_CONNECTED", inputs=["rows", "table"], outputs=["scores"])
    ends = {"inputs": ["ids"], "outputs": ["scores"], "constants": {"table": TABLE}}
    half = tmp_path / "float16.tflite"
    store_as_float16(twice(write_tflite(tmp_path / "float32.tflite", tensors, [LOOKUP, product], **ends)), half)
    (scores,) = Interpreter(str(half)).get_signature_runner()(ids=np.array([4, 0, 49], np.int32)).values()
    halves = TABLE.astype(np.float16).astype(np.float32)
    np.testing.assert_allclose(scores, halves[[4, 0, 49]] @ halves.T, rtol=1e-4, atol=1e-5)
    assert len(_computed_of(half, TABLE.size)) == 1


def test_what_compilers_are_given_unpacks_its_table_once(tmp_path: Path) -> None:
    """One signature: no operator that NPUs lack."""
    ends = {"inputs": ["ids"], "outputs": ["rows"], "constants": {"table": TABLE}}
    half = tmp_path / "float16.tflite"
    store_as_float16(write_tflite(tmp_path / "float32.tflite", TENSORS, [GATHER], **ends), half)
    assert dict(describe_file(half).operators) == {"DEQUANTIZE": 1, "GATHER": 1}
    assert len(_computed_of(half, TABLE.size)) == 1


def twice(path: Path) -> Path:
    """The file with its graph a second time, as a file of two signatures has it."""
    model = flatbuffer_utils.read_model(str(path))
    model.subgraphs.append(copy.deepcopy(model.subgraphs[0]))
    path.write_bytes(serialize(model))
    return path


def _computed_of(path: Path, size: int) -> list[str]:
    """The tensors of so many values that the file's first graph computes."""
    graph = flatbuffer_utils.read_model(str(path)).subgraphs[0]
    outputs = [graph.tensors[index] for operator in graph.operators for index in operator.outputs]
    return [tensor.name.decode() for tensor in outputs if np.prod(tensor.shape) == size]

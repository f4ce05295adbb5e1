"""What is written of a TFLite model: aligned, with equal parts once, and the same when it is read again."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.tools import flatbuffer_utils

from edgekit.export.tflite_edit import add_buffer
from edgekit.export.tflite_writer import serialize
from tests.export.hand_made import Op, write_tflite

_F, INT32 = "float32", 2


def model_of(folder: Path, count: int) -> Any:
    """A row of additions, and a second constant of the same values that is not known to be the same."""
    names = [f"between_{place}" for place in range(count)]
    tensors = dict.fromkeys(["x", "one", "same", *names], (_F, (1, 64)))
    pairs = zip(["x", *names], names, strict=False)
    ops = [Op(kind="ADD", inputs=[before, "one"], outputs=[after]) for before, after in pairs]
    constants = {"one": np.ones((1, 64)), "same": np.ones((1, 64))}
    path = write_tflite(folder / "made.tflite", tensors, ops, inputs=["x"], outputs=names[-1:], constants=constants)
    return flatbuffer_utils.read_model(str(path))


def equal(one: Any, other: Any) -> bool:
    """Whether two parts of models are the same, with all that they hold."""
    if hasattr(one, "__dict__"):
        return type(one) is type(other) and all(equal(value, vars(other)[key]) for key, value in vars(one).items())
    if isinstance(one, list):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(np.array_equal(one, other))


def test_equal_parts_are_written_once_and_read_as_they_were(tmp_path: Path) -> None:
    model = model_of(tmp_path, 20)
    written = serialize(model)
    assert written.count(np.ones(64, np.float32).tobytes()) == 1
    assert equal(flatbuffer_utils.read_model_from_bytearray(bytearray(written)), model)


def test_signatures_share_their_operators(tmp_path: Path) -> None:
    """20 operators take 40 bytes each; of a signature with other tensors, only the list of them is left, of 4 each."""
    model = model_of(tmp_path, 20)
    other = copy.deepcopy(model.subgraphs[0])
    model.subgraphs.append(other)
    same = len(serialize(model))
    for tensor in other.tensors:
        tensor.type = INT32
    assert len(serialize(model)) - same < len(other.tensors) * 32 + 100


def test_buffers_are_on_multiples_of_16(tmp_path: Path) -> None:
    model = model_of(tmp_path, 1)
    values = [np.arange(size, dtype=np.int8) + 1 for size in (17, 31, 33)]
    for each in values:
        add_buffer(model, each)
    written = serialize(model)
    assert [written.index(each.tobytes()) % 16 for each in values] == [0, 0, 0]

"""Outlier channels, as trained encoders have them: what int8 makes of them, with and without what balances them."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from ai_edge_litert.tools import flatbuffer_utils
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from edgekit.export import to_onnx, to_tflite
from edgekit.export.describe import describe_file
from edgekit.export.quantize import balance, for_onnx, for_tflite, tflite_weights
from edgekit.export.quantize.mixture import Mixture
from edgekit.export.quantize.tflite_norms import unfold_norms
from edgekit.export.tflite_writer import serialize
from edgekit.program import Program, Signature, TensorSpec
from edgekit.proof.golden import Golden, Step, write_golden
from edgekit.proof.replay import replay_steps

LENGTH, WIDTH = 12, 32


class PostNorm(nn.Module):
    """A block as BERT has it: the norm's output is read by a product and by the residual sum; one channel is large."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.up, self.down, self.last = nn.Linear(WIDTH, 96), nn.Linear(96, WIDTH), nn.Linear(WIDTH, 16)
        with torch.no_grad():
            self.first.weight.copy_(torch.linspace(0.02, 2, WIDTH))
            self.first.bias.normal_()
            self.down.weight[3] *= 300

    def forward(self, x: Tensor) -> Tensor:
        """[1, LENGTH, WIDTH] → [1, 16]"""
        x = self.first(x)
        x = self.second(x + self.down(nn.functional.gelu(self.up(x))))
        return self.last(x).mean(1)


class Made:
    """The block as float32 files, and what PyTorch answers to some inputs."""

    def __init__(self, folder: Path) -> None:
        torch.manual_seed(0)
        self.folder, self.module = folder, PostNorm().eval()
        # Before the converters, which draw random numbers of their own.
        self.inputs = torch.randn(40, LENGTH, WIDTH)
        given = TensorSpec(name="x", dtype="float32", shape=(1, LENGTH, WIDTH))
        output = TensorSpec(name="embedding", dtype="float32", shape=(1, 16))
        signature = Signature(name="serve", method="forward", inputs=(given,), outputs=(output,))
        program = Program(framework="torch", module=self.module, signatures=(signature,))
        self.tflite, self.onnx = folder / "block.tflite", folder / "block.onnx"
        to_tflite.convert(program, self.tflite)
        to_onnx.convert(program, self.onnx)
        # Calibration sees the steps too: what lies beyond the ranges of other inputs would hide what is compared here.
        self.calibration, self.steps = self._write("calibration", 0, 40), self._write("steps", 20, 40)

    def _write(self, name: str, first: int, last: int) -> Path:
        steps = tuple(Step(signature="serve", inputs={"x": x[None].numpy()}) for x in self.inputs[first:last])
        write_golden(self.folder / f"{name}.npz", Golden(steps=steps, labels=np.full(len(steps), -1, np.int32)))
        return self.folder / f"{name}.npz"

    def error(self, path: Path, runtime: str) -> float:
        """The mean of 1 - cosine with PyTorch."""
        with torch.inference_mode():
            own = self.module(self.inputs[20:]).numpy()
        found = np.concatenate([s.outputs["embedding"] for s in replay_steps(path, runtime, self.steps).produced.steps])
        return float(np.mean(1 - np.sum(own * found, 1) / np.linalg.norm(own, axis=1) / np.linalg.norm(found, axis=1)))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("outliers"))


def test_norms_that_the_converter_folded_are_unfolded(made: Made, tmp_path: Path) -> None:
    model = flatbuffer_utils.read_model(str(made.tflite))
    assert unfold_norms(model)
    path = tmp_path / "unfolded.tflite"
    path.write_bytes(serialize(model))
    up = made.module.up.weight.detach().numpy()
    assert not has_matrix(made.tflite, up)
    assert has_matrix(path, up)
    assert made.error(path, "litert") < 1e-10
    assert path.stat().st_size < 1.02 * made.tflite.stat().st_size


def has_matrix(path: Path, matrix: NDArray[np.float32]) -> bool:
    found = tflite_weights.float_weights(path).values()
    return any(each.shape == matrix.shape and np.allclose(each, matrix, rtol=1e-4, atol=1e-6) for each in found)


def test_int8_in_tflite_bears_outliers(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, plain = tmp_path / "balanced.tflite", tmp_path / "plain.tflite"
    evidence = for_tflite.compress(made.tflite, path, Mixture(scheme="int8"), made.calibration)
    assert evidence is not None
    assert evidence.quantized_elements >= 0.95 * evidence.matrix_elements
    assert describe_file(path).operators["QUANTIZE"] >= 3
    monkeypatch.setattr(balance, "OUTLIERS", np.inf)
    for_tflite.compress(made.tflite, plain, Mixture(scheme="int8"), made.calibration)
    assert made.error(path, "litert") < 0.002
    assert made.error(path, "litert") < made.error(plain, "litert") / 10


@pytest.mark.parametrize("scheme", ["int8-dynamic", "int8"])
def test_onnx_bears_outliers_that_texts_show(made: Made, tmp_path: Path, scheme: str) -> None:
    path, plain = tmp_path / "balanced.onnx", tmp_path / "plain.onnx"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(balance, "OUTLIERS", np.inf)
        for_onnx.compress(made.onnx, plain, Mixture(scheme=scheme), made.calibration)
    evidence = for_onnx.compress(made.onnx, path, Mixture(scheme=scheme), made.calibration)
    assert evidence is not None
    assert evidence.quantized_elements == evidence.matrix_elements
    assert made.error(path, "onnxruntime") < 0.002
    assert made.error(path, "onnxruntime") < made.error(plain, "onnxruntime") / 2


def test_without_outliers_nothing_is_balanced(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(balance, "OUTLIERS", np.inf)
    given, none = tmp_path / "given.onnx", tmp_path / "none.onnx"
    for_onnx.compress(made.onnx, given, Mixture(scheme="int8-dynamic"), made.calibration)
    for_onnx.compress(made.onnx, none, Mixture(scheme="int8-dynamic"), None)
    assert given.read_bytes() == none.read_bytes()


def test_no_two_neighbours_overflow_sums_of_16_bits(made: Made, tmp_path: Path) -> None:
    path = tmp_path / "dynamic.onnx"
    for_onnx.compress(made.onnx, path, Mixture(scheme="int8-dynamic"), None)
    matrices = [numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer if t.name.endswith("_quantized")]
    assert matrices
    for matrix in matrices:
        sums = matrix.reshape(-1, 2, matrix.shape[1]).astype(int).sum(axis=1)
        assert np.max(np.abs(sums)) <= 128  # 255 · 128 < 2 ** 15
        assert np.max(np.abs(matrix)) > 64  # more than the 7 bits that would do for any neighbours

"""The user's own functions, .keras files and SavedModels through the command line; what is refused, and why."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from edgekit.bundle import open_bundle
from edgekit.errors import RefusedError
from edgekit.export.snippets import python_snippet
from edgekit.sources.factory import parse_input
from edgekit.sources.files import file_source
from tests.export.test_huggingface import edgekit, refuses

TORCH = """
import torch
from torch import nn


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(50, 8)
        self.out = nn.Linear(8, 3)

    def forward(self, ids, mask):
        hidden = self.embed(ids) * mask.unsqueeze(-1)
        return {"scores": self.out(hidden.sum(1)), "nothing": None, "parts": (hidden, hidden.argmax(-1))}


class Strict(Pair):
    def forward(self, ids, mask):
        assert ids.dtype == torch.int64
        return super().forward(ids, mask)["scores"]


class Choosing(Pair):
    def forward(self, ids, mask):
        if mask.sum() > 3:
            return self.out(self.embed(ids)).sum(1)
        return self.out(self.embed(ids)).mean(1)


class Bessel(Pair):
    def forward(self, ids, mask):
        return torch.special.bessel_j0(self.out(self.embed(ids)))


def broken():
    raise ValueError("no weights here")
"""
KERAS = """
import keras


def make():
    ids = keras.Input((6,), dtype="int32", name="ids")
    hidden = keras.layers.Embedding(30, 8)(ids)
    return keras.Model(ids, keras.layers.Dense(2, name="scores")(keras.layers.GlobalAveragePooling1D()(hidden)))
"""
IDS = ("--input", "ids:int32[1,6]", "--input", "mask:int32[1,6]")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "models.py").write_text(TORCH)
    (tmp_path / "mine" / "layers.py").write_text(KERAS)
    return tmp_path


def test_a_torch_function_with_a_dictionary_of_outputs(folder: Path) -> None:
    edgekit("export", "mine.models:Pair", *IDS, "--target", "onnx", "--quantize", "none,fp16", cwd=folder)
    bundle = open_bundle(folder / "bundles" / "mine.models.Pair.onnx-none.edgekit")
    found = {spec.name: (spec.dtype, spec.shape) for spec in bundle.manifest.signatures[0].outputs}
    assert found == {
        "scores": ("float32", (1, 3)),
        "parts_0": ("float32", (1, 6, 8)),
        "parts_1": ("int32", (1, 6)),
    }
    assert bundle.manifest.proven
    assert bundle.manifest.golden_texts == "random inputs drawn by edgekit"
    command = [sys.executable, "-c", python_snippet(bundle.path)]
    assert "scores (1, 3) float32" in subprocess.check_output(command, cwd=bundle.path, text=True)


def test_inputs_of_64_bits_are_taken_as_32(folder: Path) -> None:
    inputs = ("--input", "ids:int64[1,6]", "--input", "mask:int32[1,6]")
    edgekit("export", "mine.models:Strict", *inputs, "--target", "onnx", cwd=folder)
    bundle = open_bundle(folder / "bundles" / "mine.models.Strict.onnx-none.edgekit")
    assert {spec.dtype for spec in bundle.manifest.signatures[0].inputs} == {"int32"}
    assert bundle.manifest.proven


def test_what_a_function_can_do_wrong(folder: Path) -> None:
    refuses("mine.models:Pair", cwd=folder, message="--input name:dtype[shape]")
    refuses("mine.models:Pair", "--input", "ids:int16[1]", cwd=folder, message="is not name:dtype[shape]")
    refuses("mine.gone:Pair", *IDS, cwd=folder, message="there is no module mine.gone")
    refuses("mine.models:broken", *IDS, "--target", "onnx", cwd=folder, message="ValueError: no weights here")


def test_an_unsupported_operation_is_named_with_its_module_and_line(folder: Path) -> None:
    line = next(i for i, text in enumerate(TORCH.splitlines(), 1) if "bessel" in text)
    argv = ("mine.models:Bessel", *IDS, "--target", "onnx")
    run = edgekit("export", *argv, cwd=folder, code=1)
    assert "special_bessel_j0" in run.stderr
    assert f"models.py:{line}" in run.stderr
    assert "instead" in run.stderr


def test_dynamic_control_flow_is_named_with_its_line(folder: Path) -> None:
    line = next(i for i, text in enumerate(TORCH.splitlines(), 1) if "if mask.sum()" in text)
    run = edgekit("export", "mine.models:Choosing", *IDS, "--target", "onnx", cwd=folder, code=1)
    assert f"models.py:{line}" in run.stderr
    assert "torch.where" in run.stderr


@pytest.mark.slow
def test_keras_functions_and_files(folder: Path) -> None:
    edgekit("export", "mine.layers:make", "--input", "ids:int32[1,6]", "--target", "tflite", cwd=folder)
    assert open_bundle(folder / "bundles" / "mine.layers.make.tflite-none-via-tensorflow.edgekit").manifest.proven
    code = "import sys; sys.path.insert(0, '.'); from mine.layers import make; m = make(); m.save('own.keras'); "
    code += "m.export('saved', verbose=False)"
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, capture_output=True)
    edgekit("export", "own.keras", "--target", "tflite", cwd=folder)
    assert open_bundle(folder / "bundles" / "own.tflite-none-via-tensorflow.edgekit").manifest.proven
    edgekit("export", "saved", "--target", "tflite", "--input", "ids:int32[1,6]", cwd=folder)
    assert open_bundle(folder / "bundles" / "saved.tflite-none-via-tensorflow.edgekit").manifest.proven
    refuses("own.keras", "--target", "pt2", cwd=folder, message="tensorflow's own")


def test_a_keras_file_with_code_is_refused_before_it_is_built(tmp_path: Path) -> None:
    for module, name in (("keras.layers", "Lambda"), ("os", "system"), ("builtins", "exec")):
        path = tmp_path / "evil.keras"
        config = {"module": "keras", "class_name": "Sequential", "config": {"layers": [{"module": module}]}}
        config["config"]["layers"][0] |= {"class_name": name, "config": {}}
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("config.json", json.dumps(config))
        with pytest.raises(RefusedError, match=rf"{module}\.{name}"):
            file_source(str(path), [])


@pytest.mark.parametrize("name", ["model.pt", "model.h5", "model.onnx", "model.tflite", "model.mlpackage"])
def test_files_without_a_kept_converter_are_refused_by_name(name: str) -> None:
    with pytest.raises(RefusedError, match="can't be exported"):
        file_source(name, [])


def test_an_input_as_typed() -> None:
    spec, dtype = parse_input("ids: int64[1, 128]")
    assert (spec.name, spec.dtype, spec.shape, dtype) == ("ids", "int32", (1, 128), "int64")

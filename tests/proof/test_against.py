"""`edgekit verify some.mlpackage --against MODEL`: packages that edgekit did not make."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from edgekit.export.coreml_torch import convert_torch_module
from edgekit.mil.evaluator import load_evaluator
from edgekit.mil.samples import random_inputs
from edgekit.sources.checkpoint import build_program
from tests.tiny import tiny_checkpoint

EDGEKIT = (sys.executable, "-P", "-m", "edgekit")


class Model(nn.Module):
    """Words and their places; float32, but for what is broken in it."""

    def __init__(self, offset: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words, self.places, self.head = nn.Embedding(50, 8), nn.Embedding(20, 8), nn.Linear(8, 3)
        self.offset = offset

    def forward(self, ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
        x = self.words(ids) + self.places(torch.arange(ids.shape[1]))
        pooled = (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return {"scores": self.head(pooled) + self.offset}


INPUTS = {"ids": torch.arange(12, dtype=torch.int32)[None], "mask": torch.ones(1, 12, dtype=torch.int32)}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One model as packages in float32, float16 and wrong, as .pt2 and as .onnx."""
    folder = tmp_path_factory.mktemp("against")
    for name, offset, precision in (("good", 0.0, "fp32"), ("half", 0.0, "fp16"), ("wrong", 0.01, "fp32")):
        made = convert_torch_module(Model(offset).eval(), INPUTS, precision=precision)  # type: ignore[arg-type]
        made.save(str(folder / f"{name}.mlpackage"))
    model = Model().eval()
    torch.export.save(torch.export.export(model, (), kwargs=INPUTS), folder / "model.pt2")
    torch.onnx.export(model, (), folder / "model.onnx", kwargs=INPUTS, output_names=["scores"], external_data=False)
    return folder


def verify(*argv: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*EDGEKIT, "verify", *map(str, argv)], capture_output=True, text=True, cwd=cwd, timeout=300, check=False
    )


def result(*argv: str | Path, cwd: Path) -> Any:
    run = verify(*argv, "--json", cwd=cwd)
    assert run.stdout, run.stderr
    found = json.loads(run.stdout)
    assert run.returncode == (0 if found["ok"] else 1)
    return found


@pytest.mark.parametrize("against", ["model.pt2", "model.onnx", "half.mlpackage"])
def test_a_package_beside_another_file(against: str, files: Path) -> None:
    found = result(
        "good.mlpackage", "--against", against, *(("--scheme", "fp16") if "half" in against else ()), cwd=files
    )
    assert found["ok"]
    assert found["calls"] == 4
    (output,) = found["outputs"]
    assert output["name"] == "scores"
    assert (output["max_abs_difference"] > 1e-5) is ("half" in against)


def test_a_package_in_float16_has_its_tolerance(files: Path) -> None:
    found = result("half.mlpackage", "--against", "model.onnx", cwd=files)
    assert (found["ok"], found["scheme"], found["float16"]) == (True, "fp16", True)


def test_a_package_that_is_another_model_is_found_out(files: Path) -> None:
    found = result("wrong.mlpackage", "--against", "model.onnx", cwd=files)
    assert not found["ok"]
    np.testing.assert_allclose(found["outputs"][0]["max_abs_difference"], 0.01, rtol=1e-3)
    shown = verify("wrong.mlpackage", "--against", "model.onnx", cwd=files)
    assert shown.returncode == 1
    assert "DIFFERS FROM" in shown.stdout


def test_given_inputs_are_taken(files: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "inputs.npz", **{name: value.numpy() for name, value in INPUTS.items()})
    found = result("good.mlpackage", "--against", "model.onnx", "--inputs", tmp_path / "inputs.npz", cwd=files)
    assert (found["ok"], found["calls"]) == (True, 1)
    np.savez(tmp_path / "bad.npz", ids=np.zeros((1, 5), np.int32), mask=np.ones((1, 12), np.int32))
    refused = verify("good.mlpackage", "--against", "model.onnx", "--inputs", tmp_path / "bad.npz", cwd=files)
    assert refused.returncode == 1
    assert "'ids' has the shape [1, 5], the package takes [1, 12]" in " ".join(refused.stderr.split())


def test_a_checkpoint(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(tmp_path)
    inputs = {name: torch.ones(1, checkpoint.config.max_length, dtype=torch.int32) for name in ("ids", "mask")}
    made = convert_torch_module(build_program(checkpoint, "torch").module, inputs)
    made.save(str(tmp_path / "tiny.mlpackage"))
    assert result("tiny.mlpackage", "--against", "tiny", cwd=tmp_path)["ok"]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["good.mlpackage", "--against", "nowhere"], "neither a checkpoint folder nor a .mlpackage"),
        (["model.onnx", "--against", "model.pt2"], "no .mlpackage"),
        (["--against", "model.pt2"], "name it"),
        (["good.mlpackage", "--scheme", "fp16"], "go with --against"),
        (["good.mlpackage", "--against", "model.pt2", "--scheme", "int9"], "unknown scheme"),
        (["none.mlpackage", "--against", "model.pt2"], "Manifest.json"),
    ],
)
def test_what_is_refused(argv: list[str], words: str, files: Path) -> None:
    run = verify(*argv, cwd=files)
    assert run.returncode == 1
    assert words in " ".join(run.stderr.split())
    assert "Traceback" not in run.stderr


def test_compressed_weights_need_a_scheme(files: Path, tmp_path: Path) -> None:
    import coremltools as ct
    import coremltools.optimize.coreml as optimize

    model = ct.models.MLModel(str(files / "good.mlpackage"), skip_model_load=True)
    config = optimize.OpLinearQuantizerConfig(mode="linear_symmetric", weight_threshold=64)
    optimize.linear_quantize_weights(model, optimize.OptimizationConfig(global_config=config)).save(
        str(tmp_path / "small.mlpackage")
    )
    shutil.copy(files / "model.onnx", tmp_path)
    assert "say --scheme" in verify("small.mlpackage", "--against", "model.onnx", cwd=tmp_path).stderr
    assert result("small.mlpackage", "--against", "model.onnx", "--scheme", "int8-weight", cwd=tmp_path)["ok"]


def test_another_shape_of_the_output_is_refused(files: Path, tmp_path: Path) -> None:
    graph = onnx.load(files / "model.onnx")
    graph.graph.node.append(onnx.helper.make_node("Flatten", ["scores"], ["flat"], axis=0))
    del graph.graph.output[:]
    graph.graph.output.append(onnx.helper.make_tensor_value_info("flat", onnx.TensorProto.FLOAT, [1, 3]))
    graph.graph.node.append(onnx.helper.make_node("Concat", ["flat", "flat"], ["scores2"], axis=0))
    graph.graph.output[0].name = "scores2"
    graph.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 2
    onnx.save(graph, tmp_path / "other.onnx")
    run = verify(files / "good.mlpackage", "--against", tmp_path / "other.onnx", cwd=tmp_path)
    assert run.returncode == 1
    assert "has the shape [1, 3], the reference [2, 3]" in " ".join(run.stderr.split())


def test_random_inputs_stay_within_the_tables(files: Path) -> None:
    evaluator = load_evaluator(files / "good.mlpackage")
    for seed in range(3):
        inputs = random_inputs(evaluator, seed=seed)
        assert 0 <= inputs["ids"].min() <= inputs["ids"].max() < 50
        assert inputs["ids"].max() > 1
        assert set(np.unique(inputs["mask"])) <= {0, 1}
        np.testing.assert_array_equal(inputs["ids"], random_inputs(evaluator, seed=seed)["ids"])
        evaluator.run(inputs)

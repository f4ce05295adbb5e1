"""The runner on Core ML: real code over coremltools' own Python, whose native part is a stand-in (not run on a Mac)."""

import inspect
import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.devices.coverage_coreml import read_coreml_coverage
from edgekit.devices.runner import backend_coreml
from edgekit.devices.runner.backend import Backend, import_runtime, load_backend
from edgekit.devices.runner.failures import RunError
from edgekit.devices.runner.job import RunnerJob, parse_job
from edgekit.devices.runner.replay import run_step
from edgekit.devices.runner.steps import Step
from tests.devices import coreml_stand_in
from tests.devices.models import write_steps


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One function, one function of enumerated shapes, and two functions."""
    import coremltools
    import torch

    from edgekit.export.coreml_torch import convert_torch_module

    torch.manual_seed(0)
    table, head = torch.nn.Embedding(9, 4), torch.nn.Linear(4, 2)

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.head = table, head

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.head(self.table(ids).mean(1))

    folder, made = tmp_path_factory.mktemp("coreml"), {}
    for name, length, shapes in (("short", 3, {}), ("main", 5, {}), ("flexible", 5, {"ids": [(1, 5), (1, 3)]})):
        made[name] = folder / f"{name}.mlpackage"
        convert_torch_module(
            Model(),
            {"ids": torch.ones((1, length), dtype=torch.int32)},
            output_names=["logits"],
            minimum_deployment_target="iOS18",
            shapes=shapes,
        ).save(str(made[name]))
    functions = coremltools.utils.MultiFunctionDescriptor()
    functions.add_function(str(made["main"]), "main", "serving_default")
    functions.add_function(str(made["short"]), "main", "length_3")
    functions.default_function_name = "serving_default"
    made["functions"] = folder / "functions.mlpackage"
    coremltools.utils.save_multifunction(functions, str(made["functions"]))
    return made


@pytest.fixture(autouse=True)
def macos() -> Iterator[None]:
    with coreml_stand_in.macos():
        yield


def load(path: Path, **fields: Any) -> Backend:
    job = RunnerJob(runtime="coreml", model=str(path), steps="", outputs="", **fields)
    return load_backend(import_runtime(job), job)


def run(backend: Backend, *ids: int, signature: str = "serving_default") -> np.ndarray:
    return run_step(backend, Step("00000", signature, {"ids": np.array([ids], np.int32)}))["logits"]


def test_a_package_is_run(packages: dict[str, Path]) -> None:
    backend = load(packages["main"])
    assert backend.version == "9.0"
    (signature,) = backend.signatures.values()
    assert (signature.inputs["ids"].dtype, signature.inputs["ids"].shape) == ("int32", (1, 5))
    assert (signature.outputs["logits"].dtype, signature.outputs["logits"].shape) == ("float32", (1, 2))
    first, second = run(backend, 1, 2, 3, 4, 5), run(backend, 5, 4, 3, 2, 0)
    assert first.shape == (1, 2)
    assert np.abs(first - second).max() > 1e-3
    with pytest.raises(RunError, match=r"has the shape \[1, 4\], the file takes \[1, 5\]"):
        run(backend, 1, 2, 3, 4)


def test_a_package_of_several_shapes(packages: dict[str, Path]) -> None:
    backend = load(packages["flexible"])
    assert next(iter(backend.signatures.values())).inputs["ids"].shape == (1, None)
    np.testing.assert_allclose(run(backend, 1, 2, 3), run(load(packages["short"]), 1, 2, 3), atol=1e-6)
    with pytest.raises(RunError, match=r"run-failed|can't|shape"):
        run(backend, 1, 2, 3, 4)


def test_functions_are_signatures(packages: dict[str, Path]) -> None:
    backend = load(packages["functions"])
    assert {name: each.inputs["ids"].shape for name, each in backend.signatures.items()} == {
        "serving_default": (1, 5),
        "length_3": (1, 3),
    }
    np.testing.assert_allclose(
        run(backend, 1, 2, 3, signature="length_3"), run(load(packages["short"]), 1, 2, 3), atol=1e-6
    )
    with pytest.raises(RunError, match="no signature 'length_4'"):
        run(backend, 1, 2, 3, 4, signature="length_4")


@pytest.mark.parametrize(
    ("units", "name", "actual"),
    [
        ("cpu", "CPU_ONLY", "CPU"),
        ("cpu+gpu", "CPU_AND_GPU", "GPU"),
        ("cpu+ane", "CPU_AND_NE", "ANE"),
        ("all", "ALL", "ANE"),
    ],
)
def test_compute_units_and_what_the_plan_says(units: str, name: str, actual: str, packages: dict[str, Path]) -> None:
    backend = load(packages["main"], compute_units=units)
    assert next(iter(backend._models.values())).__proxy__.units == name
    assignment = backend.assignment()
    kinds = Counter(operation["operator"] for operation in assignment["operations"])
    assert kinds["linear"] == 1
    assert "const" not in kinds
    assert json.loads(json.dumps(assignment)) == assignment
    coverage = read_coreml_coverage(assignment)
    assert coverage.actual == actual
    assert coverage.nodes == kinds.total()
    cpu = sum(count for kind, count in kinds.items() if kind in coreml_stand_in.ON_CPU)
    assert coverage.nodes_on_accelerator == kinds.total() - (cpu if actual != "CPU" else 0)
    assert coverage.note == f"Core ML's plan before the run; estimated work: {actual} 100 %"
    if actual == "ANE":
        assert ("gather", "ANE can't") in {(left.operator, left.reason) for left in coverage.left_behind}
    if actual == "GPU":
        assert ("gather", "GPU could, Core ML prefers CPU") in {(e.operator, e.reason) for e in coverage.left_behind}


def test_the_plan_of_every_function(packages: dict[str, Path]) -> None:
    operations = load(packages["functions"]).assignment()["operations"]
    assert {operation["function"] for operation in operations} == {"serving_default", "length_3"}


def test_unknown_compute_units(packages: dict[str, Path]) -> None:
    with pytest.raises(RunError, match=r"unknown compute units 'npu': known are cpu, cpu\+gpu, cpu\+ane, all"):
        load(packages["main"], compute_units="npu")
    job = {"schema": 1, "runtime": "coreml", "model": "m", "steps": "s", "outputs": "o", "compute_units": "all"}
    assert parse_job(job).compute_units == "all"
    with pytest.raises(RunError, match="'compute_units' must be of type str"):
        parse_job(job | {"compute_units": 1})


def test_what_core_ml_refuses(packages: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Path(shutil.copytree(packages["main"], tmp_path / "broken.mlpackage"))
    (broken / "refused").touch()
    with pytest.raises(RunError, match="Error compiling model: as the test wants it") as error:
        load(broken)
    assert error.value.kind == "load-failed"
    monkeypatch.setattr(coreml_stand_in.Proxy, "newest", 8)
    with pytest.raises(RunError, match="newer than this macOS knows"):
        load(packages["main"])


def test_the_calls_are_those_of_coremltools(packages: dict[str, Path]) -> None:
    """What the backend passes, and what the stand-in takes, bind to coremltools' own signatures."""
    from coremltools import ComputeUnit
    from coremltools.models import MLModel
    from coremltools.models.compute_plan import MLComputePlan

    inspect.signature(MLModel).bind("model.mlpackage", compute_units=ComputeUnit.ALL, function_name=None)
    inspect.signature(MLModel.predict).bind(None, {})
    inspect.signature(MLModel.get_compiled_model_path).bind(None)
    inspect.signature(MLComputePlan.load_from_path).bind("model.mlmodelc", compute_units=ComputeUnit.ALL)
    for name in ("usage", "cost"):
        method = {"usage": "get_compute_device_usage", "cost": "get_estimated_cost"}[name] + "_for_mlprogram_operation"
        assert list(inspect.signature(getattr(MLComputePlan, method)).parameters) == ["self", "operation"]
    assert {unit.name for unit in ComputeUnit} == set(backend_coreml.COMPUTE_UNITS.values())


@pytest.mark.skipif(sys.platform == "darwin", reason="there is Core ML here")
def test_without_macos_it_says_so(packages: dict[str, Path], tmp_path: Path) -> None:
    write_steps(tmp_path / "steps.npz", {"ids": np.ones((1, 5), np.int32)})
    job = {"schema": 1, "runtime": "coreml", "model": str(packages["main"]), "steps": str(tmp_path / "steps.npz")}
    (tmp_path / "job.json").write_text(json.dumps(job | {"outputs": str(tmp_path / "outputs.npz")}))
    argv = [sys.executable, "-P", "-m", "edgekit.devices.runner", str(tmp_path / "job.json")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 3
    event = json.loads(done.stdout)
    assert event["kind"] == "runtime-missing"
    assert event["message"] == "coreml can't be imported: Core ML is part of macOS, and this is another system"

"""The evaluator as a process of its own: the jobs and events of the runner on devices."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.devices.models import write_steps
from tests.mil.programs import TARGETS, floats, mb
from tests.mil.test_packages import convert

STEPS = ({"x": floats(2, 3)}, {"x": np.array([[1e5, 1, 2], [3, 4, 5]], np.float32)})


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twice the input, in float16."""

    @mb.program(input_specs=[mb.TensorSpec(shape=(2, 3))], opset_version=TARGETS[17])
    def program(x: Any) -> Any:
        return mb.mul(x=x, y=np.float32(2), name="y")

    return convert(program, tmp_path_factory.mktemp("packages") / "model.mlpackage")


def run(folder: Path, package: Path, *, stdin: Any = subprocess.DEVNULL, **fields: Any) -> tuple[int, list[Any]]:
    write_steps(folder / "steps.npz", *STEPS)
    paths = {"model": str(package), "steps": str(folder / "steps.npz"), "outputs": str(folder / "outputs.npz")}
    (folder / "job.json").write_text(json.dumps({"schema": 1, "runtime": "coreml", **paths, **fields}))
    argv = [sys.executable, "-P", "-m", "edgekit.mil", str(folder / "job.json")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, cwd=folder, check=False)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def test_steps_are_evaluated_in_order(package: Path, tmp_path: Path) -> None:
    code, events = run(tmp_path, package, num_threads=1)
    assert code == 0, events
    assert [event["event"] for event in events] == ["loaded", "done"]
    port = {"dtype": "float32", "shape": [2, 3]}
    assert events[0]["signatures"][""]["inputs"] == {"x": port}
    assert (events[1]["steps"], events[1]["non_finite"]) == (2, {"y": 1})  # 2e5 is infinite in float16
    with np.load(tmp_path / "outputs.npz") as outputs:
        assert list(outputs) == ["00000/serving_default/out/y", "00001/serving_default/out/y"]
        np.testing.assert_allclose(outputs["00000/serving_default/out/y"], 2 * STEPS[0]["x"], rtol=1e-3)


def test_in_float32_nothing_overflows(package: Path, tmp_path: Path) -> None:
    code, events = run(tmp_path, package, precision="fp32")
    assert (code, events[1]["non_finite"]) == (0, {})


@pytest.mark.parametrize(
    ("fields", "code", "kind", "word"),
    [
        ({"runtime": "litert"}, 2, "bad-job", "litert"),
        ({"schema": 2}, 2, "bad-job", "schema"),
        ({"threads": 1}, 2, "bad-job", "'threads'"),
        ({"precision": "int8"}, 2, "bad-job", "int8"),
        ({"num_threads": "2"}, 2, "bad-job", "num_threads"),
        ({"model": "nowhere.mlpackage"}, 3, "load-failed", "nowhere"),
        ({"steps": "nowhere.npz"}, 3, "bad-input", "nowhere"),
    ],
)
def test_what_can_go_wrong(
    fields: dict[str, Any], code: int, kind: str, word: str, package: Path, tmp_path: Path
) -> None:
    returned, events = run(tmp_path, package, **fields)
    assert (returned, events[-1]["event"], events[-1]["kind"]) == (code, "error", kind)
    assert word in events[-1]["message"]
    assert not (tmp_path / "outputs.npz").exists()


def test_it_ends_with_its_parent_where_asked(package: Path, tmp_path: Path) -> None:
    run(tmp_path, package)
    job = json.loads((tmp_path / "job.json").read_text()) | {"die_with_parent": True}
    (tmp_path / "job.json").write_text(json.dumps(job))
    argv = [sys.executable, "-P", "-m", "edgekit.mil", str(tmp_path / "job.json")]
    assert subprocess.run(argv, input="", text=True, capture_output=True, check=False).returncode == 1


def test_it_imports_no_framework(package: Path, tmp_path: Path) -> None:
    """coremltools imports torch and TensorFlow where they are installed: seconds, and hundreds of megabytes."""
    run(tmp_path, package)
    code = (
        "import sys; from edgekit.mil.__main__ import main; main([sys.argv[1]]);"
        "print([name for name in ('torch', 'tensorflow', 'sklearn') if sys.modules.get(name)], file=sys.stderr)"
    )
    argv = [sys.executable, "-c", code, str(tmp_path / "job.json")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == "[]"

"""Boards have old Pythons: the runner must load and decide on 3.9."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import lacking

RUNNER = Path(__file__).parents[2] / "devices" / "runner"

# The interpreter may have no numpy of its own; what is tried here reads no array.
SCRIPT = """
import json, sys, types
try:
    import numpy
except ImportError:
    sys.modules["numpy"] = types.ModuleType("numpy")
import runner.__main__, runner.backend_onnxruntime, runner.backend_tensorflow, runner.backend_tflite
import runner.backend_coreml, runner.backend_litert_compiled, runner.backend_torch, runner.profile_litert
import runner.litert_library, runner.litert_direct, runner.onnx_providers, runner.generation_measure, runner.scoring
import runner.session_litert, runner.session_onnxruntime
from runner.backend import Backend, Port, import_runtime
from runner.failures import RunError
from runner.job import parse_job
from runner.replay import fit_inputs
from runner.steps import Step

job = parse_job({"schema": 1, "runtime": "litert", "model": "m", "steps": "s", "outputs": "o"})
assert job.num_threads == 1
for action, kind in (
    (lambda: parse_job({"schema": 1}), "bad-job"),
    (lambda: fit_inputs({"ids": Port("int32", (1, None))}, Step("00000", "f", {})), "bad-input"),
    (lambda: import_runtime(job._replace(runtime="tflite-runtime")), "runtime-missing"),
):
    try:
        action()
    except RunError as error:
        assert error.kind == kind, error
    else:
        raise AssertionError(kind)
print(sys.version_info[:2])
"""


@pytest.fixture
def python39() -> str:
    found = shutil.which("python3.9")
    if found and subprocess.run([found, "--version"], capture_output=True, check=False).returncode == 0:
        return found
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    installed = sorted(root.glob("versions/3.9*/bin/python"))
    if not installed:
        lacking("Python 3.9")
    return str(installed[-1])


def test_it_works_on_python_39(python39: str, tmp_path: Path) -> None:
    shutil.copytree(RUNNER, tmp_path / "runner", ignore=shutil.ignore_patterns("__pycache__"))
    compiled = subprocess.run(
        [python39, "-m", "compileall", "-q", "runner"], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert compiled.returncode == 0, compiled.stdout
    run = subprocess.run([python39, "-c", SCRIPT], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "(3, 9)"


def test_it_starts_on_python_39(python39: str, tmp_path: Path) -> None:
    """From any folder; numpy, which this Python may lack, stands in a package of its own."""
    shutil.copytree(RUNNER, tmp_path / "runner", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "packages" / "numpy").mkdir(parents=True)
    (tmp_path / "packages" / "numpy" / "__init__.py").touch()
    command = [python39, str(tmp_path / "runner" / "start.py"), str(tmp_path / "none.json"), "--cold"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "packages")}
    run = subprocess.run(command, capture_output=True, text=True, cwd="/", env=environment, check=False)
    assert run.returncode == 2, run.stderr
    event = json.loads(run.stdout)
    assert (event["event"], event["kind"]) == ("error", "bad-job")

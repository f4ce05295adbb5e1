"""The wheel, built and used from outside the tree: a light install, without PyTorch and TensorFlow."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgekit.bundle import find_bundles
from tests.conftest import lacking

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "tensorflow", "keras", "coremltools", "onnx", "onnxruntime", "litert_torch")


def run(*argv: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [str(a) for a in argv], capture_output=True, text=True, timeout=900, cwd=cwd, env=environment, check=False
    )
    assert done.returncode == 0, f"{argv}\n{done.stdout}\n{done.stderr}"
    return done


def find_python(version: str) -> str:
    """A Python of this minor version: on the PATH, or in pyenv."""
    if sys.version_info[:2] == tuple(int(part) for part in version.split(".")):
        return sys.executable
    candidates = [shutil.which(f"python{version}")]
    if shutil.which("pyenv"):
        root = subprocess.run(["pyenv", "root"], capture_output=True, text=True, check=False).stdout.strip()
        candidates += [str(path) for path in sorted(Path(root).glob(f"versions/{version}.*/bin/python"))]
    for candidate in candidates:
        if candidate and subprocess.run([candidate, "-c", "pass"], capture_output=True, check=False).returncode == 0:
            return candidate
    return lacking(f"Python {version}")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build sdist and wheel from a copy, so that nothing of the working tree but its files has a part."""
    copy = tmp_path_factory.mktemp("source") / "edgekit"
    ignore = shutil.ignore_patterns(
        ".*", "bundles", "checkpoints", "build", "dist", "*.egg-info", "__pycache__", "tests"
    )
    shutil.copytree(ROOT, copy, ignore=ignore)
    run(sys.executable, "-m", "build", "--outdir", copy.parent / "dist", copy, cwd=copy.parent)
    built = list((copy.parent / "dist").glob("*.whl"))
    assert len(built) == 1
    return built[0]


@pytest.fixture(scope="module")
def tflite_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A proven TFLite bundle of the embedded model, made in the full environment."""
    parent = tmp_path_factory.mktemp("bundles")
    run(sys.executable, "-P", "-m", "edgekit", "export", "-o", parent, "--eval-samples", "50", cwd=parent)
    return find_bundles(parent)[0]


@pytest.mark.slow
@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_light_install_verifies_and_predicts(version: str, wheel: Path, tflite_bundle: Path, tmp_path: Path) -> None:
    run(find_python(version), "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    binaries = tmp_path / "venv" / "bin"
    run(binaries / "pip", "install", "--quiet", "--disable-pip-version-check", f"{wheel}[devices]", cwd=tmp_path)
    packages = run(binaries / "pip", "list", "--format=freeze", cwd=tmp_path).stdout.lower().splitlines()
    assert not {line.split("==")[0].replace("-", "_") for line in packages} & set(HEAVY)

    (tmp_path / "numpy.py").write_text("raise SystemExit('the wrong numpy was run')")
    edgekit = binaries / "edgekit"
    assert "export" in run(edgekit, "--help", cwd=tmp_path).stdout
    assert "nano" in run(edgekit, "models", cwd=tmp_path).stdout
    verified = json.loads(run(edgekit, "verify", tflite_bundle, "--json", cwd=tmp_path).stdout)
    assert verified[0]["ok"]
    assert verified[0]["accuracy"]["samples"] == 50
    predicted = json.loads(run(edgekit, "predict", tflite_bundle, "Datei speichern", "--json", cwd=tmp_path).stdout)
    assert predicted[0]["labels"][0]["label"] == "de"
    # what is not installed is named, with the extra that brings it
    refused = subprocess.run(
        [edgekit, "export", "--target", "onnx"], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert refused.returncode == 1
    assert "edgekit-toolkit[torch]" in refused.stderr


@pytest.mark.slow
def test_wheel_holds_all_three_rooms_and_the_embedded_model(wheel: Path) -> None:
    import zipfile

    names = set(zipfile.ZipFile(wheel).namelist())
    for room, prefix in (("edgekit", "edgekit"), ("export", "edgekit/export"), ("devices", "edgekit/devices")):
        for file in (ROOT / room).rglob("*.py"):
            assert f"{prefix}/{file.relative_to(ROOT / room).as_posix()}" in names
    for file in (ROOT / "edgekit" / "report").glob("templates/*"):
        assert f"edgekit/report/templates/{file.name}" in names
    assert "edgekit/report/report.schema.json" in names
    assert "edgekit/py.typed" in names
    assert "edgekit/assets/language-id/model.safetensors" in names
    assert not any(name.startswith(("export/", "devices/", "tests/")) for name in names)

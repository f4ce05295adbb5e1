"""Environments of their own: what is missing names the command; what fails leaves nothing behind."""

from pathlib import Path

import pytest

from edgekit import environments
from edgekit.devices.registry import open_device
from edgekit.devices.setup import set_up
from edgekit.errors import DeviceError, RefusedError, UnknownNameError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEKIT_ENVIRONMENTS", str(tmp_path / "environments"))
    return tmp_path / "environments"


def test_one_that_was_not_made_is_an_error_with_the_command(folder: Path) -> None:
    with pytest.raises(DeviceError, match=r"lint needs onnxruntime-qnn.*edgekit devices setup local --runtime onnxr"):
        environments.environment_python("onnxruntime-qnn", "lint")
    with pytest.raises(UnknownNameError, match="did you mean onnxruntime-qnn"):
        environments.environment_python("onnxruntime-qn")


def test_one_that_pip_refuses_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with (
        open_device("local") as device,
        pytest.raises(DeviceError, match=r"could not be set up here: ERROR: No matching distribution"),
    ):
        set_up(device, runtime="onnxruntime-webgpu")
    assert not environments.has_environment("onnxruntime-webgpu")
    assert [path.name for path in folder.glob("onnxruntime*")] == []


def test_boards_get_none(folder: Path) -> None:
    with open_device("local") as device, pytest.raises(RefusedError, match="--offline and --wheels are for boards"):
        set_up(device, runtime="onnxruntime-qnn", offline=True)


def test_one_is_made_and_used(qnn_environment: None) -> None:
    python = environments.environment_python("onnxruntime-qnn")
    assert python.exists()
    packages = environments.site_packages("onnxruntime-qnn")
    assert (packages / "onnxruntime_qnn" / "libQnnHtp.so").is_file()

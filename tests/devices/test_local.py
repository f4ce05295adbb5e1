"""This machine as a device, beyond the contract."""

import sys
from pathlib import Path

import pytest

from edgekit.devices.local import LocalDevice
from edgekit.errors import DeviceError


def test_its_interpreter_is_the_one_that_runs_edgekit() -> None:
    with LocalDevice() as device:
        facts = device.facts()
        assert facts.python == sys.executable
        assert {"litert", "onnxruntime"} <= set(facts.runtimes)
        assert facts.advice == ""


def test_a_file_that_is_no_program(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with LocalDevice() as device:
        path = device.push(tmp_path / "file", "file")
        assert device.run([path], timeout_s=20).returncode == 126
        assert device.run([device.folder], timeout_s=20).returncode == 126


def test_no_room_for_a_folder() -> None:
    with pytest.raises(DeviceError, match=r"can't write /proc: .*set TMPDIR"), LocalDevice(base_folder="/proc"):
        pass


def test_no_room_for_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "other").write_text("x")
    with LocalDevice() as device:
        device.push(tmp_path / "file", "name")
        with pytest.raises(DeviceError, match="can't write"):
            device.push(tmp_path / "other", "name/below")


def test_an_interpreter_that_is_not_there() -> None:
    with LocalDevice(python="/no/python") as device, pytest.raises(DeviceError, match="has no /no/python"):
        device.facts()

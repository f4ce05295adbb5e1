"""An emulated aarch64 Debian with a real sshd: the real runtimes, and the real set-up of a board."""

from pathlib import Path

import pytest

from edgekit.devices.registry import open_device
from edgekit.devices.setup import set_up
from tests.rigs.arm_board import ArmBoard

pytestmark = pytest.mark.slow


def test_it_says_what_it_is_and_takes_files(arm_board: ArmBoard, tmp_path: Path) -> None:
    with open_device(arm_board.name) as device:
        facts = device.facts()
        assert facts.machine == "aarch64"
        assert "Debian GNU/Linux 12" in facts.os
        assert {"litert", "onnxruntime"} <= set(facts.runtimes) <= {"litert", "litert-compiled", "onnxruntime"}
        assert facts.cpu_flags == () or "asimd" in facts.cpu_flags
        (tmp_path / "file").write_bytes(bytes(range(256)) * 1000)
        device.push(tmp_path / "file", "file")
        device.pull("file", tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == (tmp_path / "file").read_bytes()
        assert device.run(["sh", "-c", "kill -SEGV $$"], timeout_s=60).returncode == -11
    with open_device(arm_board.old) as device:
        assert set(device.facts().runtimes) == {"tflite-runtime"}


def test_set_up_with_wheels_fetched_here(arm_board: ArmBoard) -> None:
    said: list[str] = []
    with open_device(arm_board.bare) as device:
        assert device.facts().runtimes == {}
        prepared = set_up(device, offline=True, on_progress=said.append)
    assert said[0] == "Python 3.11 on aarch64, glibc 2.36"
    assert prepared.runtime == "litert"
    with open_device(arm_board.bare) as device:
        facts = device.facts()
    assert facts.python == "/mnt/home/.edgekit/env/bin/python"
    assert facts.runtimes["litert"] == prepared.versions["litert"]
    assert facts.advice == ""

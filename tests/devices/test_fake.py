"""The faults of the fake device: each as test_ssh.py and test_adb.py see it on real ones."""

import os
from pathlib import Path

import pytest

from edgekit.devices.fake import FakeDevice, Faults
from edgekit.errors import DeviceError, DeviceLostError, ProcessError
from edgekit.measurement import DeviceFacts


def test_it_vanishes_after_so_many_lines_and_stays_away() -> None:
    seen: list[str] = []
    device = FakeDevice(faults=Faults(vanish_after_lines=3)).__enter__()
    device.run(["echo", "one"], timeout_s=20, on_line=seen.append)
    with pytest.raises(DeviceLostError) as caught:
        device.run(["sh", "-c", "echo two; echo three; echo four; sleep 1000"], timeout_s=60, on_line=seen.append)
    assert seen == ["one", "two", "three"]
    assert caught.value.state == "lost"
    for action in (device.facts, lambda: device.run(["true"], timeout_s=20), device.__enter__):
        with pytest.raises(DeviceLostError):
            action()
    with pytest.raises(DeviceLostError):
        device.__exit__(None, None, None)
    assert not Path(device.folder).exists()


def test_its_disk_is_full(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(os.urandom(2000))
    (tmp_path / "small").write_bytes(os.urandom(10))
    with FakeDevice(faults=Faults(disk_bytes=1000)) as device:
        device.push(tmp_path / "small", "small")
        with pytest.raises(DeviceError, match="its disk is full") as caught:
            device.push(tmp_path / "big", "big")
    assert caught.value.state == "disk full"
    assert device.sent == ["small"]


def test_it_hangs() -> None:
    with FakeDevice(faults=Faults(hang=True)) as device, pytest.raises(ProcessError, match="did not finish within 1 s"):
        device.run(["true"], timeout_s=1)


def test_it_has_no_runtime() -> None:
    with FakeDevice(faults=Faults(no_runtime=True)) as device:
        facts = device.facts()
    assert (facts.python, facts.runtimes) == (None, {})


def test_it_answers_what_it_was_told() -> None:
    told = DeviceFacts(address="fake:pi", model="Raspberry Pi 4")
    answers = {("vcgencmd", "get_throttled"): "throttled=0x50000\n"}
    seen: list[str] = []
    with FakeDevice(address="fake:pi", facts_told=told, answers=answers) as device:
        assert device.facts() == told
        run = device.run(["vcgencmd", "get_throttled"], timeout_s=20, on_line=seen.append)
        assert (run.returncode, run.stdout, seen) == (0, "throttled=0x50000\n", ["throttled=0x50000"])
        assert device.run(["vcgencmd", "measure_temp"], timeout_s=20).returncode == 127

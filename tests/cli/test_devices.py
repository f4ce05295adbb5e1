"""`edgekit devices`: what is listed, in which state, and what to do about it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.rigs.adb_phone import AdbPhone
from tests.rigs.ssh_board import HOST, SshBoard


def run(*argv: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "edgekit", "devices", *argv]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, env={**os.environ, **(env or {})}
    )


def test_every_device_with_its_state(ssh_board: SshBoard, adb_phone: AdbPhone, tmp_path: Path) -> None:
    devices = (ssh_board.folder / "devices.toml").read_text()
    for name in ("refused", "changed"):
        devices += f'\n[{name}]\naddress = "ssh:{HOST}-{name}"\n'
    devices += f'\n[phone]\naddress = "{adb_phone.address}"\n'
    (tmp_path / "devices.toml").write_text(devices)
    shown = run("--json", env={"EDGEKIT_DEVICES": str(tmp_path / "devices.toml")})
    assert shown.returncode == 0, shown.stderr
    assert shown.stderr == ""
    listed = {one["name"]: one for one in json.loads(shown.stdout)}
    assert {name: one["state"] for name, one in listed.items()} == {
        "local": "ready",
        "board": "ready",
        "bare": "ready",
        "small": "ready",
        "refused": "refused",
        "changed": "host key changed",
        "phone": "ready",
    }
    assert {"litert", "onnxruntime"} <= set(listed["board"]["runtimes"])
    assert "ssh-keygen -R" in listed["changed"]["advice"]
    assert listed["board"]["machine"] == os.uname().machine


def test_the_table_and_what_to_do(ssh_board: SshBoard) -> None:
    shown = run()
    assert shown.returncode == 0, shown.stderr
    assert "litert" in shown.stdout
    assert "bare: no runtime there: edgekit devices setup bare" in shown.stderr


def test_a_phone_that_adb_sees_is_listed_by_its_address(adb_phone: AdbPhone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(Path(os.environ["HOME"]) / "config"))
    subprocess.run(["adb", "connect", adb_phone.serial], capture_output=True, check=True)
    names = {one["name"]: one["state"] for one in json.loads(run("--json").stdout)}
    assert names[adb_phone.address] == "ready"


def test_setup_says_no_in_one_line(ssh_board: SshBoard) -> None:
    for argv, words in (
        (("local",), "this machine is no board"),
        (("nobody",), "unknown device 'nobody'"),
        ((f"ssh:{HOST}-refused",), "takes no ssh there"),
        (("bare", "--runtime", "litter"), "did you mean litert"),
    ):
        shown = run("setup", *argv)
        assert (shown.returncode, shown.stdout) == (1, "")
        assert words in shown.stderr.splitlines()[-1]
    assert run("setup").returncode == 2

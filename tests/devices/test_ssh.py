"""A board by ssh, with a real sshd: how a login fails, how a link drops, and what stays there."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from edgekit.devices import scripts, ssh
from edgekit.devices.quoting import parse_ssh_address
from edgekit.devices.registry import open_device
from edgekit.errors import DeviceError, DeviceLostError
from tests.rigs.machine import wait_for
from tests.rigs.ssh_board import HOST, SshBoard

# A process of its own that measures on the board until it is ended: what edgekit is, when a user presses Ctrl-C.
MEASURES = """
import sys
from edgekit.devices.registry import open_device
with open_device("board") as device:
    device.run(["sh", "-c", "echo started; sleep 1000"], timeout_s=900, on_line=lambda line: print(line, flush=True))
"""


def sleepers(board: SshBoard) -> list[str]:
    """What still runs of the commands of these tests."""
    return [line for line in board.machine.processes() if "sleep 1000" in line]


@pytest.mark.parametrize(
    ("host", "state", "advice"),
    [
        ("other-key", "key refused", "ssh-copy-id"),
        ("changed", "host key changed", "ssh-keygen -R edgekit-board-changed"),
        ("unknown", "host key unknown", "log in once with `ssh edgekit-board-unknown`"),
        ("refused", "refused", "start sshd on it, or correct the port"),
        ("down", "down", "is it on, and in this network?"),
    ],
)
def test_a_login_that_fails(ssh_board: SshBoard, host: str, state: str, advice: str) -> None:
    with pytest.raises(DeviceError) as caught, open_device(f"ssh:{HOST}-{host}"):
        pass
    assert caught.value.state == state
    assert caught.value.address == f"ssh:{HOST}-{host}"
    assert advice in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_host_that_nobody_knows(ssh_board: SshBoard) -> None:
    with pytest.raises(DeviceError, match="is no host that this network knows"), open_device("ssh:pi@nowhere.invalid"):
        pass


def test_user_and_port_of_the_address(ssh_board: SshBoard) -> None:
    with open_device(f"ssh:board@{HOST}:22") as device:
        assert device.run(["id", "-un"], timeout_s=20).stdout == "board\n"
    with pytest.raises(DeviceError, match="refuses the login"), open_device(f"ssh:root@{HOST}"):
        pass


@pytest.mark.parametrize(
    "address",
    [
        "",
        "-oProxyCommand=touch owned",
        "pi@-host",
        "-lroot@host",
        "host:0",
        "host:99999",
        "a b",
        "h;x",
        "$(x)@host",
        "h`x`",
    ],
)
def test_what_is_no_host_is_refused(address: str) -> None:
    with pytest.raises(DeviceError, match=r"is no host|is a number"):
        open_device(f"ssh:{address}")


def test_addresses() -> None:
    assert parse_ssh_address("pi@raspberrypi.local:2222") == ("pi", "raspberrypi.local", 2222)
    assert parse_ssh_address("board") == (None, "board", None)
    assert parse_ssh_address("pi@[fe80::1%eth0]:22") == ("pi", "fe80::1%eth0", 22)


def test_one_connection_for_all(ssh_board: SshBoard) -> None:
    before = ssh_board.machine.log().count("Accepted publickey")
    with open_device(ssh_board.name) as device:
        for _ in range(3):
            device.run(["true"], timeout_s=20)
    assert ssh_board.machine.log().count("Accepted publickey") == before + 1


def test_no_ssh_here(ssh_board: SshBoard, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    device = open_device(ssh_board.name)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        with pytest.raises(DeviceError, match="there is no ssh here: sudo apt-get install"):
            device.__enter__()


def test_a_session_that_is_killed_in_the_middle(ssh_board: SshBoard) -> None:
    seen: list[str] = []

    def on_line(line: str) -> None:
        seen.append(line)
        ssh_board.machine.kill("sshd: board@notty")

    with pytest.raises(DeviceLostError, match="vanished in the middle of sh") as caught, open_device("board") as device:
        device.run(["sh", "-c", "echo measured; sleep 1000"], timeout_s=60, on_line=on_line)
    assert seen == ["measured"]
    assert caught.value.state == "lost"
    wait_for(lambda: not ssh_board.left_behind(), "the end of the folder")
    wait_for(lambda: not sleepers(ssh_board), "the end of the command")


def test_a_link_that_drops_in_the_middle(ssh_board: SshBoard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ssh._OPTIONS, "ServerAliveInterval", "1")
    monkeypatch.setitem(ssh._OPTIONS, "ServerAliveCountMax", "2")
    seen: list[str] = []

    def on_line(line: str) -> None:
        seen.append(line)
        ssh_board.machine.link_down()

    started = time.monotonic()
    with pytest.raises(DeviceLostError, match="look at its power, cable and network"), open_device("board") as device:
        device.run(["sh", "-c", "echo measured; sleep 1000"], timeout_s=600, on_line=on_line)
    assert seen == ["measured"]
    assert time.monotonic() - started < 60
    ssh_board.machine.link_up()  # then the board learns that nobody is there any more
    wait_for(lambda: not ssh_board.left_behind(), "the end of the folder", timeout_s=60)
    wait_for(lambda: not sleepers(ssh_board), "the end of the command")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_stays_when_edgekit_is_ended(ssh_board: SshBoard, number: int) -> None:
    measures = subprocess.Popen([sys.executable, "-c", MEASURES], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert measures.stdout is not None
    assert measures.stdout.readline() == b"started\n"
    wait_for(lambda: sleepers(ssh_board), "the command")
    measures.send_signal(number)
    assert measures.wait(timeout=30) != 0
    measures.stdout.close()
    wait_for(lambda: not ssh_board.left_behind(), "the end of the folder")
    wait_for(lambda: not sleepers(ssh_board), "the end of the command")


def test_a_full_disk(ssh_board: SshBoard, tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(os.urandom(400_000))
    with open_device(ssh_board.small) as device:
        with pytest.raises(DeviceError, match="its disk is full: make room there") as caught:
            device.push(tmp_path / "model", "model")
        assert caught.value.state == "disk full"
        (tmp_path / "model").write_bytes(os.urandom(1000))
        device.push(tmp_path / "model", "model")  # what is left is usable


def test_no_room_for_a_folder(ssh_board: SshBoard, tmp_path: Path) -> None:
    devices = (ssh_board.folder / "devices.toml").read_text().replace("/mnt/small", "/mnt")
    (tmp_path / "devices.toml").write_text(devices)
    os.environ["EDGEKIT_DEVICES"] = str(tmp_path / "devices.toml")  # the fixture puts it back
    with pytest.raises(DeviceError, match="no folder can be made there"), open_device("small"):
        pass


def test_a_transfer_that_is_cut_by_a_dropped_session(ssh_board: SshBoard, tmp_path: Path) -> None:
    with (tmp_path / "model").open("wb") as file:
        file.truncate(200_000_000)
    device = open_device("board").__enter__()
    arriving = ssh_board.machine.path(f"{device.folder}/model")

    def cut() -> None:
        wait_for(lambda: arriving.exists() and arriving.stat().st_size > 0, "the transfer")
        ssh_board.machine.kill("sshd: board@notty")

    thread = threading.Thread(target=cut)
    thread.start()
    with pytest.raises(DeviceLostError, match="in the middle of the transfer of model"):
        device.push(tmp_path / "model", "model")
    thread.join()
    with pytest.raises(DeviceLostError, match="look there"):
        device.__exit__(None, None, None)
    wait_for(lambda: not ssh_board.left_behind(), "the end of the folder")


def test_a_transfer_that_ends_too_early_is_noticed(
    ssh_board: SshBoard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model").write_bytes(os.urandom(100_000))
    with open_device("board") as device:
        with monkeypatch.context() as patch:
            patch.setattr(scripts, "RECEIVE", 'head -c 5000 >"$1/$2"; cat >/dev/null')
            with pytest.raises(DeviceError, match="model did not arrive whole"):
                device.push(tmp_path / "model", "model")
        device.push(tmp_path / "model", "model")
        with monkeypatch.context() as patch:
            patch.setattr(scripts, "PRINT", 'base64 <"$1" | head -c 5001')
            with pytest.raises(DeviceError, match="model did not arrive whole"):
                device.pull("model", tmp_path / "back")
        assert not (tmp_path / "back").exists()


def test_a_login_that_greets(ssh_board: SshBoard, tmp_path: Path) -> None:
    bashrc = ssh_board.machine.path("/mnt/home/.bashrc")
    bashrc.write_text("printf 'welcome'\n")
    try:
        with open_device("board") as device:
            seen: list[str] = []
            assert device.run(["echo", "out"], timeout_s=20, on_line=seen.append).stdout == "out\n"
            assert seen == ["out"]
            assert device.push(Path(__file__), "file")
            device.pull("file", tmp_path / "back")
    finally:
        bashrc.unlink()


def test_the_interpreter_of_devices_toml(ssh_board: SshBoard) -> None:
    with open_device(ssh_board.name) as device:
        facts = device.facts()
        assert facts.python == "/mnt/python"
        assert {"litert", "onnxruntime"} <= set(facts.runtimes)
        assert facts.advice == ""
    with open_device(ssh_board.bare) as device:
        facts = device.facts()
        assert (facts.python, facts.runtimes) == ("/usr/bin/python3", {})
        assert "edgekit devices setup" in facts.advice


def test_only_a_folder_with_our_marker_is_removed(ssh_board: SshBoard) -> None:
    with pytest.raises(DeviceLostError, match="look there"), open_device("board") as device:
        device.run(["rm", f"{device.folder}/.edgekit"], timeout_s=20)
    [left] = ssh_board.left_behind()
    assert left.endswith(device.folder)
    Path(left).rmdir()

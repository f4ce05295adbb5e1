"""A phone by adb, with a real adbd and the real adb: what adb says, and what it does not."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekit.devices.adb import list_phones
from edgekit.devices.listing import list_devices
from edgekit.devices.registry import open_device
from edgekit.errors import DeviceError, DeviceLostError
from tests.conftest import lacking
from tests.rigs.adb_phone import PORT, AdbPhone, free_port, run_adb_phone
from tests.rigs.machine import wait_for

# A process of its own that measures on the phone until it is ended.
MEASURES = """
import sys
from edgekit.devices.listing import list_devices
from edgekit.devices.registry import open_device
with open_device(sys.argv[1]) as device:
    device.run(["sh", "-c", "echo started; sleep 1000"], timeout_s=900, on_line=lambda line: print(line, flush=True))
"""


@pytest.fixture
def second_phone(adb_server_rig: dict[str, str], tmp_path: Path) -> Iterator[AdbPhone]:
    """A phone of this test's own."""
    with run_adb_phone(tmp_path, adb_server_rig) as phone:
        yield phone


def sleepers(phone: AdbPhone) -> list[str]:
    return [line for line in phone.machine.processes() if "sleep 1000" in line]


def test_a_failed_connect_exits_0_and_is_noticed(adb_phone: AdbPhone) -> None:
    nobody = f"{adb_phone.machine.address}:1"
    connect = subprocess.run(["adb", "connect", nobody], capture_output=True, text=True, check=False)
    assert connect.returncode == 0  # that is why its words decide
    with pytest.raises(DeviceError, match=r"could not be connected.*is its wireless debugging on") as caught:
        open_device(f"adb:{nobody}").__enter__()
    assert caught.value.state == "unreachable"


def test_a_serial_that_is_not_there(adb_phone: AdbPhone) -> None:
    with pytest.raises(DeviceError, match="is not there: adb sees"), open_device("adb:R58M00000"):
        pass


def test_two_phones_and_no_serial(adb_phone: AdbPhone, second_phone: AdbPhone) -> None:
    for phone in (adb_phone, second_phone):
        with open_device(phone.address) as device:
            assert device.run(["id", "-u"], timeout_s=20).stdout == "2000\n"
    assert {phone.serial for phone in list_phones() if phone.state == "device"} >= {
        adb_phone.serial,
        second_phone.serial,
    }
    with pytest.raises(DeviceError, match="which phone") as caught, open_device("adb"):
        pass
    assert adb_phone.serial in str(caught.value)
    assert second_phone.serial in str(caught.value)
    for phone in (adb_phone, second_phone):
        with open_device(phone.address) as device:
            assert device.run(["hostname"], timeout_s=20).stdout == "phone\n"


def test_the_only_phone_needs_no_serial(adb_phone: AdbPhone) -> None:
    with open_device(adb_phone.address):
        pass
    with open_device("adb") as device:
        assert device.address == device.facts().address == adb_phone.address


def test_a_phone_that_vanishes_in_the_middle(adb_server: None, second_phone: AdbPhone) -> None:
    seen: list[str] = []

    def on_line(line: str) -> None:
        seen.append(line)
        os.kill(second_phone.machine.pid, signal.SIGKILL)  # the daemon, and with it the machine

    with pytest.raises(DeviceLostError, match="vanished in the middle of sh") as caught:
        measure_until(second_phone, on_line)
    assert seen == ["measured"]
    assert caught.value.returncode == 0  # what adb says of it


def measure_until(phone: AdbPhone, on_line: object) -> None:
    with open_device(phone.address) as device:
        device.run(["sh", "-c", "echo measured; sleep 1000"], timeout_s=60, on_line=on_line)  # type: ignore[arg-type]


def test_a_link_that_drops_in_the_middle_ends_at_the_time_limit(
    adb_server: None, second_phone: AdbPhone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """adb notices nothing: the device is asked once more at the time limit."""
    monkeypatch.setattr("edgekit.devices.shell.ANSWER_TIMEOUT_S", 1.0)
    device = open_device(second_phone.address).__enter__()
    with pytest.raises(DeviceLostError, match="vanished in the middle of sh"):
        device.run(
            ["sh", "-c", "echo measured; sleep 1000"],
            timeout_s=1,
            on_line=lambda line: second_phone.machine.link_down(),
        )
    with pytest.raises(DeviceLostError, match="look there"):
        device.__exit__(None, None, None)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_stays_when_edgekit_is_ended(adb_phone: AdbPhone, number: int) -> None:
    command = [sys.executable, "-c", MEASURES, adb_phone.address]
    measures = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert measures.stdout is not None
    assert measures.stdout.readline() == b"started\n"
    wait_for(lambda: sleepers(adb_phone), "the command")
    measures.send_signal(number)
    assert measures.wait(timeout=30) != 0
    measures.stdout.close()
    wait_for(lambda: not adb_phone.left_behind(), "the end of the folder")
    wait_for(lambda: not sleepers(adb_phone), "the end of the command")


def test_a_full_disk(adb_phone: AdbPhone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "devices.toml").write_text(
        f'[phone]\naddress = "{adb_phone.address}"\nfolder = "{adb_phone.small_disk}"\n'
    )
    monkeypatch.setenv("EDGEKIT_DEVICES", str(tmp_path / "devices.toml"))
    (tmp_path / "model").write_bytes(os.urandom(400_000))
    with open_device("phone") as device, pytest.raises(DeviceError, match="its disk is full: make room there"):
        device.push(tmp_path / "model", "model")


def test_what_android_says_of_itself(adb_server: None, second_phone: AdbPhone) -> None:
    second_phone.program(
        "getprop",
        """case $1 in
        ro.build.version.release) echo 14 ;; ro.build.version.sdk) echo 34 ;;
        ro.product.manufacturer) echo Acme ;; ro.product.model) echo One ;;
        ro.soc.manufacturer) echo QTI ;; ro.soc.model) echo SM8650 ;; ro.board.platform) echo pineapple ;; esac""",
    )
    with open_device(second_phone.address) as device:
        facts = device.facts()
    assert (facts.os, facts.model, facts.soc) == ("Android 14 (API 34)", "Acme One", "QTI SM8650")
    assert "nnapi" in facts.accelerators
    assert facts.python is None
    assert "benchmark_model" in facts.advice


def test_no_adb_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DeviceError, match="there is no adb here: sudo apt-get install adb"), open_device("adb:X"):
        pass


@pytest.mark.parametrize("serial", ["-s", "-x; touch owned", "a\nb", "\x1b[2J"])
def test_what_is_no_serial_is_refused(serial: str) -> None:
    with pytest.raises(DeviceError, match="is no serial"):
        open_device(f"adb:{serial}")


@pytest.mark.parametrize("serial", ["a b; touch owned", "$(touch owned)", "`touch owned`", "'\"", f"no-host:{PORT}"])
def test_a_serial_runs_nothing(adb_server: None, serial: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DeviceError, match=r"is not there|could not be connected"), open_device(f"adb:{serial}"):
        pass
    assert list(tmp_path.iterdir()) == []


# A phone that has not accepted this computer's key: the bridge of @devicefarmer/adbkit, which asks and never hears.
BRIDGE = """
const { Adb } = require("@devicefarmer/adbkit");
const client = Adb.createClient({ port: Number(process.argv[2]) });
const bridge = client.createTcpUsbBridge(process.argv[3], { auth: () => new Promise(() => {}) });
bridge.on("listening", () => console.log("listening"));
bridge.on("error", () => {});
bridge.listen(Number(process.argv[4]));
"""


@pytest.fixture
def unauthorized_phone(adb_phone: AdbPhone, tmp_path: Path) -> Iterator[str]:
    """The serial of a phone that was not unlocked."""
    if not shutil.which("npm"):
        lacking("npm, for @devicefarmer/adbkit")
    install = [
        "npm",
        "install",
        "--silent",
        "--no-audit",
        "--no-fund",
        "--prefix",
        tmp_path,
        "@devicefarmer/adbkit@3.3.9",
    ]
    subprocess.run(install, check=True, capture_output=True)
    (tmp_path / "bridge.js").write_text(BRIDGE)
    with open_device(adb_phone.address):
        pass  # the bridge needs a connected phone behind it
    port = free_port()
    command = ["node", "bridge.js", os.environ["ANDROID_ADB_SERVER_PORT"], adb_phone.serial, str(port)]
    bridge = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE)
    assert bridge.stdout is not None
    try:
        assert bridge.stdout.readline() == b"listening\n"
        yield f"127.0.0.1:{port}"
    finally:
        subprocess.run(["adb", "disconnect", f"127.0.0.1:{port}"], capture_output=True, check=False)
        bridge.kill()
        bridge.wait()
        bridge.stdout.close()


@pytest.mark.slow
def test_a_phone_that_has_not_accepted_this_computer(unauthorized_phone: str) -> None:
    connect = subprocess.run(["adb", "connect", unauthorized_phone], capture_output=True, text=True, check=False)
    assert connect.returncode == 0  # "failed to authenticate"
    assert [phone.state for phone in list_phones() if phone.serial == unauthorized_phone] == ["unauthorized"]
    with pytest.raises(DeviceError, match="is unauthorized: unlock it and accept this computer's key") as caught:
        open_device(f"adb:{unauthorized_phone}").__enter__()
    assert caught.value.state == "unauthorized"
    listed = {one.name: one.facts for one in list_devices()}
    assert listed[f"adb:{unauthorized_phone}"].state == "unauthorized"
    assert "unlock it" in listed[f"adb:{unauthorized_phone}"].advice


@pytest.mark.slow
def test_a_first_connection_that_is_not_accepted(unauthorized_phone: str) -> None:
    with pytest.raises(DeviceError, match="is unauthorized: unlock it and accept") as caught:
        open_device(f"adb:{unauthorized_phone}").__enter__()
    assert caught.value.state == "unauthorized"

"""A phone by adb: the system's adb, always with its serial."""

import re
import shutil
from dataclasses import dataclass

from edgekit.devices.quoting import check_serial
from edgekit.devices.shell import ShellDevice
from edgekit.errors import DeviceError
from edgekit.processes import CompletedRun, run_process

#: the folder that Android gives to the shell's user
BASE_FOLDER = "/data/local/tmp"
_TIMEOUT_S = 30.0

#: adb's word for a state → what to do
ADVICE = {
    "unauthorized": "unlock it and accept this computer's key (plug it in again if it does not ask)",
    "authorizing": "it is deciding about this computer's key: unlock it and accept",
    "offline": "plug it in again, or `adb reconnect offline`",
    "connecting": "wait a moment, or plug it in again",
    "no permissions": "this user may not open it: install android-sdk-platform-tools-common (udev rules)",
    "recovery": "it is in recovery: start its system",
    "sideload": "it is in sideload: start its system",
    "bootloader": "it is in the bootloader: start its system",
}


@dataclass(frozen=True, kw_only=True)
class Phone:
    """One line of `adb devices`: `state` is `device` for one that can be used."""

    serial: str
    state: str

    @property
    def advice(self) -> str:
        """What to do about its state; empty where it can be used."""
        return "" if self.state == "device" else ADVICE.get(self.state, "look at the phone")


def list_phones() -> list[Phone]:
    """Every phone that adb sees, whatever its state; raises DeviceError where there is no adb or its server fails."""
    run = _adb(["devices"])
    if run.returncode != 0:
        raise DeviceError(f"`adb devices` failed: {_words(run)}", state="no adb", stdout=run.stdout, stderr=run.stderr)
    return [_parse(line) for line in run.stdout.splitlines() if "\t" in line]


def _parse(line: str) -> Phone:
    serial, _, state = line.partition("\t")
    return Phone(serial=serial, state="no permissions" if state.startswith("no permissions") else state.strip())


def _adb(arguments: list[str]) -> CompletedRun:
    if not shutil.which("adb"):
        message = "there is no adb here: sudo apt-get install adb (or Android SDK platform-tools)"
        raise DeviceError(message, state="no adb")
    return run_process(["adb", *arguments], timeout_s=_TIMEOUT_S)


def _words(run: CompletedRun) -> str:
    return " ".join((run.stdout + run.stderr).split()) or f"exit code {run.returncode}"


class AdbLink:
    """One phone; without a serial the only one there is."""

    def __init__(self, address: str) -> None:
        serial = address.removeprefix("adb").removeprefix(":")
        self.address, self._serial = address, check_serial(serial) if serial else ""

    def open(self) -> None:
        """Find the phone, connecting to `host:port` where it is not listed; raises DeviceError if unusable."""
        phones = {phone.serial: phone for phone in list_phones()}
        if not self._serial:
            self._serial = self._only(list(phones))
            self.address = f"adb:{self._serial}"
        if self._serial not in phones and re.fullmatch(r".+:\d+", self._serial):
            self._connect()
            phones = {phone.serial: phone for phone in list_phones()}
        if self._serial not in phones:
            raise self._error(f"is not there: adb sees {', '.join(phones) or 'no phone'}", "not there")
        phone = phones[self._serial]
        if phone.advice:
            raise self._error(f"is {phone.state}: {phone.advice}", phone.state)

    def _only(self, serials: list[str]) -> str:
        if len(serials) != 1:
            seen = (
                f"adb sees {', '.join(serials)}: choose one, adb:SERIAL"
                if serials
                else "adb sees no phone: plug one in"
            )
            raise DeviceError(f"which phone? {seen}", address="adb", state="not there")
        return serials[0]

    def _connect(self) -> None:
        """`adb connect` exits 0 when it fails: its words decide."""
        run = _adb(["connect", self._serial])
        if "failed to authenticate" in run.stdout:
            raise self._error(f"is unauthorized: {ADVICE['unauthorized']}", "unauthorized")
        if not re.match(r"(already )?connected to ", run.stdout.strip()):
            raise self._error(f"could not be connected ({_words(run)}): is its wireless debugging on?", "unreachable")

    def argv(self, command: str, *, first: bool = False) -> list[str]:
        """adb, the serial, and the text for the phone's shell; -T: no terminal, so that outputs stay apart."""
        return ["adb", "-s", self._serial, "shell", "-T", command]

    def explain(self, run: CompletedRun) -> DeviceError:
        """What adb's own message means, and what to do."""
        state = next((word for word in ADVICE if word in run.stderr), "unreachable")
        return self._error(f"could not be used ({_words(run)}): {ADVICE.get(state, 'plug it in again')}", state)

    def _error(self, text: str, state: str) -> DeviceError:
        return DeviceError(f"{self.address} {text}", address=self.address, state=state)

    def close(self) -> None:
        """Nothing to undo: adb's server is the user's."""


def open_adb(address: str, *, base_folder: str = "", python: str = "") -> ShellDevice:
    """The device `adb:SERIAL`, or `adb` for the only one, not yet connected; raises DeviceError for a wrong serial."""
    return ShellDevice(AdbLink(address), base_folder=base_folder or BASE_FOLDER, python=python)

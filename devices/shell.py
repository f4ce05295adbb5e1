"""A device that is reached by a command which runs a shell there: ssh or adb."""

import base64
import binascii
import contextlib
import hashlib
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from edgekit.devices import scripts
from edgekit.devices.facts import read_facts
from edgekit.devices.quoting import check_name, remote_script
from edgekit.devices.transfer import Item, Ledger, list_items
from edgekit.errors import DeviceError, DeviceLostError, ProcessError
from edgekit.measurement import DeviceFacts
from edgekit.processes import CompletedRun, OnLine, Process, run_process

CONNECT_TIMEOUT_S = 30.0
#: what a device may take for its last words: the end of a run, the removal of the folder
ANSWER_TIMEOUT_S = 20.0
_FOLDER = "edgekit-folder:"
_SLOWEST_BYTES_PER_S = 50_000


class Link(Protocol):
    """How a shell command gets to a device: what `ssh` and `adb` differ in."""

    address: str

    def open(self) -> None:
        """Prepare; raises DeviceError where it can be told already that the device can't be used."""

    def argv(self, command: str, *, first: bool = False) -> list[str]:
        """The command of this machine that runs the text `command` in a shell there.

        The `first` runs as long as the device is in use; the others may share its connection.
        """

    def explain(self, run: CompletedRun) -> DeviceError:
        """Why a first command could not be run there, and what to do."""

    def close(self) -> None:
        """Undo `open`."""


class ShellDevice:
    """A board or phone behind a link.

    A first command stays there as long as the device is in use. When its input ends, because this machine closed it,
    died, or lost the link, it ends what runs there and removes our folder.
    """

    def __init__(self, link: Link, *, base_folder: str = "", python: str = "") -> None:
        self.address, self.folder = link.address, ""
        self._link, self._base_folder, self._python = link, base_folder, python
        self._ledger = Ledger()
        self._facts: DeviceFacts | None = None

    def __enter__(self) -> Self:
        """Connect and make the folder; raises DeviceError that says what to do."""
        with contextlib.ExitStack() as undo:
            undo.callback(self._link.close)
            self._link.open()
            self.address = self._link.address
            command = remote_script(scripts.KEEPER, self._base_folder)
            self._keeper = undo.enter_context(Process(self._link.argv(command, first=True), env={"LC_ALL": "C"}))
            self.folder = self._first_words()
            self._ledger = Ledger()
            self._undo = undo.pop_all()
        return self

    def _first_words(self) -> str:
        """The folder that the keeper made."""
        try:
            while (line := self._keeper.read_line(timeout_s=CONNECT_TIMEOUT_S)) is not None:
                if _FOLDER in line:  # some logins print a greeting before it
                    return line.partition(_FOLDER)[2]
        except ProcessError as error:
            message = (
                f"{self.address} was reached but does not answer: it hangs, or is very busy; look there, try again"
            )
            raise DeviceError(message, address=self.address) from error
        run = self._keeper.wait(timeout_s=10)
        raise _refusal(run, self.address) or self._link.explain(run)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End what still runs there and remove the folder."""
        with self._undo:
            self._keeper.close_stdin()
            try:
                removed = "removed" in self._keeper.wait(timeout_s=ANSWER_TIMEOUT_S).stdout.splitlines()
            except ProcessError:
                removed = False
        if not removed and error is None:
            message = f"{self.address} vanished before its folder {self.folder} could be removed: look there"
            raise DeviceLostError(message, address=self.address)

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float,
        on_line: OnLine | None = None,
        env: Mapping[str, str] | None = None,
    ) -> CompletedRun:
        """Run a command in `folder` to its end, as the protocol says."""
        name, marker = secrets.token_hex(4), f"edgekit-{secrets.token_hex(8)}"
        variables = ["env", *(f"{key}={value}" for key, value in env.items())] if env else []
        command = remote_script(scripts.RUN, self.folder, name, marker, scripts.START, *variables, *argv)
        between = _Between(marker, on_line).take if on_line else None
        try:
            run = run_process(self._link.argv(command), timeout_s=timeout_s, on_line=between, env={"LC_ALL": "C"})
        except ProcessError as error:
            self._stop(name, argv)
            message = f"{argv[0]} did not finish within {timeout_s:g} s on {self.address} and was ended there"
            raise ProcessError(message) from error
        return self._unwrap(run, marker, argv)

    def _unwrap(self, run: CompletedRun, marker: str, argv: Sequence[str]) -> CompletedRun:
        _, _, rest = run.stdout.partition(f"{marker}\n")
        stdout, _, code = rest.rpartition(marker)
        if not code.strip().isdigit():
            raise self._lost(argv, run)
        return CompletedRun(returncode=_signed(int(code)), stdout=stdout, stderr=run.stderr)

    def _stop(self, name: str, argv: Sequence[str]) -> None:
        """End a run there; raises DeviceLostError where the device does not answer any more."""
        command = remote_script(scripts.STOP, self.folder, name)
        try:
            run = run_process(self._link.argv(command), timeout_s=ANSWER_TIMEOUT_S)
        except ProcessError as error:
            raise self._lost(argv) from error
        if "edgekit-stopped" not in run.stdout:
            raise self._lost(argv, run)

    def _lost(self, argv: Sequence[str], run: CompletedRun | None = None) -> DeviceLostError:
        last = _last_line(run.stderr) if run else ""
        return DeviceLostError(
            f"{self.address} vanished in the middle of {Path(argv[0]).name}"
            f"{f' ({last})' if last else ''}: look at its power, cable and network, then run again",
            address=self.address,
            state="lost",
            argv=tuple(argv),
            returncode=run.returncode if run else None,
            stdout=run.stdout if run else "",
            stderr=run.stderr if run else "",
        )

    def push(self, local: Path, name: str) -> str:
        """Copy a file or folder to the device, as the protocol says."""
        items = self._ledger.missing(list_items(local, name))
        for item in items:
            self._send(item)
        if items:
            self._ledger.confirm(items, self._hashes([item.name for item in items]), address=self.address)
        return f"{self.folder}/{name}"

    def _send(self, item: Item) -> None:
        command = remote_script(scripts.RECEIVE, self.folder, item.name)
        timeout_s = CONNECT_TIMEOUT_S + item.size_bytes / _SLOWEST_BYTES_PER_S
        argv = ["the transfer of " + item.name]
        try:
            run = run_process(self._link.argv(command), timeout_s=timeout_s, stdin=item.path, env={"LC_ALL": "C"})
        except ProcessError as error:
            raise self._lost(argv) from error
        if refusal := _refusal(run, self.address):
            raise refusal
        if run.returncode != 0:
            raise self._lost(argv, run)

    def pull(self, name: str, local: Path) -> None:
        """Copy a file from the device, as the protocol says."""
        check_name(name)
        wanted = self._hashes([name])[0]
        if wanted == "-":
            raise DeviceError(f"there is no file {name} in {self.folder} on {self.address}", address=self.address)
        run = self.run(["sh", "-c", scripts.PRINT, "edgekit", name], timeout_s=3600)
        with contextlib.suppress(binascii.Error):  # cut in the middle of a group
            content = base64.b64decode(run.stdout)
            if hashlib.sha256(content).hexdigest() == wanted:
                local.write_bytes(content)
                return
        raise DeviceError(f"{name} did not arrive whole from {self.address}: try again", address=self.address)

    def _hashes(self, names: Sequence[str]) -> list[str]:
        run = self.run(["sh", "-c", scripts.HASHES, "edgekit", *names], timeout_s=600)
        if run.returncode != 0:
            message = f"{self.address} can't tell what it received ({_last_line(run.stderr)}): it needs sha256sum"
            raise DeviceError(message, address=self.address)
        return [line.split()[0] for line in run.stdout.splitlines()]

    def facts(self) -> DeviceFacts:
        """What the device says of itself, asked once."""
        if self._facts is None:
            self._facts = read_facts(self, python=self._python)
        return self._facts


class _Between:
    """Hands on the lines between two markers."""

    def __init__(self, marker: str, on_line: OnLine) -> None:
        self._marker, self._on_line, self._begun = marker, on_line, False

    def take(self, line: str) -> None:
        text, marker, _ = line.partition(self._marker)
        if self._begun and (text or not marker):
            self._on_line(text)
        self._begun = self._begun or bool(marker)


#: what tools there say when a file can't be written → (state, what to do)
_REFUSALS = {
    "No space left on device": (
        "disk full",
        "its disk is full: make room there, or name another `folder` in devices.toml",
    ),
    "Disk quota exceeded": ("disk full", "its disk quota is used up: make room there, or name another `folder`"),
    "Read-only file system": ("read-only", "its file system is read-only: name a `folder` in devices.toml that is not"),
    "mktemp:": ("no folder", "no folder can be made there: name a `folder` in devices.toml that can be written to"),
}


def _refusal(run: CompletedRun, address: str) -> DeviceError | None:
    """The error for a device that answered but could not write."""
    for words, (state, advice) in _REFUSALS.items():
        if words in run.stderr:
            return DeviceError(f"{address}: {advice} ({_last_line(run.stderr)})", address=address, state=state)
    return None


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def _signed(code: int) -> int:
    """A shell's exit code as CompletedRun has it: 128 + n says that signal n killed the command."""
    return 128 - code if 128 < code <= 128 + 64 else code

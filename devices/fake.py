"""A device for the tests of what uses devices: this machine in the role of a board that answers and fails as told."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from edgekit.devices.local import LocalDevice
from edgekit.devices.transfer import list_items
from edgekit.errors import DeviceError, DeviceLostError
from edgekit.measurement import DeviceFacts
from edgekit.processes import CompletedRun, OnLine


@dataclass(frozen=True, kw_only=True)
class Faults:
    """What goes wrong: each as the real devices report it.

    `vanish_after_lines`: the device is lost once commands have printed that many lines in all. `disk_bytes`: what its
    disk takes. `no_runtime`: it has no Python. `hang`: its commands never end.
    """

    vanish_after_lines: int | None = None
    disk_bytes: int | None = None
    no_runtime: bool = False
    hang: bool = False


@dataclass(kw_only=True)
class FakeDevice:
    """This machine, with the facts, answers and faults that a test wants.

    A command whose first words are a key of `answers` prints that text and is not run. `sent` are the names of the
    files that were really copied, in order.
    """

    address: str = "fake:board"
    facts_told: DeviceFacts | None = None
    answers: Mapping[tuple[str, ...], str] = field(default_factory=dict)
    faults: Faults = Faults()
    folder: str = ""
    sent: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._local = LocalDevice(address=self.address)
        self._lines = self._bytes = 0
        self._is_lost = False
        self._known: dict[str, str] = {}

    def __enter__(self) -> Self:
        """Make the folder; raises DeviceLostError where it has vanished before."""
        self._check()
        self._local.__enter__()
        self.folder = self._local.folder
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the folder; raises DeviceLostError where the device vanished and no other error says so."""
        self._local.__exit__(kind, error, trace)
        if error is None:
            self._check()

    def _check(self) -> None:
        if self._is_lost:
            raise DeviceLostError(f"{self.address} vanished in the middle", address=self.address, state="lost")

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float,
        on_line: OnLine | None = None,
        env: Mapping[str, str] | None = None,
    ) -> CompletedRun:
        """Answer, fail, or run the command here."""
        self._check()
        for words, text in self.answers.items():
            if tuple(argv[: len(words)]) == words:
                return self._answer(text, on_line)
        command = ["sleep", "1000000"] if self.faults.hang else argv
        return self._local.run(command, timeout_s=timeout_s, on_line=self._counting(on_line), env=env)

    def _answer(self, text: str, on_line: OnLine | None) -> CompletedRun:
        for line in text.splitlines():
            self._counting(on_line)(line)
        return CompletedRun(returncode=0, stdout=text, stderr="")

    def _counting(self, on_line: OnLine | None) -> OnLine:
        def take(line: str) -> None:
            self._is_lost = self._lines == self.faults.vanish_after_lines
            self._check()
            self._lines += 1
            if on_line:
                on_line(line)

        return take

    def push(self, local: Path, name: str) -> str:
        """Copy files here; raises DeviceError once the disk is full."""
        self._check()
        for item in list_items(local, name):
            if self._known.get(item.name) != item.sha256:
                self._bytes += item.size_bytes
                if self.faults.disk_bytes is not None and self._bytes > self.faults.disk_bytes:
                    message = f"{self.address}: its disk is full: make room there"
                    raise DeviceError(message, address=self.address, state="disk full")
                self._known[item.name] = item.sha256
                self.sent.append(item.name)
        return self._local.push(local, name)

    def pull(self, name: str, local: Path) -> None:
        """Copy a file out of the folder."""
        self._check()
        self._local.pull(name, local)

    def facts(self) -> DeviceFacts:
        """The facts it was given, or this machine's."""
        self._check()
        facts = self.facts_told or self._local.facts()
        nothing: dict[str, Any] = {
            "python": None,
            "runtimes": {},
            "environments": {},
            "advice": "no runtime there: edgekit devices setup NAME",
        }
        return facts.model_copy(update=nothing) if self.faults.no_runtime else facts

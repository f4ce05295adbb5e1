"""What a device is to edgekit: a place that takes files and runs commands."""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from edgekit.measurement import DeviceFacts
from edgekit.processes import CompletedRun

OnLine = Callable[[str], None]


class Device(Protocol):
    """A place to run: this machine, a board by ssh, a phone by adb.

    A context manager: entering connects and makes `folder`, a temporary folder of ours there; leaving ends what still
    runs there and removes the folder. Commands are lists of arguments, never text for a shell.
    """

    address: str
    folder: str

    def __enter__(self) -> Self:
        """Connect and make the folder; raises DeviceError that says what to do."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End what still runs there and remove the folder."""

    def run(self, argv: Sequence[str], *, timeout_s: float, on_line: OnLine | None = None) -> CompletedRun:
        """Run a command to its end; `on_line` gets each line of its output as it comes.

        Raises DeviceLostError where the device vanished (a lost device never looks like a good exit), ProcessError at
        the time limit, when the command is ended on the device too. A non-zero exit is the caller's to judge.
        """

    def push(self, local: Path, name: str) -> str:
        """Copy a file or folder to `folder`/`name` and return its path there; unchanged content is not sent twice."""

    def pull(self, name: str, local: Path) -> None:
        """Copy a file `folder`/`name` from the device."""

    def facts(self) -> DeviceFacts:
        """What the device says of itself."""

"""What a device is to edgekit: a place that takes files and runs commands."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from edgekit.measurement import DeviceFacts
from edgekit.processes import CompletedRun, OnLine


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
        """End what still runs there and remove the folder.

        Raises DeviceLostError where that could not be done and no other error is on its way.
        """

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float,
        on_line: OnLine | None = None,
        env: Mapping[str, str] | None = None,
    ) -> CompletedRun:
        """Run a command in `folder` to its end; `on_line` gets each line of its standard output as it comes.

        Its standard input is a pipe that brings nothing and ends when this machine or the link dies. The exit code is
        negative for a signal (-11: SIGSEGV), 127 for a program that is not there; any is the caller's to judge.

        Raises DeviceLostError where the device vanished (a lost device never looks like a good exit), ProcessError at
        the time limit, when the command is ended on the device too.
        """

    def push(self, local: Path, name: str) -> str:
        """Copy a file or folder to `folder`/`name` and return its path there; unchanged content is not sent twice.

        What arrived is compared by its sha256. Raises DeviceError (a full disk, a cut transfer), DeviceLostError.
        """

    def pull(self, name: str, local: Path) -> None:
        """Copy a file `folder`/`name` from the device, compared by its sha256; raises as `push` does."""

    def facts(self) -> DeviceFacts:
        """What the device says of itself, asked once."""

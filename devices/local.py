"""This machine as a device."""

import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from edgekit.devices.facts import read_facts
from edgekit.devices.quoting import check_name
from edgekit.devices.transfer import Item, Ledger, list_items, sha256_of
from edgekit.errors import DeviceError
from edgekit.measurement import DeviceFacts
from edgekit.processes import CompletedRun, OnLine, run_process


class LocalDevice:
    """This machine: commands run in a temporary folder of their own."""

    def __init__(self, *, address: str = "local", base_folder: str = "", python: str = sys.executable) -> None:
        self.address, self.folder = address, ""
        self._base_folder, self._python = base_folder or None, python
        self._facts: DeviceFacts | None = None

    def __enter__(self) -> Self:
        """Make the folder; raises DeviceError where it can't be made."""
        try:
            self.folder = tempfile.mkdtemp(prefix="edgekit-", dir=self._base_folder)
        except OSError as error:
            raise self._refusal(error, self._base_folder or tempfile.gettempdir()) from error
        self._ledger = Ledger()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the folder; what ran there ended with its `run`."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float,
        on_line: OnLine | None = None,
        env: Mapping[str, str] | None = None,
    ) -> CompletedRun:
        """Run a command in `folder` to its end, as the protocol says."""
        if code := self._unusable(argv[0]):
            return CompletedRun(returncode=code, stdout="", stderr=f"{argv[0]}: not found or not executable\n")
        return run_process(argv, timeout_s=timeout_s, cwd=Path(self.folder), env=env, on_line=on_line)

    def _unusable(self, program: str) -> int:
        """The exit code of a shell for a program that can't be started: 127 is not there, 126 can't be executed."""
        if "/" not in program:
            return 0 if shutil.which(program) else 127
        path = Path(self.folder, program)
        if not path.exists():
            return 127
        return 0 if os.access(path, os.X_OK) and path.is_file() else 126

    def push(self, local: Path, name: str) -> str:
        """Copy a file or folder into `folder`, as the protocol says."""
        items = self._ledger.missing(list_items(local, name))
        for item in items:
            self._copy(item)
        self._ledger.confirm(items, [sha256_of(self._path(item.name)) for item in items], address=self.address)
        return str(self._path(name))

    def _copy(self, item: Item) -> None:
        target = self._path(item.name)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(item.path, target)
        except OSError as error:
            raise self._refusal(error, str(target)) from error

    def pull(self, name: str, local: Path) -> None:
        """Copy a file out of `folder`, as the protocol says."""
        if not self._path(check_name(name)).is_file():
            raise DeviceError(f"there is no file {name} in {self.folder} on {self.address}", address=self.address)
        shutil.copyfile(self._path(name), local)

    def _path(self, name: str) -> Path:
        return Path(self.folder, name)

    def _refusal(self, error: OSError, path: str) -> DeviceError:
        message = (
            f"{self.address}: can't write {path}: {error.strerror}; make room there, or set TMPDIR to another folder"
        )
        return DeviceError(message, address=self.address, state="disk full")

    def facts(self) -> DeviceFacts:
        """What this machine says of itself, asked once."""
        if self._facts is None:
            self._facts = read_facts(self, python=self._python)
        return self._facts

"""The errors of edgekit: one tree, drawn here.

EdgekitError                 edgekit says no: one clear line, exit code 1
├── UnknownNameError         a target, scheme, size, ... that does not exist (names the nearest)
├── RefusedError             a combination that exists but that edgekit will not do, with the reason
├── MissingExtraError        a library that an optional extra brings
├── RecipeError              a quantization recipe that is broken, contradicts itself or fits no module
├── DivergedError            a training whose loss is no longer a number, or far above where it began
├── DataError                a data file that can't be trained on
├── CheckpointError          a checkpoint that is broken, incomplete or not safe to load
├── OutputError              an output that exists, is in use, read-only or does not fit
├── BundleError              a bundle that is broken, changed or not safe to read
├── ResultsError             a results database that can't be read or written
├── DeviceError              a device that can't be reached or used, with what to do
│   └── DeviceLostError      ... that vanished in the middle of something
└── ProcessError             a process that failed, hung or was killed
    ├── ExportError          ... while converting, with the last meaningful lines of its log
    └── RunnerError          ... while running an exported file
"""

import difflib
from collections.abc import Iterable
from pathlib import Path


class EdgekitError(Exception):
    """Base of all errors that edgekit raises on purpose; its text is one clear line for the user."""


class UnknownNameError(EdgekitError):
    """A name given by the user that is not in the list of known ones.

    Attributes: kind (what is named, "target"), value (what was given), choices (what exists).
    """

    def __init__(self, kind: str, value: str, choices: Iterable[str]) -> None:
        self.kind, self.value, self.choices = kind, value, tuple(choices)
        nearest = difflib.get_close_matches(value.lower(), self.choices, n=1, cutoff=0.5)
        hint = f"did you mean {nearest[0]}? " if nearest else ""
        super().__init__(f"unknown {kind} {value!r}: {hint}known are {', '.join(self.choices)}")


class RefusedError(EdgekitError):
    """Something edgekit knows and will not do here; the text gives the reason and the way out."""


class MissingExtraError(EdgekitError):
    """A library is not installed; the text names the extra that brings it.

    Attributes: module (what could not be imported), extra (the name for pip).
    """

    def __init__(self, module: str, extra: str, needed_for: str) -> None:
        self.module, self.extra = module, extra
        super().__init__(f"{needed_for} needs {module}, which is not installed: pip install 'edgekit-toolkit[{extra}]'")


class RecipeError(EdgekitError):
    """A quantization recipe is broken, contradicts itself, or names modules that do not exist (names the nearest)."""


class DivergedError(EdgekitError):
    """A training's loss is no longer a number, or is far above that of its first steps."""


class DataError(EdgekitError):
    """A data source that is missing, unreadable or can't serve for training."""


class CheckpointError(EdgekitError):
    """A checkpoint that is incomplete, broken or not safe to load."""


class OutputError(EdgekitError):
    """An output that can't be written; nothing was changed there."""


class BundleError(EdgekitError):
    """A bundle that is incomplete, changed since it was written, or not safe to read."""


class DeviceError(EdgekitError):
    """A device can't be reached or used; the text says what to do next.

    Attributes: address (`ssh:user@host`, `adb:SERIAL`), state (a word for a table: unreachable, unauthorized, offline,
    …), argv, returncode, stdout and stderr of the command that failed.
    """

    def __init__(
        self,
        message: str,
        *,
        address: str = "",
        state: str = "unreachable",
        argv: tuple[str, ...] = (),
        returncode: int | None = None,
        stdout: str = "",
        stderr: str = "",
    ) -> None:
        self.address, self.state = address, state
        self.argv, self.returncode, self.stdout, self.stderr = argv, returncode, stdout, stderr
        super().__init__(message)


class DeviceLostError(DeviceError):
    """A device vanished in the middle: the link dropped, the cable was pulled, the daemon died."""


class ResultsError(EdgekitError):
    """A results database that is damaged, newer than this edgekit, out of reach or full; or a run that is not there."""


class ProcessError(EdgekitError):
    """A process that edgekit started failed.

    Attributes: returncode (None when it hit the time limit), log (where its whole output is, if kept).
    """

    def __init__(self, message: str, *, returncode: int | None = None, log: Path | None = None) -> None:
        self.returncode, self.log = returncode, log
        super().__init__(message + (f" (log: {log})" if log else ""))


class ExportError(ProcessError):
    """A conversion failed: the converter raised, crashed, hung or wrote a file that does not hold up."""


class RunnerError(ProcessError):
    """An exported file could not be run: the runtime refused it, crashed, hung or gave wrong shapes."""

"""TensorBoard logs, written by the framework that trains."""

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from edgekit.errors import OutputError
from edgekit.extras import check_installed
from edgekit.program import Framework
from edgekit.train.loop import EpochRecord, Position
from edgekit.train.trainer import StepResult, set_tensorflow_environment


class TensorBoardLog:
    """An Observer that writes loss, learning rate and accuracy to event files in a folder."""

    def __init__(self, folder: Path, framework: Framework) -> None:
        """Open the log.

        Raises MissingExtraError without tensorboard, OutputError where the folder can't be written.
        """
        check_installed(("tensorboard",), "--log-dir")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._write, self.close = _torch_writer(folder) if framework == "torch" else _tensorflow_writer(folder)
        except OSError as error:
            raise OutputError(f"can't write logs to {folder}: {error.strerror or error}") from error

    def on_step(self, step: int, total_steps: int, position: Position, result: StepResult, rate: float) -> None:
        """Log the loss and the learning rate."""
        self._write("train/loss", result.loss, step)
        self._write("train/learning_rate", rate, step)

    def on_epoch(self, record: EpochRecord, step: int) -> None:
        """Log the accuracies."""
        self._write("train/accuracy", record.accuracy, step)
        self._write("validation/accuracy", record.validation_accuracy, step)


def _torch_writer(folder: Path) -> tuple[Any, Any]:
    # tensorboard 2.21 imports TensorFlow where it is installed, only to open files: seconds, and two frameworks in one
    # process. A module of this name is tensorboard's own switch for "without TensorFlow".
    if "tensorflow" not in sys.modules:
        sys.modules.setdefault("tensorboard.compat.notf", ModuleType("tensorboard.compat.notf"))
    writer = importlib.import_module("torch.utils.tensorboard").SummaryWriter(str(folder))
    return writer.add_scalar, writer.close


def _tensorflow_writer(folder: Path) -> tuple[Any, Any]:
    set_tensorflow_environment()
    summary = importlib.import_module("tensorflow").summary
    writer = summary.create_file_writer(str(folder))

    def write(name: str, value: float, step: int) -> None:
        with writer.as_default():
            summary.scalar(name, value, step=step)

    return write, writer.close

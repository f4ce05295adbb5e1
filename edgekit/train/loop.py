"""The training loop, the same for both frameworks; it can stop after any step and go on from there."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from edgekit.errors import EdgekitError
from edgekit.model.weights import Weights
from edgekit.train.batches import Batch, batch_count, ordered_batches
from edgekit.train.settings import TrainSettings, average_decay_at, learning_rate_at
from edgekit.train.trainer import StepPlan, StepResult, Trainer

EVALUATION_BATCH_SIZE = 256


class EpochRecord(BaseModel):
    """One epoch, counted from 1: mean training loss and accuracy, and the averaged weights' on validation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epoch: int
    loss: float
    accuracy: float
    validation_accuracy: float


class Position(BaseModel):
    """Where a training stands: finished epochs, and the running one's steps and sums."""

    model_config = ConfigDict(extra="forbid")

    history: list[EpochRecord] = []
    step_in_epoch: int = 0
    loss_sum: float = 0.0
    correct: int = 0
    seen: int = 0

    @property
    def epoch(self) -> int:
        """The running epoch, from 0."""
        return len(self.history)

    @property
    def best(self) -> EpochRecord | None:
        """The first epoch with the highest validation accuracy."""
        return max(self.history, key=lambda record: record.validation_accuracy, default=None)


class EpochSource(Protocol):
    """Gives the batches of an epoch: always the same ones for the same number."""

    @property
    def examples(self) -> int:
        """Number of examples in one epoch."""

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Return the batches of an epoch, counted from 0."""


class Observer(Protocol):
    """Is told how the training goes: a progress bar, a log."""

    def on_step(self, step: int, total_steps: int, position: Position, result: StepResult, rate: float) -> None:
        """A step was taken; `step` counts from 1 over all epochs, `rate` is its learning rate."""

    def on_epoch(self, record: EpochRecord, step: int) -> None:
        """An epoch was finished and validated."""


@dataclass(frozen=True, kw_only=True)
class Held:
    """Encoded examples to score on: ids of each, and their labels int32 [n]."""

    rows: Sequence[Sequence[int]]
    labels: NDArray[np.int32]


def run_loop(
    trainer: Trainer,
    source: EpochSource,
    validation: Held,
    settings: TrainSettings,
    position: Position,
    best_weights: Weights | None,
    observers: Sequence[Observer],
    should_stop: Callable[[], bool],
) -> tuple[bool, Weights | None]:
    """Train from `position` (changed in place) to the end, or until `should_stop` after some step.

    Returns whether the end was reached, and the best epoch's weights so far.

    Raises EdgekitError when the loss is no longer a number.
    """
    steps = batch_count(source.examples, settings.batch_size)
    while position.epoch < settings.epochs and not _out_of_patience(settings, position):
        for batch in islice(source.batches(position.epoch), position.step_in_epoch, None):
            _take_step(trainer, batch, settings, position, steps, observers)
            if should_stop():
                return False, best_weights
        accuracy = float(np.mean(predict_labels(trainer, validation.rows) == validation.labels))
        previous = position.best
        record = _finish_epoch(position, accuracy)
        if previous is None or accuracy > previous.validation_accuracy:
            best_weights = trainer.weights()
        for observer in observers:
            observer.on_epoch(record, position.epoch * steps)
    return True, best_weights


def predict_labels(trainer: Trainer, rows: Sequence[Sequence[int]]) -> NDArray[np.int32]:
    """Return the label index of each row of ids, int32 [n], by the averaged weights."""
    found = np.zeros(len(rows), np.int32)
    for indices, ids, mask in ordered_batches(rows, EVALUATION_BATCH_SIZE):
        found[indices] = trainer.logits(ids, mask).argmax(-1)
    return found


def _out_of_patience(settings: TrainSettings, position: Position) -> bool:
    best = position.best
    return bool(settings.patience and best is not None and position.epoch - best.epoch >= settings.patience)


def _take_step(
    trainer: Trainer,
    batch: Batch,
    settings: TrainSettings,
    position: Position,
    steps_per_epoch: int,
    observers: Sequence[Observer],
) -> None:
    total = settings.epochs * steps_per_epoch
    step = position.epoch * steps_per_epoch + position.step_in_epoch
    plan = StepPlan(
        step=step,
        learning_rate=learning_rate_at(settings, step, total),
        average_decay=average_decay_at(settings, step),
        # 31 bits: what both frameworks take as a seed
        seed=int(np.random.SeedSequence([settings.seed, step]).generate_state(1)[0]) >> 1,
    )
    result = trainer.step(batch, plan)
    if not np.isfinite(result.loss):
        raise EdgekitError(
            f"training diverged: the loss of step {step + 1} is {result.loss}; "
            f"try a --learning-rate below {settings.learning_rate:g}"
        )
    position.step_in_epoch += 1
    position.loss_sum += result.loss * len(batch.labels)
    position.correct += result.correct
    position.seen += len(batch.labels)
    for observer in observers:
        observer.on_step(step + 1, total, position, result, plan.learning_rate)


def _finish_epoch(position: Position, validation_accuracy: float) -> EpochRecord:
    record = EpochRecord(
        epoch=position.epoch + 1,
        loss=position.loss_sum / position.seen,
        accuracy=position.correct / position.seen,
        validation_accuracy=validation_accuracy,
    )
    position.history.append(record)
    position.step_in_epoch, position.loss_sum, position.correct, position.seen = 0, 0.0, 0, 0
    return record

"""The training loop, the same for both frameworks; it can stop after any step and go on from there."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from edgekit.errors import DivergedError
from edgekit.model.weights import Weights
from edgekit.train.batches import batch_count, ordered_batches
from edgekit.train.settings import TrainSettings, average_decay_at, learning_rate_at
from edgekit.train.trainer import StepPlan, StepResult, Steps, Trainer

EVALUATION_BATCH_SIZE = 256
#: a training that goes on from a checkpoint has diverged when the mean loss of this many last steps is twice that of
#: as many first ones, and higher by at least the second number
DIVERGENCE_STEPS, DIVERGENCE_LEAST = 20, 0.3
#: the first steps count as this much at most (or four times the first of them): guessing costs less, and one that
#: diverges at once has nothing else to be compared with
DIVERGENCE_FIRST = 10.0


class EpochRecord(BaseModel):
    """One epoch, counted from 1: mean training loss and accuracy, and the averaged weights' on validation.

    Of a model that writes, these are of the next token, and `validation_bits_per_byte` of its texts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epoch: int
    loss: float
    accuracy: float
    validation_accuracy: float
    validation_bits_per_byte: float | None = None


@dataclass(frozen=True, kw_only=True)
class Validated:
    """Scores of the averaged weights on the validation part; the accuracy decides which epoch is the best."""

    accuracy: float
    bits_per_byte: float | None = None


@dataclass(frozen=True, kw_only=True)
class Best:
    """The epoch whose weights are kept (0: the checkpoint that training went on from), and its accuracy."""

    epoch: int
    validation_accuracy: float


class Position(BaseModel):
    """Where a training stands: finished epochs, and the running one's steps and sums.

    `start_accuracy` is the validation accuracy of the checkpoint that training went on from, if it did; `losses` are
    those of the last steps and `first_loss` the mean of the first ones, to see a training diverge; `stopped` says why
    it ended before its time.
    """

    model_config = ConfigDict(extra="forbid")

    history: list[EpochRecord] = []
    step_in_epoch: int = 0
    loss_sum: float = 0.0
    correct: int = 0
    seen: int = 0
    start_accuracy: float | None = None
    first_loss: float | None = None
    losses: list[float] = []
    stopped: str | None = None

    @property
    def epoch(self) -> int:
        """The running epoch, from 0."""
        return len(self.history)

    @property
    def best(self) -> Best | None:
        """The first epoch with the highest validation accuracy."""
        found = [Best(epoch=r.epoch, validation_accuracy=r.validation_accuracy) for r in self.history]
        if self.start_accuracy is not None:
            found.insert(0, Best(epoch=0, validation_accuracy=self.start_accuracy))
        return max(found, key=lambda best: best.validation_accuracy, default=None)

    def note_loss(self, loss: float) -> None:
        """Remember a step's loss among the last and, once there are enough, the mean of the first."""
        self.losses = [*self.losses, loss][-DIVERGENCE_STEPS:]
        if self.first_loss is None and len(self.losses) == DIVERGENCE_STEPS:
            self.first_loss = min(float(np.mean(self.losses)), max(4 * self.losses[0], DIVERGENCE_FIRST))

    @property
    def diverged(self) -> bool:
        """Whether the loss of the last steps is far above that of the first."""
        first = self.first_loss
        return first is not None and float(np.mean(self.losses)) > first + max(first, DIVERGENCE_LEAST)


class EpochSource(Protocol):
    """Gives the batches of an epoch: always the same ones for the same number."""

    @property
    def examples(self) -> int:
        """Number of examples in one epoch."""

    def batches(self, epoch: int) -> Iterator[Any]:
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
    trainer: Steps[Any],
    source: EpochSource,
    validate: Callable[[], Validated],
    settings: TrainSettings,
    position: Position,
    best_weights: Weights | None,
    observers: Sequence[Observer],
    should_stop: Callable[[], bool],
) -> tuple[bool, Weights | None]:
    """Train from `position` (changed in place) to the end, or until `should_stop` after some step.

    Returns whether the end was reached, and the best epoch's weights so far. A training that goes on from a checkpoint
    also ends where it diverges, which `position.stopped` then says.

    Raises DivergedError when the loss of another one is no longer a number.
    """
    steps = batch_count(source.examples, settings.batch_size)
    while position.epoch < settings.epochs and not _out_of_patience(settings, position):
        for batch in islice(source.batches(position.epoch), position.step_in_epoch, None):
            try:
                _take_step(trainer, batch, settings, position, steps, observers)
            except DivergedError as error:
                if position.start_accuracy is None:
                    raise
                position.stopped = str(error)
                return True, best_weights
            if should_stop():
                return False, best_weights
        validated = validate()
        previous = position.best
        record = _finish_epoch(position, validated)
        if previous is None or validated.accuracy > previous.validation_accuracy:
            best_weights = trainer.weights()
        for observer in observers:
            observer.on_epoch(record, position.epoch * steps)
    return True, best_weights


def accuracy_of(trainer: Trainer, held: Held) -> float:
    """Return the share of examples that the averaged weights answer right."""
    return float(np.mean(predict_labels(trainer, held.rows) == held.labels))


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
    trainer: Steps[Any],
    batch: Any,
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
    _check_loss(result.loss, step, settings, position)
    position.step_in_epoch += 1
    position.loss_sum += result.loss * batch.predictions
    position.correct += result.correct
    position.seen += batch.predictions
    for observer in observers:
        observer.on_step(step + 1, total, position, result, plan.learning_rate)


def _check_loss(loss: float, step: int, settings: TrainSettings, position: Position) -> None:
    advice = f"try a --learning-rate below {settings.learning_rate:g}"
    if not np.isfinite(loss):
        raise DivergedError(f"training diverged: the loss of step {step + 1} is {loss}; {advice}")
    if position.start_accuracy is not None:
        position.note_loss(loss)
        if position.diverged:
            last = f"the mean loss of {DIVERGENCE_STEPS} steps up to step {step + 1} is {np.mean(position.losses):.3g}"
            raise DivergedError(f"training diverged: {last}, of the first ones {position.first_loss:.3g}; {advice}")


def _finish_epoch(position: Position, validated: Validated) -> EpochRecord:
    record = EpochRecord(
        epoch=position.epoch + 1,
        loss=position.loss_sum / position.seen,
        accuracy=position.correct / position.seen,
        validation_accuracy=validated.accuracy,
        validation_bits_per_byte=validated.bits_per_byte,
    )
    position.history.append(record)
    position.step_in_epoch, position.loss_sum, position.correct, position.seen = 0, 0.0, 0, 0
    return record

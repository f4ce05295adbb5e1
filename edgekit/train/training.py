"""A whole training: data, tokenizer, loop, scores on the test set, checkpoint; from the start or from a saved state."""

import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from edgekit.checkpoint import CONFIG_FILE, Checkpoint, content_sha256, load_checkpoint, save_checkpoint
from edgekit.errors import CheckpointError, DataError, RefusedError
from edgekit.extras import installed_version
from edgekit.model.config import TransformerConfig
from edgekit.model.sizes import parameter_count
from edgekit.model.weights import Weights, initial_weights
from edgekit.outputs import check_replaceable, scratch_directory
from edgekit.text.datasets import Dataset, DataSpec, DataSummary, load_dataset, reload_data
from edgekit.text.processor import Processor, train_processor
from edgekit.train.distillation import Teacher, make_teacher
from edgekit.train.epochs import TextEpochs, encode_examples
from edgekit.train.loop import EpochRecord, Observer, Position, accuracy_of, predict_labels, run_loop
from edgekit.train.metrics import ClassificationMetrics, classification_metrics
from edgekit.train.ngrams import ngram_matrix
from edgekit.train.qat import FIRST_BATCHES
from edgekit.train.settings import TrainSettings
from edgekit.train.state import StateHeader, TrainingState, load_state, remove_state, save_state
from edgekit.train.trainer import Trainer, check_framework, make_trainer


class TrainingReport(BaseModel):
    """How a training went and what came of it: metrics.json of a checkpoint.

    `seconds` is the time spent in the loop and on the scores; `best_epoch` (from 1) is the one whose weights were
    kept, `validation_accuracy` its; `test` is of the test part of the data. Of a training that went on from a
    checkpoint, `start_accuracy` is that one's validation accuracy, and `best_epoch` 0 where none was better; `stopped`
    says why it ended before its time. With `qat`, weights and activations were rounded for all of these but `test`,
    where only weights are.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    settings: TrainSettings
    data: DataSummary
    parameters: int
    history: tuple[EpochRecord, ...]
    best_epoch: int
    validation_accuracy: float
    seconds: float
    versions: dict[str, str]
    test: ClassificationMetrics
    start_accuracy: float | None = None
    stopped: str | None = None


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """All that a training starts from; `state` is where an interrupted one stopped.

    `weights` are those of the checkpoint that it goes on from; None: fresh ones, or those of the state.
    """

    settings: TrainSettings
    dataset: Dataset
    processor: Processor
    config: TransformerConfig
    weights: Weights | None = None
    teacher: Teacher | None = None
    state: TrainingState | None = None


@dataclass(frozen=True, kw_only=True)
class TrainingOutcome:
    """A report where training reached its end, else the folder of the state to resume from."""

    output: Path
    report: TrainingReport | None = None
    state: Path | None = None


def prepare_training(settings: TrainSettings, spec: DataSpec, output: Path, *, force: bool) -> Prepared:
    """Read the data and learn the tokenizer, after checking what can be checked before.

    Raises OutputError where the output exists, DataError, UnknownNameError, RefusedError.
    """
    settings.model_config_for(vocab_size=settings.vocab_size, num_labels=2)
    check_framework(settings)
    _check_output(output, force=force)
    dataset = load_dataset(spec)
    processor = train_processor(
        settings.tokenizer,
        [example.text for example in dataset.train],
        settings.vocab_size,
        max_length=settings.max_length,
        lowercase=settings.lowercase,
        strip_placeholders=settings.strip_placeholders,
    )
    config = settings.model_config_for(vocab_size=processor.vocab_size, num_labels=len(dataset.labels))
    teacher = _load_teacher(settings, dataset, processor)
    return Prepared(settings=settings, dataset=dataset, processor=processor, config=config, teacher=teacher)


def prepare_continued(
    settings: TrainSettings, checkpoint: Checkpoint, spec: DataSpec | None, output: Path, *, force: bool
) -> Prepared:
    """Read the data that a checkpoint is trained further on: `spec`, or what it was trained on before.

    Raises OutputError where the output exists, DataError, RefusedError where its labels are not the checkpoint's.
    """
    check_framework(settings)
    _check_output(output, force=force)
    if spec is not None:
        dataset = load_dataset(spec)
    elif checkpoint.data is not None:
        dataset = reload_data(checkpoint.data)
    else:
        raise DataError(f"the checkpoint {checkpoint.name} does not say what it was trained on: give --data")
    check_labels(dataset.labels, checkpoint, "--from")
    return Prepared(
        settings=settings,
        dataset=dataset,
        processor=checkpoint.processor,
        config=checkpoint.config.model_copy(update={"dropout": settings.dropout}),
        weights=checkpoint.weights,
        teacher=_load_teacher(settings, dataset, checkpoint.processor),
    )


def _load_teacher(settings: TrainSettings, dataset: Dataset, processor: Processor) -> Teacher | None:
    if settings.teacher is None:
        return None
    checkpoint = load_checkpoint(Path(settings.teacher))
    check_labels(dataset.labels, checkpoint, "--teacher")
    return make_teacher(checkpoint, dataset.labels, processor)


def check_labels(labels: Sequence[str], checkpoint: Checkpoint, option: str) -> None:
    """Raise RefusedError, naming a label, unless a checkpoint given with `option` has the data's labels."""
    other = sorted(set(labels) ^ set(checkpoint.labels))
    if other:
        where = "the data" if other[0] in labels else f"the checkpoint {checkpoint.name}"
        raise RefusedError(
            f"{option} {checkpoint.name}: its {len(checkpoint.labels)} labels are not the {len(labels)} of the data "
            f"({other[0]!r} is one of {where} alone)"
        )


def prepare_resumed(output: Path, *, force: bool) -> Prepared:
    """Read the state beside `output` and the data it was training on.

    Raises CheckpointError where there is no state or it is broken, DataError where the data has changed.
    """
    state = load_state(output)
    check_framework(state.header.settings)
    _check_output(output, force=force)
    settings, dataset = state.header.settings, reload_data(state.header.data)
    if settings.teacher is not None and content_sha256(Path(settings.teacher)) != state.header.teacher_sha256:
        raise CheckpointError(f"the teacher {settings.teacher} has changed since the training was interrupted")
    return Prepared(
        settings=settings,
        dataset=dataset,
        teacher=_load_teacher(settings, dataset, state.processor),
        processor=state.processor,
        config=state.header.config,
        state=state,
    )


def _check_output(output: Path, *, force: bool) -> None:
    """Raise OutputError now rather than after hours where the output can't be written."""
    check_replaceable(output, force=force, marker=CONFIG_FILE)
    with scratch_directory(output.parent):
        pass


def run_training(
    prepared: Prepared,
    output: Path,
    *,
    force: bool = False,
    observers: Sequence[Observer] = (),
    should_stop: Callable[[], bool] = lambda: False,
) -> TrainingOutcome:
    """Train to the end and write the checkpoint, or stop after some step and write the state.

    Raises MissingExtraError without the framework, OutputError where nothing can be written, DivergedError when the
    loss is no longer a number; where training goes on from a checkpoint, that ends it with the best weights so far.
    """
    settings, dataset, processor = prepared.settings, prepared.dataset, prepared.processor
    ngrams = ngram_matrix(processor, settings.ngrams)
    weights = prepared.weights or initial_weights(prepared.config, settings.seed)
    trainer = make_trainer(prepared.config, weights, settings, ngrams, prepared.teacher)
    position, best, before_s = _restore(prepared.state, trainer)
    started = time.monotonic()
    teacher_processor = prepared.teacher.processor if prepared.teacher is not None else None
    source = TextEpochs(dataset.train, dataset.labels, processor, settings, teacher_processor)
    validation = encode_examples(dataset.validation, dataset.labels, processor)
    if prepared.weights is not None:
        for batch in islice(source.batches(0), FIRST_BATCHES):
            trainer.observe(batch)
        position.start_accuracy, best = accuracy_of(trainer, validation), prepared.weights
    finished, best = run_loop(
        trainer,
        source,
        validation,
        settings,
        position,
        best,
        observers,
        should_stop,
    )
    if best is None or not finished:  # (an end without any epoch does not happen: epochs ≥ 1)
        header = StateHeader(
            settings=settings,
            data=dataset.record,
            config=prepared.config,
            position=position,
            seconds=before_s + time.monotonic() - started,
            teacher_sha256=None if settings.teacher is None else content_sha256(Path(settings.teacher)),
        )
        state = TrainingState(header=header, processor=processor, tensors=trainer.state(), best_weights=best)
        return TrainingOutcome(output=output, state=save_state(state, output))
    test = _score(prepared, best)
    report = _report(prepared, position, before_s + time.monotonic() - started, test)
    save_checkpoint(_checkpoint(prepared, best, report, output), output, force=force)
    remove_state(output)
    return TrainingOutcome(output=output, report=report)


def _restore(state: TrainingState | None, trainer: Trainer) -> tuple[Position, Weights | None, float]:
    if state is None:
        return Position(), None, 0.0
    expected = {name: tensor.shape for name, tensor in trainer.state().items()}
    if {name: tensor.shape for name, tensor in state.tensors.items()} != expected:
        raise CheckpointError("the saved state of this training is broken: its tensors are not those of the model")
    trainer.load_state(state.tensors)
    return state.header.position, state.best_weights, state.header.seconds


def _score(prepared: Prepared, weights: Weights) -> ClassificationMetrics:
    dataset = prepared.dataset
    test = encode_examples(dataset.test, dataset.labels, prepared.processor)
    trainer = make_trainer(prepared.config, weights, prepared.settings.model_copy(update={"qat": "none"}))
    return classification_metrics(test.labels, predict_labels(trainer, test.rows), dataset.labels)


def _report(prepared: Prepared, position: Position, seconds: float, test: ClassificationMetrics) -> TrainingReport:
    best = position.best
    if best is None:  # run_loop gives no weights to score without it
        raise CheckpointError("the training has no finished epoch")
    modules = (prepared.settings.framework, *(("keras",) if prepared.settings.framework == "tensorflow" else ()))
    return TrainingReport(
        settings=prepared.settings,
        data=prepared.dataset.summary,
        parameters=parameter_count(prepared.config),
        history=tuple(position.history),
        best_epoch=best.epoch,
        validation_accuracy=best.validation_accuracy,
        seconds=round(seconds, 1),
        versions={
            "python": platform.python_version(),
            **{module: installed_version(module) or "unknown" for module in modules},
        },
        test=test,
        start_accuracy=position.start_accuracy,
        stopped=position.stopped,
    )


def _checkpoint(prepared: Prepared, weights: Weights, report: TrainingReport, output: Path) -> Checkpoint:
    return Checkpoint(
        path=output,
        name=output.name,
        framework=prepared.settings.framework,
        config=prepared.config,
        weights=weights,
        processor=prepared.processor,
        labels=prepared.dataset.labels,
        data=prepared.dataset.record,
        metrics=report.model_dump(mode="json"),
    )

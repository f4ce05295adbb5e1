"""A whole training: data, tokenizer, loop, scores on the test set, checkpoint; from the start or from a saved state."""

import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from edgekit.checkpoint import (
    CONFIG_FILE,
    Checkpoint,
    check_classifier,
    content_sha256,
    load_checkpoint,
    save_checkpoint,
)
from edgekit.errors import CheckpointError, DataError, RefusedError
from edgekit.extras import installed_version
from edgekit.model.config import TransformerConfig
from edgekit.model.sizes import parameter_count
from edgekit.model.weights import Weights, initial_weights
from edgekit.outputs import check_replaceable, scratch_directory
from edgekit.text.corpora import Corpus, CorpusSummary, load_corpus, reload_corpus
from edgekit.text.datasets import DataRecord, Dataset, DataSpec, DataSummary, load_dataset, reload_data
from edgekit.text.processor import Processor, train_processor
from edgekit.train.distillation import Teacher, make_teacher
from edgekit.train.jobs import Job, Metrics, classification_job, writing_job
from edgekit.train.loop import EpochRecord, Observer, Position, run_loop
from edgekit.train.settings import TrainSettings
from edgekit.train.state import StateHeader, TrainingState, load_state, remove_state, save_state
from edgekit.train.text_metrics import check_translation_metrics
from edgekit.train.trainer import Steps, check_framework


class TrainingReport(BaseModel):
    """How a training went and what came of it: metrics.json of a checkpoint.

    `seconds` is the time spent in the loop and on the scores; `best_epoch` (from 1) is the one whose weights were
    kept, `validation_accuracy` its; `test` is of the test part of the data. Of a training that went on from a
    checkpoint, `start_accuracy` is that one's validation accuracy, and `best_epoch` 0 where none was better; `stopped`
    says why it ended before its time. `too_long` pairs of texts were left out of training. With `qat`, weights and
    activations were rounded for all of these but `test`, where only weights are.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    settings: TrainSettings
    data: DataSummary | CorpusSummary
    parameters: int
    history: tuple[EpochRecord, ...]
    best_epoch: int
    validation_accuracy: float
    seconds: float
    versions: dict[str, str]
    test: Metrics
    too_long: int = 0
    start_accuracy: float | None = None
    stopped: str | None = None


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """All that a training starts from; `state` is where an interrupted one stopped.

    `weights` are those of the checkpoint that it goes on from; None: fresh ones, or those of the state.
    """

    settings: TrainSettings
    dataset: Dataset | Corpus
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
    writes = settings.task != "classify"
    settings.model_config_for(vocab_size=settings.vocab_size, num_labels=0 if writes else 2)
    check_framework(settings)
    if settings.task == "translate":
        check_translation_metrics()
    _check_output(output, force=force)
    if writes:
        return _prepare_writing(settings, load_corpus(spec))
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


def _prepare_writing(settings: TrainSettings, corpus: Corpus) -> Prepared:
    processor = train_processor(
        settings.tokenizer,
        [text for pair in corpus.train for text in (pair.source, pair.target) if text],
        settings.vocab_size,
        max_length=settings.max_length,
        writes=True,
    )
    config = settings.model_config_for(vocab_size=processor.vocab_size, num_labels=0)
    return Prepared(settings=settings, dataset=corpus, processor=processor, config=config)


def prepare_continued(
    settings: TrainSettings, checkpoint: Checkpoint, spec: DataSpec | None, output: Path, *, force: bool
) -> Prepared:
    """Read the data that a checkpoint is trained further on: `spec`, or what it was trained on before.

    Raises OutputError where the output exists, DataError, RefusedError where its labels are not the checkpoint's.
    """
    check_classifier(checkpoint, "--from")
    if settings.qat != "none" and (checkpoint.config.gated_ffn or checkpoint.config.num_kv_heads is not None):
        raise RefusedError(f"--qat {settings.qat} does not know gated feed-forward layers or shared keys' heads")
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
    check_classifier(checkpoint, "--teacher")
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
    settings, dataset = state.header.settings, _reload(state.header.data)
    if settings.teacher is not None and content_sha256(Path(settings.teacher)) != state.header.teacher_sha256:
        raise CheckpointError(f"the teacher {settings.teacher} has changed since the training was interrupted")
    return Prepared(
        settings=settings,
        dataset=dataset,
        teacher=_load_teacher(settings, dataset, state.processor) if isinstance(dataset, Dataset) else None,
        processor=state.processor,
        config=state.header.config,
        state=state,
    )


def _reload(record: DataRecord) -> Dataset | Corpus:
    return reload_data(record) if record.task == "classify" else reload_corpus(record)


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
    settings, job = prepared.settings, _job(prepared)
    position, best, before_s = _restore(prepared.state, job.trainer)
    started = time.monotonic()
    if prepared.weights is not None:
        job.observe()
        position.start_accuracy, best = job.validate().accuracy, prepared.weights
    finished, best = run_loop(
        job.trainer,
        job.source,
        job.validate,
        settings,
        position,
        best,
        observers,
        lambda: job.agree(should_stop()),
    )
    if job.worker.rank > 0:  # another process writes
        return TrainingOutcome(output=output)
    if best is None or not finished:  # (an end without any epoch does not happen: epochs ≥ 1)
        header = StateHeader(
            settings=settings,
            data=prepared.dataset.record,
            config=prepared.config,
            position=position,
            seconds=before_s + time.monotonic() - started,
            teacher_sha256=None if settings.teacher is None else content_sha256(Path(settings.teacher)),
        )
        tensors = job.trainer.state()
        state = TrainingState(header=header, processor=prepared.processor, tensors=tensors, best_weights=best)
        return TrainingOutcome(output=output, state=save_state(state, output))
    test = job.score(best)
    report = _report(prepared, job, position, before_s + time.monotonic() - started, test)
    save_checkpoint(_checkpoint(prepared, best, report, output), output, force=force)
    remove_state(output)
    return TrainingOutcome(output=output, report=report)


def _job(prepared: Prepared) -> Job:
    settings, processor, dataset = prepared.settings, prepared.processor, prepared.dataset
    weights = prepared.weights or initial_weights(prepared.config, settings.seed)
    if isinstance(dataset, Corpus):
        return writing_job(prepared.config, weights, settings, dataset, processor)
    return classification_job(prepared.config, weights, settings, dataset, processor, prepared.teacher)


def _restore(state: TrainingState | None, trainer: Steps[Any]) -> tuple[Position, Weights | None, float]:
    if state is None:
        return Position(), None, 0.0
    expected = {name: tensor.shape for name, tensor in trainer.state().items()}
    if {name: tensor.shape for name, tensor in state.tensors.items()} != expected:
        raise CheckpointError("the saved state of this training is broken: its tensors are not those of the model")
    trainer.load_state(state.tensors)
    return state.header.position, state.best_weights, state.header.seconds


def _report(prepared: Prepared, job: Job, position: Position, seconds: float, test: Metrics) -> TrainingReport:
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
        too_long=job.too_long,
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
        labels=prepared.dataset.labels if isinstance(prepared.dataset, Dataset) else (),
        data=prepared.dataset.record,
        metrics=report.model_dump(mode="json"),
    )

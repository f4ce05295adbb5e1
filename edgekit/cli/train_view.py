"""How a training is shown: progress and remarks on stderr, tables or JSON on stdout."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from edgekit.checkpoint import content_sha256
from edgekit.cli.output import human_size, print_json, print_table, stderr
from edgekit.model.sizes import parameter_count, weights_size_bytes
from edgekit.text.corpora import Corpus
from edgekit.text.datasets import Dataset
from edgekit.train.loop import EpochRecord, Position
from edgekit.train.metrics import ClassificationMetrics
from edgekit.train.text_metrics import GenerationMetrics, TranslationMetrics
from edgekit.train.trainer import StepResult
from edgekit.train.training import Prepared, TrainingOutcome, TrainingReport


class TrainingView:
    """An Observer of the loop that draws a progress bar with loss, accuracy and time left, and a line per epoch."""

    def __init__(self, *, as_json: bool, quiet: bool = False) -> None:
        self._as_json, self._quiet = as_json, quiet
        self._epochs = 0
        self._progress: Progress | None = None
        self._task = TaskID(0)

    def remark(self, text: str) -> None:
        """Print a line on stderr, unless another process does."""
        if not self._quiet:
            stderr.print(text, markup=False)

    def show_data(self, prepared: Prepared) -> None:
        """Say what will be learned from what, and what can't be learned from it."""
        config, settings = prepared.config, prepared.settings
        dataset = prepared.dataset
        for line in _corpus_lines(dataset) if isinstance(dataset, Corpus) else _data_lines(dataset):
            self.remark(line)
        self.remark(
            f"{settings.size}, {parameter_count(config):,} parameters ({human_size(weights_size_bytes(config))}), "
            f"{settings.tokenizer} tokenizer with {config.vocab_size:,} ids, {settings.framework}"
        )

        if prepared.teacher is not None:
            states = (
                "and hidden states"
                if prepared.teacher.compares_states
                else ("alone: its tokenizer is another, so hidden states are of other tokens and not compared")
            )
            self.remark(f"Learning from the answers of {settings.teacher} {states}")

    @contextmanager
    def progress(self, epochs: int) -> Iterator[None]:
        """Show the bar while the block runs."""
        self._epochs = epochs
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[scores]}"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=stderr, disable=self._quiet or not stderr.is_terminal) as self._progress:
            self._task = self._progress.add_task("starting", total=None, scores="")
            yield
        self._progress = None

    def on_step(self, step: int, total_steps: int, position: Position, result: StepResult, rate: float) -> None:
        """Move the bar."""
        if self._progress is not None:
            scores = f"loss {position.loss_sum / position.seen:.3f}  accuracy {position.correct / position.seen:.1%}"
            description = f"epoch {position.epoch + 1}/{self._epochs}"
            self._progress.update(self._task, completed=step, total=total_steps, description=description, scores=scores)

    def on_epoch(self, record: EpochRecord, step: int) -> None:
        """Print the epoch's line."""
        bits = record.validation_bits_per_byte
        self.remark(
            f"epoch {record.epoch}/{self._epochs}: loss {record.loss:.3f}, accuracy {record.accuracy:.1%}, "
            f"validation accuracy {record.validation_accuracy:.1%}"
            + ("" if bits is None else f", {bits:.3f} bits per byte")
        )

    def _show_start(self, report: TrainingReport) -> None:
        """Say what became of the checkpoint that training went on from."""
        if report.stopped is not None:
            self.remark(f"Stopped: {report.stopped}")
        if report.start_accuracy is not None:
            rounded = "" if report.settings.qat == "none" else f" in {report.settings.qat}"
            after = f"{report.validation_accuracy:.1%} after epoch {report.best_epoch}"
            if report.best_epoch == 0:
                after = "no epoch was better: the weights are the checkpoint's"
            self.remark(f"Validation accuracy{rounded}: {report.start_accuracy:.1%} before training, {after}")

    def show_outcome(self, outcome: TrainingOutcome) -> None:
        """Print the scores, or how to go on after Ctrl-C."""
        if outcome.report is None and outcome.state is None:
            return  # another process of this training writes
        if outcome.report is None:
            command = f"edgekit train --resume -o {shlex.quote(str(outcome.output))}"
            self.remark(f"Interrupted; everything is saved in {outcome.state}. Go on with:\n  {command}")
            if self._as_json:
                print_json({"interrupted": True, "state": str(outcome.state), "resume": command})
            return
        self._show_start(outcome.report)
        if outcome.report.too_long:
            self.remark(f"{outcome.report.too_long:,} pairs are longer than --max-length and were left out of training")
        if self._as_json:
            report = outcome.report.model_dump(mode="json")
            print_json({"checkpoint": str(outcome.output), "sha256": content_sha256(outcome.output), **report})
        else:
            _print_report(outcome.report)
            written = f"Written to {outcome.output}"
            if outcome.report.settings.task != "classify":
                self.remark(written)
                return
            path = shlex.quote(str(outcome.output))
            self.remark(f"{written}. Next:\n  edgekit export {path} --target tflite")


def _data_lines(dataset: Dataset) -> Iterator[str]:
    summary = dataset.summary
    yield (
        f"{summary.train + summary.train_variants:,} texts to train on, {summary.validation:,} to validate, "
        f"{summary.test:,} to test; {len(dataset.labels)} labels"
    )
    if summary.texts_with_several_labels:
        yield (
            f"{summary.texts_with_several_labels:,} texts exist under several labels: they stay for training, and "
            f"{summary.ambiguous_held_out:,} examples of them are left out of validation and test (no one answer "
            "is right)"
        )


def _corpus_lines(corpus: Corpus) -> Iterator[str]:
    summary, translated = corpus.summary, corpus.record.task == "translate"
    yield (
        f"{summary.train:,} {'pairs' if translated else 'texts'} to train on, {summary.validation:,} to validate, "
        f"{summary.test:,} to test"
    )
    if summary.empty:
        yield f"{summary.empty:,} rows {'with an empty side' if translated else 'without a text'} were skipped"
    if translated:
        yield (
            f"{summary.with_placeholders:,} sources have placeholders such as %(name)s; in "
            f"{summary.placeholders_differ:,} pairs the translation has others"
        )


def _print_report(report: TrainingReport) -> None:
    if isinstance(report.test, ClassificationMetrics):
        _print_classification(report, report.test)
    else:
        _print_writing(report, report.test)


def _print_writing(report: TrainingReport, test: GenerationMetrics) -> None:
    names = ["bits per byte", "accuracy of tokens"]
    values = [f"{test.bits_per_byte:.3f}", f"{test.accuracy:.2%}"]
    if isinstance(test, TranslationMetrics):
        kept = "none" if test.placeholder_accuracy is None else f"{test.placeholder_accuracy:.1%}"
        names = ["chrF", "BLEU", f"placeholders kept ({test.with_placeholders:,})", "exact", *names]
        values = [f"{test.chrf:.1f}", f"{test.bleu:.1f}", kept, f"{test.exact:.1%}", *values]
    print_table(
        [*names, "test texts", *_TRAINING_COLUMNS],
        [[*values, f"{test.examples:,}", *_training_values(report)]],
        title="Result",
    )


def _print_classification(report: TrainingReport, test: ClassificationMetrics) -> None:
    print_table(
        ["label", "precision", "recall", "F1", "examples"],
        [
            [row.label, f"{row.precision:.3f}", f"{row.recall:.3f}", f"{row.f1:.3f}", str(row.support)]
            for row in test.labels
        ],
        title="Each label, on the test part",
    )
    if test.confusions:
        print_table(
            ["label", "taken for", "times"],
            [[pair.label, pair.predicted, str(pair.count)] for pair in test.confusions[:10]],
            title="Most frequent confusions",
        )
    print_table(
        ["accuracy", "macro-F1", "test texts", *_TRAINING_COLUMNS],
        [[f"{test.accuracy:.2%}", f"{test.macro_f1:.3f}", f"{test.examples:,}", *_training_values(report)]],
        title="Result",
    )


_TRAINING_COLUMNS = ("best epoch", "parameters", "time")


def _training_values(report: TrainingReport) -> tuple[str, str, str]:
    best = f"{report.best_epoch} of {len(report.history)}"
    return best, f"{report.parameters:,}", f"{report.seconds:.0f} s"

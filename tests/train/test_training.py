"""Whole trainings on small data: checkpoint, report, early stopping, logs, and going on after an interruption."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from edgekit.checkpoint import load_checkpoint
from edgekit.errors import CheckpointError, DataError, EdgekitError, MissingExtraError, OutputError
from edgekit.processes import run_process
from edgekit.program import FRAMEWORKS, Framework
from edgekit.proof.samples import held_out
from edgekit.text.datasets import DataSpec
from edgekit.train.loop import EpochRecord, Observer, Position
from edgekit.train.settings import TrainSettings
from edgekit.train.state import state_path
from edgekit.train.trainer import StepResult
from edgekit.train.training import (
    TrainingOutcome,
    TrainingReport,
    prepare_resumed,
    prepare_training,
    run_training,
)

Settings = Callable[..., TrainSettings]


def train(
    settings: TrainSettings,
    spec: DataSpec,
    output: Path,
    observers: Sequence[Observer] = (),
    should_stop: Callable[[], bool] = lambda: False,
) -> TrainingOutcome:
    prepared = prepare_training(settings, spec, output, force=False)
    return run_training(prepared, output, observers=observers, should_stop=should_stop)


def stop_after(steps: int) -> Callable[[], bool]:
    taken = iter(range(1, 10**6))
    return lambda: next(taken) >= steps


class Recorder:
    def __init__(self) -> None:
        self.steps: list[int] = []
        self.total = 0
        self.epochs: list[EpochRecord] = []

    def on_step(self, step: int, total_steps: int, position: Position, result: StepResult, rate: float) -> None:
        self.steps.append(step)
        self.total = total_steps

    def on_epoch(self, record: EpochRecord, step: int) -> None:
        self.epochs.append(record)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_it_learns_and_reports(framework: Framework, spec: DataSpec, small_settings: Settings, tmp_path: Path) -> None:
    recorder, output = Recorder(), tmp_path / "words"
    outcome = train(small_settings(framework=framework, epochs=8), spec, output, [recorder])
    checkpoint = load_checkpoint(output)
    assert outcome.report is not None
    assert outcome.report.test.accuracy > 0.9
    assert TrainingReport.model_validate(checkpoint.metrics) == outcome.report
    assert outcome.report.test.examples == len(held_out(checkpoint))
    assert outcome.report.best_epoch == max(recorder.epochs, key=lambda r: r.validation_accuracy).epoch
    assert recorder.steps == list(range(1, recorder.total + 1))
    assert (checkpoint.framework, checkpoint.name) == (framework, "words")
    assert {row.label for row in outcome.report.test.labels} == {"fruit", "metal"}


def test_the_same_settings_give_the_same_weights(spec: DataSpec, small_settings: Settings, tmp_path: Path) -> None:
    for name in ("a", "b"):
        train(small_settings(), spec, tmp_path / name)
    train(small_settings(seed=1), spec, tmp_path / "c")
    first, again, other = ((tmp_path / name / "model.safetensors").read_bytes() for name in "abc")
    assert first == again
    assert first != other


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_resumed_training_ends_as_the_uninterrupted_one(
    framework: Framework, spec: DataSpec, small_settings: Settings, tmp_path: Path
) -> None:
    settings = small_settings(framework=framework, crop=0.3, join=0.2)
    train(settings, spec, tmp_path / "whole")
    output = tmp_path / "parts"
    outcome = train(settings, spec, output, should_stop=stop_after(13))  # within the second epoch
    assert outcome.state == state_path(output)
    assert not output.exists()
    if framework == "torch":  # stopped twice; once is enough for the slower framework
        resumed = run_training(prepare_resumed(output, force=False), output, should_stop=stop_after(1))
        assert resumed.state is not None
    run_training(prepare_resumed(output, force=False), output)
    assert not state_path(output).exists()
    whole, parts = (load_checkpoint(path) for path in (tmp_path / "whole", output))
    for name, tensor in whole.weights.items():
        np.testing.assert_array_equal(parts.weights[name], tensor, err_msg=name)
    assert whole.metrics is not None
    assert parts.metrics is not None
    assert parts.metrics["history"] == whole.metrics["history"]
    assert parts.metrics["test"] == whole.metrics["test"]


def test_stopped_at_an_epochs_last_step(spec: DataSpec, small_settings: Settings, tmp_path: Path) -> None:
    settings, recorder = small_settings(epochs=2), Recorder()
    train(settings, spec, tmp_path / "whole", [recorder])
    output = tmp_path / "parts"
    train(settings, spec, output, should_stop=stop_after(recorder.total // 2))
    run_training(prepare_resumed(output, force=False), output)
    files = [path / "model.safetensors" for path in (tmp_path / "whole", output)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_what_a_resumed_training_refuses(
    spec: DataSpec, small_settings: Settings, tmp_path: Path, data_file: Path
) -> None:
    output = tmp_path / "m"
    with pytest.raises(CheckpointError, match="nothing to resume"):
        prepare_resumed(output, force=False)
    train(small_settings(), spec, output, should_stop=stop_after(3))
    state = state_path(output) / "state.safetensors"
    content = state.read_bytes()
    state.write_bytes(content[:-10])
    with pytest.raises(CheckpointError, match=r"state\.safetensors"):
        prepare_resumed(output, force=False)
    state.write_bytes(content)
    header = state_path(output) / "state.json"
    original = header.read_text()
    header.write_text(original.replace('"hidden_size": 128', '"hidden_size": 64'))
    with pytest.raises(CheckpointError, match="broken"):
        run_training(prepare_resumed(output, force=False), output)
    header.write_text(original)
    data_file.write_text(data_file.read_text() + "quince\tfruit\n")
    with pytest.raises(DataError, match="changed since training"):
        prepare_resumed(output, force=False)


def test_early_stopping_keeps_the_best_epoch(spec: DataSpec, small_settings: Settings, tmp_path: Path) -> None:
    outcome = train(small_settings(epochs=40, patience=2), spec, tmp_path / "m")
    assert outcome.report is not None
    history = outcome.report.history
    assert len(history) == outcome.report.best_epoch + 2 < 40
    assert outcome.report.validation_accuracy == max(record.validation_accuracy for record in history)


def test_a_diverged_loss_is_an_error(spec: DataSpec, small_settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(EdgekitError, match=r"diverged.*--learning-rate"):
        train(small_settings(learning_rate=1e30, warmup_fraction=0), spec, tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_an_existing_output_is_kept_before_any_work(spec: DataSpec, small_settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text("{}")
    missing = spec.model_copy(update={"source": "nowhere.tsv"})
    with pytest.raises(OutputError, match="--force"):
        prepare_training(small_settings(), missing, tmp_path / "m", force=False)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"not a folder|a file"):
        prepare_training(small_settings(), missing, tmp_path / "file" / "m", force=False)


def test_a_missing_framework_names_its_extra(
    spec: DataSpec, small_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgekit.extras.is_installed", lambda module: False)
    for framework in FRAMEWORKS:
        with pytest.raises(MissingExtraError, match=rf"edgekit-toolkit\[{framework}\]"):
            prepare_training(small_settings(framework=framework), spec, tmp_path / "m", force=False)


WRITE_LOG = """
import sys
from pathlib import Path
from edgekit.train.logs import TensorBoardLog
from edgekit.train.loop import EpochRecord, Position
from edgekit.train.trainer import StepResult
log = TensorBoardLog(Path(sys.argv[1]), sys.argv[2])
for step in (1, 2):
    log.on_step(step, 2, Position(), StepResult(loss=3.0 / step, correct=1), 1e-3)
log.on_epoch(EpochRecord(epoch=1, loss=1.0, accuracy=0.5, validation_accuracy=0.25), 2)
log.close()
print(*({"torch", "tensorflow"} & set(sys.modules)))
"""


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_tensorboard_reads_the_logs(framework: Framework, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    # In a process of its own, as in training: it must load one framework only.
    argv = [sys.executable, "-c", WRITE_LOG, str(tmp_path / "logs"), framework]
    root = str(Path(__file__).parents[2])
    result = run_process(argv, timeout_s=120, env={"PYTHONPATH": root})
    assert (result.returncode, result.stdout.split()) == (0, [framework]), result.stderr
    events = EventAccumulator(str(tmp_path / "logs"), size_guidance={"tensors": 0})
    events.Reload()
    tags = events.Tags()
    names = {"train/loss", "train/learning_rate", "train/accuracy", "validation/accuracy"}
    assert names == {*tags["scalars"], *tags["tensors"]}
    if framework == "torch":
        assert [event.value for event in events.Scalars("train/loss")] == [3.0, 1.5]


def test_metrics_file_says_what_made_it(spec: DataSpec, small_settings: Settings, tmp_path: Path) -> None:
    train(small_settings(epochs=1), spec, tmp_path / "m")
    metrics = json.loads((tmp_path / "m" / "metrics.json").read_text())
    assert metrics["settings"]["epochs"] == 1
    assert metrics["data"]["ambiguous_held_out"] == 0
    assert "torch" in metrics["versions"]

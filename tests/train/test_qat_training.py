"""Whole trainings that go on from a checkpoint with rounded weights, and what comes of those that go wrong."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from edgekit.checkpoint import Checkpoint, load_checkpoint
from edgekit.cli.main import app
from edgekit.errors import DataError, EdgekitError
from edgekit.program import FRAMEWORKS, Framework
from edgekit.text.datasets import DataSpec
from edgekit.train.loop import Position
from edgekit.train.state import state_path
from edgekit.train.training import prepare_resumed, prepare_training, run_training
from tests.train.conftest import make_small_settings


@pytest.fixture
def base(spec: DataSpec, tmp_path: Path) -> Checkpoint:
    """A model so small that int4 costs it something."""
    settings = make_small_settings(hidden_size=16, num_heads=2, ffn_size=32, num_layers=1, epochs=6, learning_rate=4e-3)
    run_training(prepare_training(settings, spec, tmp_path / "base", force=False), tmp_path / "base")
    return load_checkpoint(tmp_path / "base")


def run(*arguments: str) -> tuple[str, str]:
    result = CliRunner().invoke(app, ["train", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout, result.stderr


def refusal(*arguments: str) -> str:
    with pytest.raises(EdgekitError) as caught:
        CliRunner().invoke(app, ["train", *arguments], catch_exceptions=False)
    return str(caught.value)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_it_goes_on_and_stays_plain(base: Checkpoint, framework: Framework, tmp_path: Path) -> None:
    output = tmp_path / "q"
    options = ("--from", str(base.path), "--framework", framework, "--qat=int4-weight", "--epochs=2", "--batch-size=16")
    stdout, stderr = run(*options, "--json", "-o", str(output))
    report = json.loads(stdout)
    made = load_checkpoint(output)
    assert made.weights.keys() == base.weights.keys()
    assert (made.config, made.labels, made.framework) == (base.config, base.labels, framework)
    assert made.processor.encode(["apple"]) == base.processor.encode(["apple"])
    assert report["settings"]["qat"] == "int4-weight"
    assert report["settings"]["from_checkpoint"] == str(base.path)
    assert report["settings"]["learning_rate"] == 5e-4
    assert report["start_accuracy"] <= report["validation_accuracy"]
    assert "Validation accuracy in int4-weight" in stderr
    if report["best_epoch"] == 0:
        for name, tensor in base.weights.items():
            np.testing.assert_array_equal(made.weights[name], tensor)
    else:
        assert any(np.any(made.weights[name] != tensor) for name, tensor in base.weights.items())


def test_without_qat_it_is_plain_training(base: Checkpoint, tmp_path: Path) -> None:
    report = json.loads(run("--from", str(base.path), "--epochs=1", "--json", "-o", str(tmp_path / "m"))[0])
    assert report["settings"]["qat"] == "none"
    assert report["settings"]["hidden_size"] == 16
    assert report["start_accuracy"] is not None


@pytest.mark.parametrize("rate", ["1e30", "0.5"])
def test_a_divergence_ends_it_and_keeps_the_best(base: Checkpoint, tmp_path: Path, rate: str) -> None:
    output = tmp_path / "q"
    options = ("--qat=int4-weight", f"--learning-rate={rate}", "--clip-norm=1e9", "--epochs=30", "--patience=0")
    stdout, stderr = run("--from", str(base.path), *options, "--batch-size=4", "--json", "-o", str(output))
    report = json.loads(stdout)
    assert "diverged" in report["stopped"]
    assert "try a --learning-rate below" in report["stopped"]
    assert "Stopped: training diverged" in stderr
    assert len(report["history"]) < 30
    made = load_checkpoint(output)
    assert report["validation_accuracy"] >= report["start_accuracy"]
    if report["best_epoch"] == 0:
        np.testing.assert_array_equal(made.weights["classifier.weight"], base.weights["classifier.weight"])
    assert not state_path(output).exists()


@dataclass
class Stop:
    after: int

    def __call__(self) -> bool:
        self.after -= 1
        return self.after < 0


@pytest.mark.parametrize("scheme", ["int8", "int4-weight"])
def test_an_interrupted_one_ends_alike(base: Checkpoint, tmp_path: Path, scheme: str) -> None:
    from edgekit.train.training import prepare_continued

    settings = make_small_settings(qat=scheme, from_checkpoint=str(base.path), epochs=2, dropout=0.1)
    for name in ("whole", "parts"):
        prepared = prepare_continued(settings, base, None, tmp_path / name, force=False)
        stop: Callable[[], bool] = Stop(8) if name == "parts" else lambda: False
        outcome = run_training(prepared, tmp_path / name, should_stop=stop)
    assert outcome.state is not None
    refused = refusal("--resume", "--qat=none", "-o", str(tmp_path / "parts"))
    assert f"--qat none is not what the interrupted training has ({scheme})" in refused
    run_training(prepare_resumed(tmp_path / "parts", force=False), tmp_path / "parts")
    whole, parts = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("whole", "parts"))
    assert whole["history"] == parts["history"]
    assert whole["start_accuracy"] == parts["start_accuracy"]
    first, second = (load_checkpoint(tmp_path / name).weights for name in ("whole", "parts"))
    for name, tensor in first.items():
        np.testing.assert_array_equal(second[name], tensor)


def test_what_does_not_go_together_is_refused(base: Checkpoint, tmp_path: Path) -> None:
    path = str(base.path)
    assert "name it with --from" in refusal("--qat=int8")
    assert "known are none, int8, int4-weight" in refusal("--from", path, "--qat=int4")
    assert "--hidden-size is the checkpoint's own" in refusal("--from", path, "--hidden-size=32")
    assert "--size is the checkpoint's own" in refusal("--from", path, "--size=tiny")
    assert "--ngrams" in refusal("--from", path, "--ngrams=3", "-o", str(tmp_path / "m"))
    assert "no checkpoint" in refusal("--from", str(tmp_path / "nothing"), "--qat=int8")
    other = tmp_path / "other.tsv"
    other.write_text("text\tlabel\n" + "".join(f"pear {n}\tfruit\nquartz {n}\tstone\n" for n in range(60)))
    message = refusal("--from", path, "--data", str(other), "-o", str(tmp_path / "m"))
    assert "'metal' is one of the checkpoint base alone" in message
    (base.path / "data.json").unlink()
    with pytest.raises(DataError, match="give --data"):
        CliRunner().invoke(app, ["train", "--from", path, "-o", str(tmp_path / "m")], catch_exceptions=False)


def test_without_torchao_its_extra_is_named(base: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgekit.extras.is_installed", lambda module: module != "torchao")
    message = refusal("--from", str(base.path), "--qat=int8", "-o", str(tmp_path / "m"))
    assert "edgekit-toolkit[qat]" in message
    assert "--qat int8 in PyTorch" in message


def test_divergence_is_seen_against_the_first_steps() -> None:
    def after(losses: Sequence[float]) -> bool:
        position = Position(start_accuracy=0.9)
        for loss in losses:
            position.note_loss(loss)
        return position.diverged

    calm = [0.3, 0.2] * 10
    assert not after(calm + [0.4] * 20)
    assert after(calm + [0.6] * 20)
    assert not after([*calm, 3.0])  # one bad batch
    assert not after([2.0] * 40)
    assert after([0.4] + [5000.0] * 25)  # at once
    assert not after([0.4] + [9.0] * 40)

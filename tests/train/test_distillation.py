"""A student learns from its teacher, by the same losses in both frameworks, whichever framework the teacher is from."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from edgekit.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from edgekit.cli.main import app
from edgekit.errors import CheckpointError, EdgekitError
from edgekit.model.config import TransformerConfig
from edgekit.model.weights import initial_weights
from edgekit.program import FRAMEWORKS, Framework
from edgekit.text.datasets import DataSpec
from edgekit.text.processor import train_processor
from edgekit.train import distillation_pytorch
from edgekit.train.batches import Batch, draw_batches
from edgekit.train.distillation import PROJECT, Teacher, make_teacher
from edgekit.train.epochs import TextEpochs
from edgekit.train.settings import TrainSettings
from edgekit.train.state import state_path
from edgekit.train.trainer import StepPlan, Trainer, make_trainer
from edgekit.train.training import prepare_resumed, prepare_training, run_training
from tests.tiny import tiny_checkpoint
from tests.train.conftest import make_small_settings

from edgekit.train import distillation_keras  # isort: skip - edgekit.model.keras chooses the backend first

import tensorflow as tf  # isort: skip

SIZES = {"vocab_size": 50, "num_labels": 5, "max_length": 12, "num_heads": 2, "num_layers": 1}
STUDENT = TransformerConfig.model_validate({**SIZES, "hidden_size": 16, "ffn_size": 32, "embedding_size": 8})
TAUGHT = TransformerConfig.model_validate({**SIZES, "hidden_size": 24, "ffn_size": 48, "norm": "rmsnorm"})


def teacher(*, own_tokenizer: bool = False) -> Teacher:
    processor = train_processor("byte", (), 259, max_length=12) if own_tokenizer else None
    return Teacher(config=TAUGHT, weights=initial_weights(TAUGHT, 9), processor=processor)


def trainer(framework: Framework, chosen: Teacher, **options: object) -> Trainer:
    settings = TrainSettings.model_validate(
        {"framework": framework, "teacher": "somewhere", "clip_norm": 0.5, **options}
    )
    return make_trainer(STUDENT, initial_weights(STUDENT, 3), settings, teacher=chosen)


def batches(count: int, *, other: bool = False) -> list[Batch]:
    generator = np.random.default_rng(7)
    rows = [[1, *generator.integers(3, 50, generator.integers(0, 11)).tolist()] for _ in range(8 * count)]
    labels = generator.integers(0, 5, len(rows)).astype(np.int32)
    others = [[1, *row[:0:-1], 4][:12] for row in rows] if other else None
    return list(draw_batches(rows, labels, 8, generator, others))


def plan(step: int) -> StepPlan:
    return StepPlan(step=step, learning_rate=1e-2, average_decay=0.8, seed=step)


@pytest.mark.parametrize("other", [False, True], ids=["one tokenizer", "two tokenizers"])
def test_ten_steps_agree_between_the_frameworks(other: bool) -> None:
    options = {"temperature": 3.0, "teacher_weight": 0.7, "hidden_weight": 0.5}
    trainers = [trainer(framework, teacher(own_tokenizer=other), **options) for framework in FRAMEWORKS]
    for step, batch in enumerate(batches(10, other=other)):
        results = [one.step(batch, plan(step)) for one in trainers]
        assert results[0].loss == pytest.approx(results[1].loss, rel=1e-4)
    first, second = (one.weights() for one in trainers)
    assert PROJECT not in first
    assert (f"model/{PROJECT}" in trainers[0].state()) is not other
    for name, tensor in first.items():
        if not name.endswith("key.bias"):
            np.testing.assert_allclose(tensor, second[name], atol=1e-3, err_msg=name)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_state_continues_bit_for_bit(framework: Framework) -> None:
    whole, again = (trainer(framework, teacher(), qat="int4-weight", from_checkpoint="x") for _ in range(2))
    for step, batch in enumerate(batches(4)):
        if step == 2:
            again.load_state(whole.state())
        if step >= 2:
            again.step(batch, plan(step))
        whole.step(batch, plan(step))
    for name, tensor in whole.state().items():
        np.testing.assert_array_equal(again.state()[name], tensor, err_msg=name)


def test_losses_are_what_they_are_called() -> None:
    generator = np.random.default_rng(0)
    logits, taught = (3 * generator.standard_normal((6, 5)) for _ in range(2))
    student, states = generator.standard_normal((6, 4, 3)), generator.standard_normal((6, 4, 7))
    projection, mask = generator.standard_normal((7, 3)), (np.arange(4) < generator.integers(1, 5, (6, 1))).astype(int)

    def probabilities(x: np.ndarray) -> np.ndarray:
        powers = np.exp(x / 2.5)
        return powers / powers.sum(-1, keepdims=True)

    p, q = probabilities(taught), probabilities(logits)
    soft = 2.5**2 * (p * np.log(p / q)).sum(-1).mean()
    squares = ((student @ projection.T - states) ** 2).mean(-1)
    hidden = squares[mask == 1].mean()
    for module, tensor in ((distillation_pytorch, torch.tensor), (distillation_keras, tf.constant)):
        assert float(module.soft_loss(tensor(logits), tensor(taught), 2.5)) == pytest.approx(soft, rel=1e-6)
        assert float(module.soft_loss(tensor(taught), tensor(taught), 2.5)) == pytest.approx(0, abs=1e-9)
        found = module.states_loss(tensor(student), tensor(states), tensor(projection), tensor(mask))
        assert float(found) == pytest.approx(hidden, rel=1e-6)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_teacher_alone_can_teach(framework: Framework) -> None:
    """Labels are random: what the student learns, it has from its teacher."""
    chosen = teacher()
    one = trainer(framework, chosen, teacher_weight=1.0, hidden_weight=0.0, label_smoothing=0.0)
    texts = batches(4)
    losses = [one.step(batch, plan(step)).loss for step in range(25) for batch in texts]
    assert np.mean(losses[-4:]) < 0.2 * np.mean(losses[:4])
    answers = make_trainer(TAUGHT, chosen.weights, TrainSettings(framework=framework))
    same = [one.logits(b.ids, b.mask).argmax(-1) == answers.logits(b.ids, b.mask).argmax(-1) for b in texts]
    assert np.mean(same) > 0.85


def test_a_teachers_labels_may_be_in_another_order(tmp_path: Path) -> None:
    made = tiny_checkpoint(tmp_path)
    turned = make_teacher(made, made.labels[::-1], made.processor)
    assert turned.compares_states
    np.testing.assert_array_equal(turned.weights["classifier.weight"], made.weights["classifier.weight"][::-1])
    assert not make_teacher(made, made.labels, train_processor("byte", (), 259, max_length=8)).compares_states


@pytest.fixture
def taught(spec: DataSpec, tmp_path: Path) -> Checkpoint:
    """A trained teacher, of another framework and tokenizer than the student's."""
    settings = make_small_settings(hidden_size=32, num_heads=2, num_layers=1, epochs=3, lowercase=True)
    run_training(prepare_training(settings, spec, tmp_path / "teacher", force=False), tmp_path / "teacher")
    made = load_checkpoint(tmp_path / "teacher")
    save_checkpoint(dataclasses.replace(made, framework="tensorflow"), made.path, force=True)
    return load_checkpoint(made.path)


def student(taught: Checkpoint, **changes: object) -> TrainSettings:
    shape = {"hidden_size": 16, "num_heads": 2, "ffn_size": 32, "num_layers": 1, "epochs": 2}
    return make_small_settings(teacher=str(taught.path), **{**shape, **changes})


def test_varied_texts_are_the_teachers_too(taught: Checkpoint, spec: DataSpec, tmp_path: Path) -> None:
    settings = student(taught, tokenizer="bpe", vocab_size=300, cut=0.5, crop=0.5)
    prepared = prepare_training(settings, spec, tmp_path / "m", force=False)
    assert prepared.teacher is not None
    assert prepared.teacher.processor is not None
    data = prepared.dataset
    epochs = TextEpochs(data.train, data.labels, prepared.processor, settings, prepared.teacher.processor)
    assert all((batch.teacher_ids[:, 1:] >= 3).sum() == batch.teacher_mask[:, 1:].sum() for batch in epochs.batches(0))
    assert any(batch.teacher_ids.shape != batch.ids.shape for batch in epochs.batches(0))


def test_an_interrupted_one_ends_alike_and_its_teacher_may_not_change(
    taught: Checkpoint, spec: DataSpec, tmp_path: Path
) -> None:
    settings = student(taught)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run_training(prepare_training(settings, spec, whole, force=False), whole)
    steps = iter(range(100))
    run_training(prepare_training(settings, spec, parts, force=False), parts, should_stop=lambda: next(steps) == 6)
    assert state_path(parts).exists()
    weights = taught.path / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-4] + b"\0\0\0\0")
    with pytest.raises(CheckpointError, match="has changed since"):
        prepare_resumed(parts, force=False)
    weights.write_bytes(content)
    run_training(prepare_resumed(parts, force=False), parts)
    assert (whole / "model.safetensors").read_bytes() == (parts / "model.safetensors").read_bytes()


def refusal(*arguments: str) -> str:
    with pytest.raises(EdgekitError) as caught:
        CliRunner().invoke(app, ["train", *arguments], catch_exceptions=False)
    return str(caught.value)


def test_the_command(taught: Checkpoint, data_file: Path, tmp_path: Path) -> None:
    path, output = str(taught.path), str(tmp_path / "m")
    small = ("--tokenizer=byte", "--max-length=24", "--hidden-size=16", "--num-heads=2", "--num-layers=1", "--epochs=1")
    arguments = ["train", "--data", str(data_file), *small, "--teacher", path, "--json", "-o", output]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert json.loads(result.stdout)["settings"]["teacher"] == path
    assert "alone: its tokenizer is another" in result.stderr
    assert PROJECT not in load_checkpoint(tmp_path / "m").weights
    tiny = tiny_checkpoint(tmp_path)
    message = refusal("--data", str(data_file), *small, "--teacher", str(tiny.path), "-o", str(tmp_path / "n"))
    assert "--teacher tiny: its 2 labels are not the 2 of the data" in message
    assert "name it with --teacher" in refusal("--temperature=4")
    assert "--teacher-weight" in refusal("--teacher", path, "--teacher-weight=1.5")
    assert "no checkpoint" in refusal("--data", str(data_file), "--teacher", str(tmp_path / "no"), "-o", output + "2")

"""Both trainers do the same arithmetic, and a trainer goes on from its state bit for bit."""

from collections.abc import Iterator

import numpy as np
import pytest

from edgekit.model.config import TransformerConfig
from edgekit.model.weights import initial_weights
from edgekit.program import FRAMEWORKS, Framework
from edgekit.train.batches import Batch, draw_batches
from edgekit.train.settings import TrainSettings
from edgekit.train.trainer import StepPlan, Trainer, decays, make_trainer


def config(dropout: float, **options: object) -> TransformerConfig:
    sizes = {"vocab_size": 50, "num_labels": 5, "max_length": 12, "hidden_size": 16, "num_heads": 2, "ffn_size": 32}
    return TransformerConfig.model_validate(
        {**sizes, "num_layers": 2, "embedding_size": 8, "dropout": dropout, **options}
    )


def batches(count: int) -> Iterator[Batch]:
    generator = np.random.default_rng(7)
    rows = [[1, *generator.integers(3, 50, generator.integers(0, 11)).tolist()] for _ in range(8 * count)]
    labels = generator.integers(0, 5, len(rows)).astype(np.int32)
    return draw_batches(rows, labels, 8, generator)


def plan(step: int) -> StepPlan:
    return StepPlan(step=step, learning_rate=1e-2 / (1 + step % 3), average_decay=0.8, seed=1000 + step)


def trainer(framework: Framework, dropout: float, **options: object) -> Trainer:
    settings = TrainSettings(framework=framework, dropout=dropout, clip_norm=0.5, weight_decay=0.1)
    shape = config(dropout, **options)
    return make_trainer(shape, initial_weights(shape, 3), settings)


@pytest.mark.parametrize(
    "options", [{}, {"norm": "rmsnorm", "positions": "rotary", "shared_layers": True, "pooling": "first"}]
)
def test_twenty_steps_agree_between_the_frameworks(options: dict[str, object]) -> None:
    trainers = [trainer(framework, 0.0, **options) for framework in FRAMEWORKS]
    for step, batch in enumerate(batches(20)):
        results = [one.step(batch, plan(step)) for one in trainers]
        assert results[0].loss == pytest.approx(results[1].loss, abs=1e-3)
        assert results[0].loss == pytest.approx(results[1].loss, rel=1e-4)
        assert results[0].correct == results[1].correct
    first, second = (one.weights() for one in trainers)
    moved = 0.0
    for name, start in initial_weights(config(0.0, **options), 3).items():
        if not name.endswith("key.bias"):  # softmax cancels it: its gradient is rounding, which AdamW magnifies
            np.testing.assert_allclose(first[name], second[name], atol=1e-3, err_msg=name)
        moved = max(moved, float(np.abs(first[name] - start).max()))
    assert moved > 0.05


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_dropout_depends_on_the_steps_seed_alone(framework: Framework) -> None:
    batch, one = next(batches(1)), trainer(framework, 0.3)
    start, losses = one.state(), []
    for step in (0, 0, 4):
        one.load_state(start)
        losses.append(one.step(batch, plan(step)).loss)
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_state_continues_bit_for_bit(framework: Framework) -> None:
    whole, again = trainer(framework, 0.2), trainer(framework, 0.2)
    for step, batch in enumerate(batches(8)):
        if step == 4:
            again.load_state(whole.state())
        if step >= 4:
            again.step(batch, plan(step))
        whole.step(batch, plan(step))
    for name, tensor in whole.state().items():
        np.testing.assert_array_equal(again.state()[name], tensor, err_msg=name)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_without_decay_the_average_is_the_weights(framework: Framework) -> None:
    one = trainer(framework, 0.0)
    one.step(next(batches(1)), StepPlan(step=0, learning_rate=1e-2, average_decay=0.0, seed=0))
    state = one.state()
    for name in state:
        if name.startswith("model/"):
            np.testing.assert_allclose(state[name], state[name.replace("model/", "average/")], atol=1e-7)


def test_norms_and_biases_do_not_decay() -> None:
    names = initial_weights(config(0.0), 0)
    kept = {name for name in names if not decays(name)}
    assert {"final_norm.weight", "blocks.0.ffn_norm.bias", "classifier.bias"} <= kept
    assert all("norm" in name or name.endswith("bias") for name in kept)
    assert decays("embed.tokens.weight")

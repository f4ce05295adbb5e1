"""The two implementations compute the same: logits, loss and gradients, whichever framework made the weights."""

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from edgekit.model import keras as in_keras
from edgekit.model import pytorch as in_torch
from edgekit.model.config import TransformerConfig
from edgekit.model.weights import Weights, initial_weights, keras_variables

# Keras chooses its backend in edgekit.model.keras, so the frameworks themselves come after it.
import keras  # isort: skip
import tensorflow as tf  # isort: skip

SMOOTHING = 0.1
TRAINING_STEPS = 2
OPTIONS: dict[str, tuple[Any, ...]] = {
    "norm": ("layernorm", "rmsnorm"),
    "activation": ("gelu", "relu"),
    "positions": ("learned", "rotary"),
    "embedding_size": (None, 8),
    "shared_layers": (False, True),
    "pooling": ("mean", "first"),
}
CONFIGS = [
    TransformerConfig(
        vocab_size=50, num_labels=5, max_length=12, hidden_size=16, num_layers=2, num_heads=2, ffn_size=32, **chosen
    )
    for chosen in (dict(zip(OPTIONS, values, strict=True)) for values in itertools.product(*OPTIONS.values()))
]


@dataclass(frozen=True, kw_only=True)
class Batch:
    ids: NDArray[np.int32]
    mask: NDArray[np.int32]
    labels: NDArray[np.int32]


@dataclass(frozen=True, kw_only=True)
class Step:
    """What one training step computes; gradients by neutral name."""

    logits: NDArray[np.float32]
    loss: float
    gradients: Weights


def _name(config: TransformerConfig) -> str:
    return "-".join(str(getattr(config, option)) for option in OPTIONS)


def _batch(config: TransformerConfig, seed: int, rows: int = 6, length: int = 10) -> Batch:
    generator = np.random.default_rng(seed)
    lengths = generator.integers(1, length + 1, rows)
    mask = (np.arange(length) < lengths[:, None]).astype(np.int32)
    ids = generator.integers(1, config.vocab_size, (rows, length)).astype(np.int32) * mask
    labels = generator.integers(0, config.num_labels, rows).astype(np.int32)
    return Batch(ids=ids, mask=mask, labels=labels)


def _random_weights(config: TransformerConfig, seed: int) -> Weights:
    """First weights, with every bias and norm moved away from its 0 or 1."""
    generator = np.random.default_rng(seed)
    weights = initial_weights(config, seed)
    return {
        name: tensor + 0.2 * generator.standard_normal(tensor.shape, np.float32) for name, tensor in weights.items()
    }


def _torch_step(config: TransformerConfig, weights: Weights, batch: Batch) -> Step:
    encoder = in_torch.build_encoder(config, weights).train()
    logits = encoder(torch.from_numpy(batch.ids), torch.from_numpy(batch.mask))
    loss = in_torch.classification_loss(logits, torch.from_numpy(batch.labels), SMOOTHING)
    loss.backward()
    gradients = {name: parameter.grad.numpy() for name, parameter in encoder.named_parameters()}
    return Step(logits=logits.detach().numpy(), loss=loss.item(), gradients=gradients)


def _keras_step(config: TransformerConfig, weights: Weights, batch: Batch) -> Step:
    encoder = in_keras.build_encoder(config, weights)
    variables = encoder.trainable_variables
    with tf.GradientTape() as tape:
        logits = encoder((batch.ids, batch.mask), training=True)
        loss = in_keras.classification_loss(logits, batch.labels, SMOOTHING)
    gradients = tape.gradient(loss, [variable.value for variable in variables])
    by_path = {v.path: tf.convert_to_tensor(g).numpy() for v, g in zip(variables, gradients, strict=True)}
    named = {
        name: by_path[place.path].T if place.transposed else by_path[place.path]
        for name, place in keras_variables(config).items()
    }
    return Step(logits=logits.numpy(), loss=float(loss), gradients=named)


def _torch_trained(config: TransformerConfig, weights: Weights) -> Weights:
    encoder = in_torch.build_encoder(config, weights).train()
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=1e-2)
    for seed in range(TRAINING_STEPS):
        batch = _batch(config, seed)
        logits = encoder(torch.from_numpy(batch.ids), torch.from_numpy(batch.mask))
        optimizer.zero_grad()
        in_torch.classification_loss(logits, torch.from_numpy(batch.labels)).backward()
        optimizer.step()
    return in_torch.model_weights(encoder)


def _keras_trained(config: TransformerConfig, weights: Weights) -> Weights:
    encoder = in_keras.build_encoder(config, weights)
    optimizer = keras.optimizers.SGD(learning_rate=0.3)  # AdamW's eager steps cost four times as much
    variables = encoder.trainable_variables
    for seed in range(TRAINING_STEPS):
        batch = _batch(config, seed)
        with tf.GradientTape() as tape:
            logits = encoder((batch.ids, batch.mask), training=True)
            loss = in_keras.classification_loss(logits, batch.labels)
        optimizer.apply_gradients(zip(tape.gradient(loss, [v.value for v in variables]), variables, strict=True))
    return in_keras.model_weights(encoder)


def _assert_equal_steps(config: TransformerConfig, weights: Weights) -> None:
    """Hold both frameworks to rule 1 of the design: logits 1e-5 · max(1, max|logit|), gradients 1e-4 · max|g|."""
    batch = _batch(config, seed=100)
    first, second = _torch_step(config, weights, batch), _keras_step(config, weights, batch)
    bound = 1e-5 * max(1.0, float(np.abs(first.logits).max()))
    np.testing.assert_allclose(first.logits, second.logits, rtol=0, atol=bound)
    assert abs(first.loss - second.loss) <= 1e-5 * max(1.0, first.loss)
    assert first.gradients.keys() == second.gradients.keys() == weights.keys()
    for name, gradient in first.gradients.items():
        scale = np.abs(first.gradients[_scale_tensor(config, name)]).max()
        assert scale > 0, name
        np.testing.assert_allclose(gradient, second.gradients[name], rtol=0, atol=1e-4 * scale, err_msg=name)


def _scale_tensor(config: TransformerConfig, name: str) -> str:
    """The tensor whose largest gradient sets the tolerance: the tensor's own.

    Except for the key's bias without rotary positions: it adds the same to every score of a row, so its gradient
    is 0 and what is left is rounding. It is held to the scale of the key's weights.
    """
    if name.endswith("key.bias") and config.positions != "rotary":
        return name.replace("key.bias", "key.weight")
    return name


@pytest.mark.parametrize("config", CONFIGS, ids=_name)
def test_random_weights_compute_the_same_in_both_frameworks(config: TransformerConfig) -> None:
    _assert_equal_steps(config, _random_weights(config, seed=1))


@pytest.mark.parametrize("config", CONFIGS, ids=_name)
def test_weights_trained_in_pytorch_compute_the_same_in_keras(config: TransformerConfig) -> None:
    start = _random_weights(config, seed=2)
    trained = _torch_trained(config, start)
    assert all(np.any(trained[name] != start[name]) for name in start)
    _assert_equal_steps(config, trained)


@pytest.mark.parametrize("config", CONFIGS, ids=_name)
def test_weights_trained_in_keras_compute_the_same_in_pytorch(config: TransformerConfig) -> None:
    start = _random_weights(config, seed=3)
    trained = _keras_trained(config, start)
    assert all(np.any(trained[name] != start[name]) for name in start if _scale_tensor(config, name) == name)
    _assert_equal_steps(config, trained)


@pytest.mark.parametrize("config", CONFIGS[::3], ids=_name)
def test_weights_come_back_bit_for_bit(config: TransformerConfig) -> None:
    weights = _random_weights(config, seed=4)
    through_torch = in_torch.model_weights(in_torch.build_encoder(config, weights))
    through_both = in_keras.model_weights(in_keras.build_encoder(config, through_torch))
    for copy in (through_torch, through_both):
        assert list(copy) == list(weights)
        for name, tensor in weights.items():
            assert copy[name].dtype == np.float32
            assert copy[name].tobytes() == tensor.tobytes(), name


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_is_the_cross_entropy_of_the_smoothed_target(smoothing: float) -> None:
    generator = np.random.default_rng(0)
    logits = generator.standard_normal((7, 5)).astype(np.float32) * 4
    labels = generator.integers(0, 5, 7)
    target = (1 - smoothing) * np.eye(5)[labels] + smoothing / 5
    log_sum = np.log(np.exp(logits.astype(np.float64)).sum(-1, keepdims=True))
    expected = -(target * (logits - log_sum)).sum(-1).mean()
    tensor = torch.from_numpy(logits)
    from_torch = in_torch.classification_loss(tensor, torch.from_numpy(labels), smoothing).item()
    builtin = torch.nn.functional.cross_entropy(tensor, torch.from_numpy(labels), label_smoothing=smoothing).item()
    assert from_torch == pytest.approx(expected, rel=1e-6)
    assert from_torch == pytest.approx(builtin, rel=1e-6)
    assert float(in_keras.classification_loss(logits, labels, smoothing)) == pytest.approx(expected, rel=1e-6)


def test_dropout_acts_in_training_only_and_in_both_frameworks() -> None:
    config = CONFIGS[0].model_copy(update={"dropout": 0.5})
    weights, batch = _random_weights(config, seed=5), _batch(CONFIGS[0], seed=5)
    dry = _torch_step(CONFIGS[0], weights, batch).logits
    encoder = in_torch.build_encoder(config, weights)
    ids, mask = torch.from_numpy(batch.ids), torch.from_numpy(batch.mask)
    np.testing.assert_array_equal(encoder(ids, mask).detach().numpy(), dry)
    assert np.abs(encoder.train()(ids, mask).detach().numpy() - dry).max() > 0.01
    twin = in_keras.build_encoder(config, weights)
    np.testing.assert_allclose(twin((batch.ids, batch.mask)).numpy(), dry, rtol=0, atol=1e-5 * np.abs(dry).max())
    assert np.abs(twin((batch.ids, batch.mask), training=True).numpy() - dry).max() > 0.01

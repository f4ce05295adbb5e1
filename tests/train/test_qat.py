"""Fake quantization is what TFLite's kernels compute, and the same in numpy, PyTorch and TensorFlow."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgekit.export.quantize.for_tflite import compress
from edgekit.export.quantize.mixture import Mixture
from edgekit.export.quantize.tflite_weights import quantized_weights
from edgekit.model import quantization
from edgekit.model.config import TransformerConfig
from edgekit.model.quantization import QatScheme, fake_quantize_range, fake_quantize_rows, fake_quantize_weight
from edgekit.model.weights import Weights, initial_weights
from edgekit.program import FRAMEWORKS, Framework
from edgekit.proof.golden import Golden, Step, read_golden, stack_outputs, write_golden
from edgekit.proof.prove import choose_samples
from edgekit.proof.replay import replay_steps
from edgekit.train import qat_pytorch
from edgekit.train.batches import Batch
from edgekit.train.qat import taps
from edgekit.train.settings import TrainSettings
from edgekit.train.trainer import StepPlan, Trainer, make_trainer
from tests.export.quantized import Quantized, trained_checkpoint
from tests.export.routes import Routes

from edgekit.train import qat_keras  # isort: skip - edgekit.model.keras chooses the backend first

import tensorflow as tf  # isort: skip

Floats = NDArray[np.float32]
SCHEMES: tuple[QatScheme, ...] = ("int8", "int4-weight")
WIDTHS = (64, 48)  # two blocks of 32, and a row that is no whole number of blocks
CONVERT = """
import sys, numpy as np, torch, litert_torch
torch.manual_seed(0)
for width in map(int, sys.argv[1:]):
    layer = torch.nn.Linear(width, 40).eval()
    litert_torch.convert(layer, (torch.zeros(1, 7, width),)).export(f"{width}.tflite")
    np.savez(f"{width}.npz", weight=layer.weight.detach().numpy(), bias=layer.bias.detach().numpy())
"""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A product with weights as a TFLite file, and inputs [steps, 1, rows, width] of very different rows."""

    path: Path
    weight: Floats
    bias: Floats
    x: Floats


@pytest.fixture(scope="module")
def layers(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Layer]:
    folder = tmp_path_factory.mktemp("layers")
    subprocess.run(
        [sys.executable, "-c", CONVERT, *map(str, WIDTHS)], cwd=folder, check=True, capture_output=True, timeout=120
    )
    found = {}
    for width in WIDTHS:
        generator = np.random.default_rng(width)
        x = generator.standard_normal((5, 1, 7, width), np.float32) * generator.uniform(0.1, 3, (5, 1, 7, 1))
        x[1, 0, 2], x[2, 0, 3], x[3, 0, 4] = 0, np.abs(x[2, 0, 3]), -np.abs(x[3, 0, 4])
        with np.load(folder / f"{width}.npz") as stored:
            found[width] = Layer(
                path=folder / f"{width}.tflite",
                weight=stored["weight"],
                bias=stored["bias"],
                x=x.astype(np.float32),
            )
    return found


def write_steps(path: Path, values: NDArray[Any]) -> None:
    steps = tuple(Step(signature="serving_default", inputs={"args_0": value}) for value in values)
    write_golden(path, Golden(steps=steps, labels=np.full(len(steps), -1, np.int32)))


def run_quantized(layer: Layer, scheme: QatScheme, folder: Path) -> tuple[Floats, Floats]:
    """What a layer, quantized by the exporter and run by the runner, answers, and its stored weight."""
    path, output = folder / "steps.npz", folder / "layer.tflite"
    write_steps(path, layer.x)
    compress(layer.path, output, Mixture(scheme=scheme), path if scheme == "int8" else None)
    replay = replay_steps(output, "litert", path)
    (weight,) = quantized_weights(output).values()
    return stack_outputs(replay.produced.steps, "output_0").reshape(*layer.x.shape[:-1], -1), weight.values


def fake_layer(layer: Layer, scheme: QatScheme, framework: str) -> Floats:
    """The same by fake quantization; the ranges of int8 are those of the calibration."""
    x, y = layer.x, layer.x @ layer.weight.T + layer.bias
    low, high = (float(x.min()), float(x.max())), (float(y.min()), float(y.max()))
    if framework == "numpy":
        weight = fake_quantize_weight("layer.weight", layer.weight, scheme)
        if scheme == "int4-weight":
            return fake_quantize_rows(x) @ weight.T + layer.bias
        return fake_quantize_range(fake_quantize_range(x, *low) @ weight.T + layer.bias, *high)
    module: Any = qat_pytorch if framework == "torch" else qat_keras
    tensor = torch.tensor if framework == "torch" else tf.constant
    x, bias = tensor(layer.x), tensor(layer.bias)
    weight = module.fake_quantize_weight("layer.weight", tensor(layer.weight), scheme)
    weight = weight.T if framework == "torch" else tf.transpose(weight)
    if scheme == "int4-weight":
        return np.asarray(module.fake_quantize_rows(x) @ weight + bias)
    rounded = module.fake_quantize_range(x, *map(tensor, low)) @ weight + bias
    return np.asarray(module.fake_quantize_range(rounded, *map(tensor, high)))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_layer_is_what_the_kernel_computes(
    layers: dict[int, Layer], scheme: QatScheme, width: int, tmp_path: Path
) -> None:
    layer = layers[width]
    answered, stored = run_quantized(layer, scheme, tmp_path)
    np.testing.assert_array_equal(fake_quantize_weight("layer.weight", layer.weight, scheme), stored)
    whole = layer.x @ layer.weight.T + layer.bias
    step = (whole.max() - whole.min()) / 255  # of int8's output; int4-weight's is float32 and has no step
    for framework in ("numpy", *FRAMEWORKS):
        difference = np.abs(fake_layer(layer, scheme, framework) - answered)
        if scheme == "int4-weight":
            assert difference.max() <= 2e-6, framework
        else:
            assert difference.max() <= 1.001 * step, framework
            assert (difference > 0.5 * step).mean() < 0.01, framework
    assert np.abs(whole - answered).max() > 1e-3  # and rounding does change something


def torch_and_keras(name: str, value: Floats, *options: Any) -> tuple[Floats, Floats]:
    """What both frameworks' function of this name makes of the value."""
    numbers = [torch.tensor(option) if isinstance(option, float) else option for option in options]
    named = ("embed.tokens.weight",) if name == "fake_quantize_weight" else ()
    first = getattr(qat_pytorch, name)(*named, torch.tensor(value), *numbers).numpy()
    return first, getattr(qat_keras, name)(*named, tf.constant(value), *options).numpy()


@given(
    seed=st.integers(0, 2**31),
    width=st.sampled_from([1, 12, 32, 96]),
    size=st.sampled_from([1e-12, 1e-6, 1e-2, 1.0, 300.0]),
)
@settings(max_examples=25, deadline=None)
def test_both_frameworks_round_as_numpy_does(seed: int, width: int, size: float) -> None:
    generator = np.random.default_rng(seed)
    x = (generator.standard_normal((9, width)) * size).astype(np.float32)
    x[generator.integers(0, 9)] = 0
    for scheme in SCHEMES:
        expected = fake_quantize_weight("embed.tokens.weight", x, scheme)
        for found in torch_and_keras("fake_quantize_weight", x, scheme):
            np.testing.assert_array_equal(found, expected)
    for found in torch_and_keras("fake_quantize_rows", x):
        np.testing.assert_array_equal(found, fake_quantize_rows(x))
    low, high = sorted(generator.standard_normal(2) * size)
    low, high = float(np.float32(low)), float(np.float32(high))
    for found in torch_and_keras("fake_quantize_range", x, low, high):
        np.testing.assert_array_equal(found, fake_quantize_range(x, low, high))


def test_gradients_pass_the_rounding_and_stop_beyond_the_range() -> None:
    x = np.array([[-3.0, -0.4, 0.1, 0.9, 7.0]], np.float32)
    tensor, constant = torch.tensor(x, requires_grad=True), tf.Variable(x)
    qat_pytorch.fake_quantize_range(tensor, torch.tensor(-1.0), torch.tensor(1.0)).sum().backward()
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(qat_keras.fake_quantize_range(constant, tf.constant(-1.0), tf.constant(1.0)))
    for gradient in (tensor.grad, tape.gradient(total, constant)):
        np.testing.assert_allclose(np.asarray(gradient), [[0, 1, 1, 1, 0]], atol=1e-6)
    for fake in (qat_pytorch.fake_quantize_rows, lambda t: qat_pytorch.fake_quantize_weight("w", t, "int4-weight")):
        tensor.grad = None
        fake(tensor).sum().backward()
        np.testing.assert_allclose(np.asarray(tensor.grad), np.ones_like(x), atol=1e-6)
    for fake in (qat_keras.fake_quantize_rows, lambda t: qat_keras.fake_quantize_weight("w", t, "int4-weight")):
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(fake(constant))
        np.testing.assert_allclose(np.asarray(tape.gradient(total, constant)), np.ones_like(x), atol=1e-6)


def config(**options: object) -> TransformerConfig:
    sizes = {"vocab_size": 50, "num_labels": 5, "max_length": 12, "hidden_size": 32, "num_heads": 2, "ffn_size": 64}
    return TransformerConfig.model_validate({**sizes, "num_layers": 2, "embedding_size": 16, **options})


def weights(shape: TransformerConfig) -> Weights:
    return {name: 1.5 * tensor for name, tensor in initial_weights(shape, 3).items()}


def batch(shape: TransformerConfig, seed: int = 0) -> Batch:
    generator = np.random.default_rng(seed)
    mask = (np.arange(12) < generator.integers(1, 13, (16, 1))).astype(np.int32)
    ids = generator.integers(3, shape.vocab_size, (16, 12)).astype(np.int32) * mask
    return Batch(ids=ids, mask=mask, labels=generator.integers(0, 5, 16).astype(np.int32))


def trainer(framework: Framework, qat: str, shape: TransformerConfig) -> Trainer:
    chosen = TrainSettings.model_validate({"framework": framework, "qat": qat, "weight_decay": 0.1})
    made = make_trainer(shape, weights(shape), chosen)
    for seed in range(3):
        made.observe(batch(shape, seed))
    return made


PLAIN: dict[str, object] = {}
OTHER: dict[str, object] = {
    "norm": "rmsnorm",
    "positions": "rotary",
    "activation": "relu",
    "shared_layers": True,
    "pooling": "first",
}


@pytest.mark.parametrize(
    ("scheme", "options"),
    [
        ("int8", PLAIN),
        ("int4-weight", PLAIN),
        ("int4-weight", OTHER),
        pytest.param("int8", OTHER, marks=pytest.mark.slow),
    ],
    ids=["int8", "int4-weight", "int4-weight, other model", "int8, other model"],
)
def test_whole_models_agree_between_the_frameworks(scheme: QatScheme, options: dict[str, object]) -> None:
    shape = config(**options)
    texts = batch(shape, 100)
    plain = trainer("torch", "none", shape).logits(texts.ids, texts.mask)
    first, second = (trainer(framework, scheme, shape) for framework in FRAMEWORKS)
    logits = [one.logits(texts.ids, texts.mask) for one in (first, second)]
    changed = np.abs(logits[0] - plain)
    assert changed.max() > 1e-2
    # An activation half a step between two integers may fall either way, and moves its text's logits: rare.
    difference = np.abs(logits[0] - logits[1])
    assert difference.mean() < 0.05 * changed.mean()
    assert (difference.max(-1) < 1e-3).mean() >= 0.75
    for one in (first, second):
        one.step(texts, StepPlan(step=0, learning_rate=1e-3, average_decay=0.0, seed=0))
    states = [one.state() for one in (first, second)]
    for name in states[0]:
        if name.startswith("range/"):
            np.testing.assert_allclose(states[0][name], states[1][name], atol=0.05 * np.abs(states[0][name]).max())
    assert sum(name.startswith("range/") for name in states[0]) == sum(
        tap.kind in ("range", "scores") for tap in taps(shape, scheme)
    )
    for name in ("classifier.weight", "blocks.0.attention.value.weight", "blocks.0.ffn.down.weight"):
        gradients = states[0][f"first_moment/{name}"], states[1][f"first_moment/{name}"].T
        assert np.corrcoef(gradients[0].ravel(), gradients[1].ravel())[0, 1] > 0.99, name


@pytest.mark.parametrize(("framework", "scheme"), [("torch", "int8"), ("torch", "int4-weight"), ("tensorflow", "int8")])
def test_a_state_continues_bit_for_bit(framework: Framework, scheme: QatScheme) -> None:
    shape = config(dropout=0.2, num_layers=1, embedding_size=None)
    whole, again = (
        trainer(framework, scheme, shape),
        make_trainer(shape, weights(shape), TrainSettings(framework=framework, qat=scheme, weight_decay=0.1)),
    )
    for step in range(4):
        if step == 2:
            again.load_state(whole.state())
        plan = StepPlan(step=step, learning_rate=1e-3, average_decay=0.5, seed=step)
        for one in (whole, again) if step >= 2 else (whole,):
            one.step(batch(shape, step), plan)
    for name, tensor in whole.state().items():
        np.testing.assert_array_equal(again.state()[name], tensor, err_msg=name)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_masked_scores_do_not_stretch_the_range(framework: Framework) -> None:
    state = trainer(framework, "int8", config()).state()
    low, high = state["range/blocks.0.attention.masked_scores"]
    assert -50 < low < 0 < high < 50
    assert quantization.masked_low(float(low), float(high)) <= -8 - 2 * high


@pytest.mark.slow
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_whole_model_is_what_its_exported_file_answers(framework: Framework, tmp_path: Path) -> None:
    made = trained_checkpoint(tmp_path)
    quantized = Quantized(routes=Routes(folder=tmp_path, checkpoint=made), folder=tmp_path)
    choose_samples(made, None).write_steps(tmp_path / "steps.npz")
    ids, mask = (
        np.stack([step.inputs[name][0] for step in read_golden(tmp_path / "steps.npz").steps])
        for name in ("ids", "mask")
    )
    plain, rounded = (
        make_trainer(made.config, made.weights, TrainSettings.model_validate({"framework": framework, "qat": qat}))
        for qat in ("none", "int4-weight")
    )
    path, _ = quantized.make("tflite", "int4-weight")
    answered = stack_outputs(replay_steps(path, "litert", tmp_path / "steps.npz").produced.steps, "logits")
    difference = np.abs(rounded.logits(ids, mask) - answered.reshape(len(ids), -1))
    changed = np.abs(plain.logits(ids, mask) - answered.reshape(len(ids), -1))
    assert difference.mean() < 0.15 * changed.mean()
    assert np.median(difference) < 0.1 * np.median(changed)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_what_it_gives_is_rounded_and_rounds_to_itself(framework: Framework, scheme: QatScheme) -> None:
    shape = config(hidden_size=64)
    made = trainer(framework, scheme, shape)
    kept = made.weights()
    again = make_trainer(shape, kept, TrainSettings(framework=framework, qat=scheme)).weights()
    for name, tensor in kept.items():
        bound = np.abs(tensor).max()
        np.testing.assert_allclose(again[name], tensor, atol=1e-6 * bound, err_msg=name)
        assert np.array_equal(tensor, weights(shape)[name]) is not quantization.quantizes_weight(name), name
    assert len(np.unique(kept["blocks.0.ffn.down.weight"][0, :32])) <= (15 if scheme == "int4-weight" else 32)

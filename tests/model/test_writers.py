"""Decoder and encoder–decoder: both frameworks agree, the cache changes nothing, and no mask leaks."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgekit.model import decoder_keras, decoder_pytorch, keras, pytorch
from edgekit.model.config import TransformerConfig
from edgekit.model.weights import Weights, check_weights, initial_weights, keras_variables
from tests.model.writers import CONFIGS, Ids, InKeras, InTorch, name_of, random_texts, random_weights

import tensorflow as tf  # isort: skip - edgekit.model.keras chooses the backend first

SMOOTHING = 0.1
MODELS = {
    f"{kind.__name__}-{name_of(config)}": kind(config, random_weights(config, seed=3))
    for kind in (InTorch, InKeras)
    for config in CONFIGS
}


@dataclass(frozen=True, kw_only=True)
class Step:
    """What one training step computes; gradients by neutral name."""

    logits: NDArray[np.float32]
    loss: float
    gradients: Weights


def _torch_step(config: TransformerConfig, weights: Weights, texts: tuple[Ids, Ids, Ids], counted: Ids) -> Step:
    model = decoder_pytorch.build_model(config, weights).train()
    *source, ids = map(torch.from_numpy, texts)
    logits = model(*source, ids[:, :-1]) if config.task == "translate" else model(ids[:, :-1])
    loss = decoder_pytorch.token_loss(logits, ids[:, 1:], torch.from_numpy(counted), SMOOTHING)
    loss.backward()
    gradients = {name: parameter.grad.numpy() for name, parameter in model.named_parameters()}
    return Step(logits=logits.detach().numpy(), loss=loss.item(), gradients=gradients)


def _keras_step(config: TransformerConfig, weights: Weights, texts: tuple[Ids, Ids, Ids], counted: Ids) -> Step:
    model = decoder_keras.build_model(config, weights)
    *source, ids = texts
    variables = model.trainable_variables
    with tf.GradientTape() as tape:
        logits = model((*source, ids[:, :-1]) if config.task == "translate" else ids[:, :-1], training=True)
        loss = decoder_keras.token_loss(logits, ids[:, 1:], counted, SMOOTHING)
    gradients = tape.gradient(loss, [variable.value for variable in variables])
    by_path = {v.path: tf.convert_to_tensor(g).numpy() for v, g in zip(variables, gradients, strict=True)}
    named = {
        name: by_path[place.path].T if place.transposed else by_path[place.path]
        for name, place in keras_variables(config).items()
    }
    return Step(logits=logits.numpy(), loss=float(loss), gradients=named)


def _scale_tensor(config: TransformerConfig, name: str) -> str:
    """The tensor whose largest gradient sets the tolerance; a key's bias without rotation has none but rounding."""
    unturned = config.positions != "rotary" or "cross_attention" in name
    return name.replace("key.bias", "key.weight") if name.endswith("key.bias") and unturned else name


@pytest.mark.parametrize("config", CONFIGS, ids=name_of)
def test_logits_loss_and_gradients_agree_between_the_frameworks(config: TransformerConfig) -> None:
    weights, texts = random_weights(config, seed=1), random_texts(config, seed=2, rows=5)
    counted = (np.arange(config.max_length - 1) < np.array([[11], [1], [5], [8], [3]])).astype(np.int32)
    first = _torch_step(config, weights, texts, counted)
    second = _keras_step(config, weights, texts, counted)
    bound = 1e-5 * max(1.0, float(np.abs(first.logits).max()))
    np.testing.assert_allclose(first.logits, second.logits, rtol=0, atol=bound)
    assert first.loss == pytest.approx(second.loss, rel=1e-5)
    assert first.gradients.keys() == second.gradients.keys() == weights.keys()
    for name, gradient in first.gradients.items():
        scale = np.abs(first.gradients[_scale_tensor(config, name)]).max()
        assert scale > 0, name
        np.testing.assert_allclose(gradient, second.gradients[name], rtol=0, atol=1e-4 * scale, err_msg=name)


@pytest.mark.parametrize("config", CONFIGS, ids=name_of)
def test_weights_come_back_bit_for_bit(config: TransformerConfig) -> None:
    weights = random_weights(config, seed=4)
    through_torch = pytorch.model_weights(decoder_pytorch.build_model(config, weights))
    through_both = keras.model_weights(decoder_keras.build_model(config, through_torch))
    assert list(through_both) == list(weights)
    for name, tensor in weights.items():
        assert through_both[name].tobytes() == tensor.tobytes(), name


@pytest.mark.parametrize("model", MODELS)
def test_the_cache_changes_no_logit_at_any_position(model: str) -> None:
    one = MODELS[model]
    source, mask, ids = random_texts(one.config, seed=5)
    expected = one.logits(source, mask, ids)
    bound = 1e-5 * max(1.0, float(np.abs(expected).max()))
    for cuts in ([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], [5, 6, 7, 8, 9, 10, 11], [4, 10], []):
        found = np.concatenate(one.stepwise(source, mask, np.split(ids, cuts, axis=1)), axis=1)
        np.testing.assert_allclose(found, expected, rtol=0, atol=bound, err_msg=str(cuts))


@pytest.mark.parametrize("model", MODELS)
def test_a_padded_prefill_is_overwritten_before_it_is_seen(model: str) -> None:
    one = MODELS[model]
    source, mask, ids = random_texts(one.config, seed=6)
    expected = one.logits(source, mask, ids)
    padded = np.where(np.arange(8) < 3, ids[:, :8], 0).astype(np.int32)  # three tokens in a prefill of eight

    bound = 1e-5 * max(1.0, float(np.abs(expected).max()))
    found = _after_prefill(one, source, mask, padded, 3, ids[:, 3:])
    np.testing.assert_allclose(found, expected[:, 3:], rtol=0, atol=bound)


def _after_prefill(one: Any, source: Ids, mask: Ids, prefill: Ids, position: int, rest: Ids) -> NDArray[Any]:
    """The logits of `rest`, token by token from `position` on, after a prefill that went further."""
    array = torch.from_numpy if isinstance(one, InTorch) else tf.constant
    given = tuple(map(array, (source, mask)))
    memory = (given[1], one.model.encode(*given)) if one.config.task == "translate" else ()
    cache = one.model.empty_cache(len(source))
    _, cache = one.model.cached(array(prefill), array(np.array([0], np.int32)), *memory, cache)
    found = []
    for index in range(rest.shape[1]):
        at, token = array(np.array([position + index], np.int32)), array(rest[:, index : index + 1])
        logits, cache = one.model.cached(token, at, *memory, cache)
        found.append(np.asarray(logits.detach() if isinstance(one, InTorch) else logits))
    return np.concatenate(found, axis=1)


@pytest.mark.parametrize("model", MODELS)
@settings(max_examples=10, deadline=None, derandomize=True)
@given(data=st.data())
def test_tokens_that_must_not_matter_change_not_one_bit(model: str, data: st.DataObject) -> None:
    one = MODELS[model]
    tokens = st.integers(0, one.config.vocab_size - 1)
    cut = data.draw(st.integers(1, one.config.max_length - 1), label="tokens seen")
    source, mask, ids = random_texts(one.config, seed=cut)
    later = data.draw(st.lists(tokens, min_size=one.config.max_length - cut, max_size=one.config.max_length - cut))
    under = data.draw(st.lists(tokens, min_size=source.size, max_size=source.size), label="ids under the mask")
    other_ids = np.concatenate([ids[:, :cut], np.tile(np.array(later, np.int32), (len(ids), 1))], axis=1)
    other_source = np.where(mask == 1, source, np.reshape(under, source.shape)).astype(np.int32)
    first = one.logits(source, mask, ids)[:, :cut]
    assert first.tobytes() == one.logits(other_source, mask, other_ids)[:, :cut].tobytes()


@pytest.mark.parametrize("model", MODELS)
def test_tokens_that_must_matter_do(model: str) -> None:
    one = MODELS[model]
    source, mask, ids = random_texts(one.config, seed=7)
    before = one.logits(source, mask, ids)
    other = ids.copy()
    other[:, 4] = ids[:, 4] % (one.config.vocab_size - 1) + 1
    after = one.logits(source, mask, other)
    assert (np.abs(after - before).max(axis=(0, 2))[4:] > 1e-4).all()
    if one.config.task == "translate":
        changed = source.copy()
        changed[:, 0] = source[:, 0] % (one.config.vocab_size - 1) + 1
        assert (np.abs(one.logits(changed, mask, ids) - before).max(axis=(1, 2)) > 1e-4).all()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_counts_the_tokens_asked_for_alone(smoothing: float) -> None:
    generator = np.random.default_rng(0)
    logits = generator.standard_normal((3, 4, 6)).astype(np.float32)
    targets = generator.integers(0, 6, (3, 4)).astype(np.int32)
    counted = np.array([[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1]], np.int32)
    rows, labels = torch.from_numpy(logits[counted == 1]), torch.from_numpy(targets[counted == 1]).long()
    expected = torch.nn.functional.cross_entropy(rows, labels, reduction="sum", label_smoothing=smoothing).item()
    tensors = map(torch.from_numpy, (logits, targets, counted))
    assert decoder_pytorch.token_loss(*tensors, smoothing).item() == pytest.approx(expected, rel=1e-6)
    found = decoder_keras.token_loss(tf.constant(logits), tf.constant(targets), tf.constant(counted), smoothing)
    assert float(found) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("config", CONFIGS, ids=name_of)
def test_first_weights_fit_and_give_scores_near_uniform(config: TransformerConfig) -> None:
    weights = initial_weights(config, seed=0)
    check_weights(config, weights)
    source, mask, ids = random_texts(config, seed=8)
    logits = InTorch(config, weights).logits(source, mask, ids)
    assert 0.1 < logits.std() < 3.0

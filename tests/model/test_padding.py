"""Padding never changes a logit: neither its amount nor the ids that lie under it."""

from collections.abc import Callable, Iterable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgekit.model import keras as in_keras
from edgekit.model import pytorch as in_torch
from edgekit.model.config import TransformerConfig
from edgekit.model.weights import initial_weights

import keras  # isort: skip - edgekit.model.keras chooses the backend first

Logits = Callable[[NDArray[np.int32], NDArray[np.int32]], NDArray[np.float32]]
Models = dict[str, Logits]

VOCAB_SIZE, MAX_LENGTH = 60, 24
CONFIGS = [
    TransformerConfig(
        vocab_size=VOCAB_SIZE,
        num_labels=5,
        max_length=MAX_LENGTH,
        hidden_size=16,
        num_layers=2,
        num_heads=2,
        ffn_size=32,
    ),
    TransformerConfig(
        vocab_size=VOCAB_SIZE,
        num_labels=5,
        max_length=MAX_LENGTH,
        hidden_size=16,
        num_layers=2,
        num_heads=2,
        ffn_size=32,
        norm="rmsnorm",
        positions="rotary",
        pooling="first",
        activation="relu",
    ),
]
WIDER = [config.model_copy(update={"hidden_size": 128, "num_heads": 4, "ffn_size": 512}) for config in CONFIGS]
IDS = st.integers(0, VOCAB_SIZE - 1)


def _in_torch(config: TransformerConfig) -> Logits:
    encoder = in_torch.build_encoder(config, initial_weights(config, seed=3))
    return lambda ids, mask: encoder(torch.from_numpy(ids), torch.from_numpy(mask)).detach().numpy()


def _in_keras(config: TransformerConfig) -> Logits:
    encoder = in_keras.build_encoder(config, initial_weights(config, seed=3))
    return lambda ids, mask: encoder((ids, mask)).numpy()


def _in_torch_double(config: TransformerConfig) -> Logits:
    encoder = in_torch.build_encoder(config, initial_weights(config, seed=3)).double()
    return lambda ids, mask: encoder(torch.from_numpy(ids), torch.from_numpy(mask)).detach().numpy()


def _in_keras_double(config: TransformerConfig) -> Logits:
    keras.config.set_dtype_policy("float64")
    try:
        return _in_keras(config)
    finally:
        keras.config.set_dtype_policy("float32")


def _models(builders: Iterable[Callable[[TransformerConfig], Logits]], configs: list[TransformerConfig]) -> Models:
    return {f"{build.__name__}-{config.positions}": build(config) for build in builders for config in configs}


SINGLE = _models((_in_torch, _in_keras), CONFIGS)
DOUBLE = _models((_in_torch_double, _in_keras_double), WIDER)


def _assert_padding_is_inert(model: Logits, tokens: list[int], padding: list[int], tolerance: float) -> None:
    bare, padded = np.array([tokens], np.int32), np.array([tokens + padding], np.int32)
    mask = (np.arange(padded.shape[1]) < len(tokens)).astype(np.int32)[None]
    expected = model(bare, np.ones_like(bare))
    bound = tolerance * max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(model(padded, mask), expected, rtol=0, atol=bound)


@pytest.mark.parametrize("model", SINGLE)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(data=st.data())
def test_padding_never_changes_a_logit(model: str, data: st.DataObject) -> None:
    tokens = data.draw(st.lists(IDS, min_size=1, max_size=MAX_LENGTH), label="tokens")
    padding = data.draw(st.lists(IDS, max_size=MAX_LENGTH - len(tokens)), label="ids under the mask")
    _assert_padding_is_inert(SINGLE[model], tokens, padding, tolerance=1e-6)


@pytest.mark.parametrize("model", DOUBLE)
@settings(max_examples=15, deadline=None, derandomize=True)
@given(data=st.data())
def test_padding_never_changes_a_logit_of_a_wider_model(model: str, data: st.DataObject) -> None:
    """In float64: over 128 dimensions in float32, BLAS itself rounds by 2e-6 when the number of rows changes."""
    tokens = data.draw(st.lists(IDS, min_size=1, max_size=MAX_LENGTH), label="tokens")
    padding = data.draw(st.lists(IDS, max_size=MAX_LENGTH - len(tokens)), label="ids under the mask")
    _assert_padding_is_inert(DOUBLE[model], tokens, padding, tolerance=1e-13)


@pytest.mark.parametrize("model", SINGLE)
def test_ids_under_the_mask_change_not_one_bit(model: str) -> None:
    mask = np.array([[1] * 5 + [0] * 9], np.int32)
    ids = np.arange(14, dtype=np.int32)[None]
    other = np.where(mask == 1, ids, VOCAB_SIZE - 1 - ids).astype(np.int32)
    assert SINGLE[model](ids, mask).tobytes() == SINGLE[model](other, mask).tobytes()


@pytest.mark.parametrize("model", SINGLE)
def test_tokens_do_change_the_logits(model: str) -> None:
    mask = np.ones((1, 4), np.int32)
    first, second = (SINGLE[model](np.array([ids], np.int32), mask) for ids in ([1, 2, 3, 4], [1, 2, 4, 3]))
    assert np.abs(first - second).max() > 1e-4

"""Padding never changes a logit: neither its amount nor the ids that lie under it."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgekit.model import keras as in_keras
from edgekit.model import pytorch as in_torch
from edgekit.model.config import TransformerConfig
from edgekit.model.sizes import named_config
from edgekit.model.weights import initial_weights

Logits = Callable[[NDArray[np.int32], NDArray[np.int32]], NDArray[np.float32]]

VOCAB_SIZE, MAX_LENGTH = 60, 24
CONFIGS = [
    named_config("nano", vocab_size=VOCAB_SIZE, num_labels=5, max_length=MAX_LENGTH),
    named_config(
        "nano",
        vocab_size=VOCAB_SIZE,
        num_labels=5,
        max_length=MAX_LENGTH,
        norm="rmsnorm",
        positions="rotary",
        pooling="first",
        activation="relu",
    ),
]
IDS = st.integers(0, VOCAB_SIZE - 1)


def _in_torch(config: TransformerConfig) -> Logits:
    encoder = in_torch.build_encoder(config, initial_weights(config, seed=3))
    return lambda ids, mask: encoder(torch.from_numpy(ids), torch.from_numpy(mask)).detach().numpy()


def _in_keras(config: TransformerConfig) -> Logits:
    encoder = in_keras.build_encoder(config, initial_weights(config, seed=3))
    return lambda ids, mask: encoder((ids, mask)).numpy()


MODELS = {
    f"{build.__name__[1:]}-{config.positions}": build(config) for build in (_in_torch, _in_keras) for config in CONFIGS
}


@pytest.mark.parametrize("model", MODELS)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(data=st.data())
def test_padding_never_changes_a_logit(model: str, data: st.DataObject) -> None:
    tokens = data.draw(st.lists(IDS, min_size=1, max_size=MAX_LENGTH), label="tokens")
    padding = data.draw(st.lists(IDS, max_size=MAX_LENGTH - len(tokens)), label="ids under the mask")
    bare = np.array([tokens], np.int32)
    padded = np.array([tokens + padding], np.int32)
    mask = (np.arange(padded.shape[1]) < len(tokens)).astype(np.int32)[None]
    expected = MODELS[model](bare, np.ones_like(bare))
    bound = 1e-6 * max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(MODELS[model](padded, mask), expected, rtol=0, atol=bound)


@pytest.mark.parametrize("model", MODELS)
def test_ids_under_the_mask_change_not_one_bit(model: str) -> None:
    mask = np.array([[1] * 5 + [0] * 9], np.int32)
    ids = np.arange(14, dtype=np.int32)[None]
    other = np.where(mask == 1, ids, VOCAB_SIZE - 1 - ids).astype(np.int32)
    assert MODELS[model](ids, mask).tobytes() == MODELS[model](other, mask).tobytes()


@pytest.mark.parametrize("model", MODELS)
def test_tokens_do_change_the_logits(model: str) -> None:
    mask = np.ones((1, 4), np.int32)
    first, second = (MODELS[model](np.array([ids], np.int32), mask) for ids in ([1, 2, 3, 4], [1, 2, 4, 3]))
    assert np.abs(first - second).max() > 1e-4

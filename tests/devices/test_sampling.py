"""The functions over logits, beside transformers' own processors of logits."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgekit.devices.runner import sampling
from edgekit.devices.runner.rules import Text, filtered
from edgekit.devices.runner.sampling import Sampling, choose, warp

processors = pytest.importorskip("transformers.generation.logits_process")
VOCAB = 12
LOGITS = st.lists(
    st.floats(-20, 20, width=32), min_size=VOCAB, max_size=VOCAB, unique_by=lambda value: round(value, 3)
).map(lambda values: np.array(values, np.float32))
IDS = st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=8)
SEVERAL = settings(max_examples=60, deadline=None)


def by_transformers(processor: object, logits: NDArray[np.float32], ids: list[int]) -> NDArray[np.float32]:
    assert callable(processor)
    found: NDArray[np.float32] = processor(torch.tensor([ids]), torch.from_numpy(logits)[None].clone())[0].numpy()
    return found


@SEVERAL
@given(LOGITS, IDS, st.floats(0.5, 3))
def test_repetition_penalty(logits: NDArray[np.float32], ids: list[int], penalty: float) -> None:
    expected = by_transformers(processors.RepetitionPenaltyLogitsProcessor(penalty), logits, ids)
    np.testing.assert_allclose(sampling.penalize_repetition(logits, ids, penalty), expected, rtol=1e-6)


@SEVERAL
@given(LOGITS, st.integers(1, VOCAB + 2))
def test_top_k(logits: NDArray[np.float32], count: int) -> None:
    expected = by_transformers(processors.TopKLogitsWarper(count), logits, [0])
    np.testing.assert_array_equal(sampling.keep_top_k(logits, count), expected)


@SEVERAL
@given(LOGITS, st.floats(0.01, 0.999))
def test_top_p(logits: NDArray[np.float32], share: float) -> None:
    found = sampling.keep_top_p(logits, share)
    cumulated = np.cumsum(np.sort(sampling.probabilities(logits)))
    if np.abs(cumulated - (1 - share)).min() > 1e-5:  # nearer, float32 and float64 may round apart
        np.testing.assert_array_equal(found, by_transformers(processors.TopPLogitsWarper(share), logits, [0]))
    kept = np.isfinite(found)
    assert kept[logits.argmax()]
    assert sampling.probabilities(logits)[kept].sum() >= share - 1e-9


@SEVERAL
@given(LOGITS, IDS, st.floats(0.1, 3), st.integers(0, VOCAB), st.floats(0.3, 1), st.floats(0.8, 2))
def test_all_of_them_in_their_order(
    logits: NDArray[np.float32], ids: list[int], temperature: float, top_k: int, top_p: float, penalty: float
) -> None:
    found = filtered(logits, Text(ids), Sampling(temperature, top_k, top_p, penalty))
    expected = by_transformers(processors.RepetitionPenaltyLogitsProcessor(penalty), logits, ids)
    expected = by_transformers(processors.TemperatureLogitsWarper(temperature), expected, ids)
    if top_k:
        expected = by_transformers(processors.TopKLogitsWarper(top_k), expected, ids)
    kept = sampling.probabilities(expected)
    if top_p < 1 and np.abs(np.cumsum(np.sort(kept)) - (1 - top_p)).min() > 1e-5:
        expected = by_transformers(processors.TopPLogitsWarper(top_p), expected, ids)
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    elif top_p == 1:
        np.testing.assert_allclose(found, expected, rtol=1e-5)


@SEVERAL
@given(LOGITS, st.integers(0, 1000))
def test_greedy_takes_the_likeliest_whatever_the_seed(logits: NDArray[np.float32], seed: int) -> None:
    chosen = choose(logits, Sampling(), np.random.default_rng(seed))
    assert chosen == logits.argmax()


def test_what_is_drawn_has_the_probabilities_of_the_logits() -> None:
    logits = np.array([0.0, 1.0, 2.0, -np.inf, 0.5], np.float32)
    generator, chance = np.random.default_rng(0), Sampling(temperature=0.7)
    drawn = [choose(warp(logits, chance), chance, generator) for _ in range(20_000)]
    shares = np.bincount(drawn, minlength=5) / len(drawn)
    expected = sampling.probabilities(logits / np.float32(0.7))
    assert shares[3] == 0
    np.testing.assert_allclose(shares, expected, atol=4 * np.sqrt(0.25 / len(drawn)))


def test_a_seed_draws_the_same_again() -> None:
    logits = np.zeros(VOCAB, np.float32)
    first, second = (
        [choose(logits, Sampling(temperature=1), generator) for _ in range(50)]
        for generator in (np.random.default_rng(7), np.random.default_rng(7))
    )
    assert first == second
    assert len(set(first)) > 3

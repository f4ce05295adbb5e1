import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from edgekit.errors import UnknownNameError
from edgekit.model import decoder_keras as in_keras
from edgekit.model import decoder_pytorch as in_torch
from edgekit.model.config import TransformerConfig
from edgekit.model.sizes import (
    SIZES,
    cache_size_bytes,
    multiply_accumulates,
    named_config,
    parameter_count,
    size_rows,
    weights_size_bytes,
)
from edgekit.model.weights import initial_weights
from edgekit.program import Task

VARIANTS = [
    named_config("nano", vocab_size=300, num_labels=7),
    named_config("nano", vocab_size=300, num_labels=7, norm="rmsnorm", positions="rotary", embedding_size=None),
    named_config("nano", vocab_size=300, num_labels=7, shared_layers=True, pooling="first", num_layers=3),
    named_config("nano", vocab_size=300, num_labels=7, num_kv_heads=2, gated_ffn=True, linear_bias=False),
    named_config("nano", vocab_size=300, task="generate", num_kv_heads=1, gated_ffn=True, activation="silu"),
    named_config("nano", vocab_size=300, task="generate", tied_embeddings=False),
    named_config("nano", vocab_size=300, task="translate", num_decoder_layers=1),
    named_config("nano", vocab_size=300, task="translate", shared_layers=True, embedding_size=None),
]


@pytest.mark.parametrize("config", VARIANTS)
def test_parameter_count_is_that_of_both_models(config: TransformerConfig) -> None:
    weights = initial_weights(config, seed=0)
    in_pytorch = sum(p.numel() for p in in_torch.build_model(config, weights).parameters())
    assert parameter_count(config) == in_pytorch == in_keras.build_model(config, weights).count_params()
    assert weights_size_bytes(config) == sum(tensor.nbytes for tensor in weights.values())


@pytest.mark.parametrize("length", [1, 7, 64])
@pytest.mark.parametrize("config", VARIANTS)
def test_multiply_accumulates_are_what_pytorch_counts(config: TransformerConfig, length: int) -> None:
    model = in_torch.build_model(config, initial_weights(config, seed=0))
    ids = torch.ones(1, length, dtype=torch.int32)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model(*{"classify": (ids, ids), "generate": (ids,), "translate": (ids, ids, ids)}[config.task])
    assert multiply_accumulates(config, length) == counter.get_total_flops() // 2


def test_sizes_grow_and_the_smallest_stays_under_a_million() -> None:
    rows = size_rows()
    assert [row.name for row in rows] == list(SIZES) == ["nano", "tiny", "mini", "small"]
    counts = [row.parameters for row in rows]
    assert counts == sorted(counts)
    assert counts[0] <= 1_000_000
    assert 10_000_000 <= counts[-1] <= 15_000_000
    assert [row.multiply_accumulates for row in rows] == sorted(row.multiply_accumulates for row in rows)


def test_the_cache_has_the_bytes_that_both_models_give_it() -> None:
    for config in VARIANTS[4:]:
        weights = initial_weights(config, seed=0)
        cache = in_torch.build_model(config, weights).empty_cache(1)
        assert cache_size_bytes(config) == sum(tensor.nbytes for pair in cache for tensor in pair)
        twin = in_keras.build_model(config, weights).empty_cache(1)
        assert [tuple(key.shape) for key, _ in twin] == [tuple(key.shape) for key, _ in cache]
    assert cache_size_bytes(VARIANTS[0]) == 0


@pytest.mark.parametrize("task", ["generate", "translate"])
def test_rows_of_models_that_write(task: Task) -> None:
    rows = size_rows(task=task)
    counts = [row.parameters for row in rows]
    assert counts == sorted(counts)
    assert all(row.cache_size_bytes > 0 and row.config.task == task for row in rows)


def test_named_config_takes_overrides() -> None:
    config = named_config("tiny", vocab_size=500, num_labels=3, positions="rotary", max_length=32)
    assert (config.vocab_size, config.num_labels, config.positions, config.max_length) == (500, 3, "rotary", 32)
    assert config.hidden_size == SIZES["tiny"].hidden_size


def test_unknown_size_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="unknown size 'tinny': did you mean tiny"):
        named_config("tinny", vocab_size=500, num_labels=3)

import inspect

import numpy as np
import pytest

from edgekit.cli.train import run_train
from edgekit.errors import EdgekitError, RefusedError, UnknownNameError
from edgekit.text.datasets import DataSpec
from edgekit.train.settings import TrainSettings, average_decay_at, learning_rate_at, make_settings


def test_warm_up_then_cosine() -> None:
    settings = TrainSettings(learning_rate=1.0, warmup_fraction=0.1)
    rates = [learning_rate_at(settings, step, 100) for step in range(100)]
    assert rates[:3] == pytest.approx([0.1, 0.2, 0.3])
    assert max(rates) == rates[9] == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert np.all(np.diff(rates[10:]) < 0)
    assert 0 < rates[-1] < 1e-3


def test_no_warm_up() -> None:
    assert learning_rate_at(TrainSettings(learning_rate=1.0, warmup_fraction=0), 0, 10) == 1.0


def test_average_forgets_the_start() -> None:
    settings = TrainSettings(average_decay=0.99)
    assert average_decay_at(settings, 0) == 0.1
    assert average_decay_at(settings, 10**6) == 0.99


@pytest.mark.parametrize(
    ("name", "value", "nearest"),
    [
        ("framework", "pytorch", "torch"),
        ("tokenizer", "wordpieces", "wordpiece"),
        ("size", "smal", "small"),
        ("norm", "layer-norm", "layernorm"),
        ("task", "classification", "classify"),
    ],
)
def test_unknown_names(name: str, value: str, nearest: str) -> None:
    with pytest.raises(UnknownNameError, match=f"did you mean {nearest}"):
        make_settings({name: value})


@pytest.mark.parametrize("values", [{"dropout": 1.0}, {"learning_rate": 0}, {"epochs": 0}, {"clip_norm": -1}])
def test_values_out_of_range(values: dict[str, float]) -> None:
    with pytest.raises(RefusedError, match="--" + next(iter(values)).replace("_", "-")) as caught:
        make_settings(values)
    assert isinstance(caught.value, EdgekitError)


def test_the_command_has_the_same_defaults() -> None:
    options = {name: parameter.default for name, parameter in inspect.signature(run_train).parameters.items()}
    for name, field in TrainSettings.model_fields.items():
        assert options[name] == field.default, name
    spec = DataSpec(source=options["data"])
    for name in ("text_column", "label_column", "source_column"):
        assert options[name] == getattr(spec, name)
    assert (options["test_fraction"], options["validation_fraction"]) == (spec.split.test, spec.split.validation)


def test_sizes_can_be_replaced() -> None:
    config = TrainSettings(hidden_size=96, num_heads=3, embedding_size=0).model_config_for(vocab_size=300, num_labels=4)
    assert (config.hidden_size, config.num_heads, config.embedding_size, config.num_layers) == (96, 3, None, 2)
    with pytest.raises(RefusedError, match="not a multiple of num_heads"):
        TrainSettings(hidden_size=100, num_heads=3).model_config_for(vocab_size=300, num_labels=4)


def test_cuts_need_subwords() -> None:
    with pytest.raises(RefusedError, match="--cut"):
        make_settings({"cut": 0.5, "tokenizer": "wordpiece"})

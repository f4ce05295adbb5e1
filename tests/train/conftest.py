"""Small real data that a nano model learns in seconds: do the words come from one list or the other?"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgekit.text.datasets import DataSpec
from edgekit.text.splits import SplitRule
from edgekit.train.settings import TrainSettings

WORDS = {
    "fruit": ["apple", "pear", "plum", "cherry", "grape", "melon"],
    "metal": ["iron", "zinc", "copper", "silver", "gold", "lead"],
}


@pytest.fixture
def data_file(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    texts = {
        (" ".join(generator.choice(words, generator.integers(1, 4))), label)
        for label, words in WORDS.items()
        for _ in range(120)
    }
    path = tmp_path / "words.tsv"
    path.write_text("text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in sorted(texts)))
    return path


@pytest.fixture
def small_settings() -> Callable[..., TrainSettings]:
    return make_small_settings


@pytest.fixture
def spec(data_file: Path) -> DataSpec:
    return DataSpec(source=str(data_file), split=SplitRule(test=0.2, validation=0.2))


def make_small_settings(**changes: object) -> TrainSettings:
    values: dict[str, object] = {
        "tokenizer": "byte",
        "max_length": 24,
        "epochs": 3,
        "batch_size": 16,
        "learning_rate": 1e-3,
        "patience": 0,
    }
    return TrainSettings.model_validate({**values, **changes})

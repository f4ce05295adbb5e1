from collections.abc import Callable

import numpy as np

from edgekit.text.datasets import Example
from edgekit.text.processor import train_processor
from edgekit.train.batches import Batch
from edgekit.train.epochs import TextEpochs
from edgekit.train.settings import TrainSettings

LABELS = ("a", "b")
EXAMPLES = [Example(text=f"word{n} other{n} third", label=LABELS[n % 2]) for n in range(60)]
PROCESSOR = train_processor("bpe", [example.text for example in EXAMPLES], 300)


def alike(first: list[Batch], second: list[Batch]) -> bool:
    pairs = zip(first, second, strict=True)
    return all(np.array_equal(a.ids, b.ids) and np.array_equal(a.labels, b.labels) for a, b in pairs)


def test_an_epoch_depends_on_its_number_and_the_seed(small_settings: Callable[..., TrainSettings]) -> None:
    for options in ({}, {"tokenizer": "bpe", "crop": 0.4, "join": 0.2, "cut": 0.5}):
        epochs = TextEpochs(EXAMPLES, LABELS, PROCESSOR, small_settings(**options))
        again = TextEpochs(EXAMPLES, LABELS, PROCESSOR, small_settings(**options))
        other = TextEpochs(EXAMPLES, LABELS, PROCESSOR, small_settings(**options, seed=1))
        assert epochs.examples == 60
        first = list(epochs.batches(0))
        assert alike(first, list(again.batches(0)))
        assert not alike(first, list(epochs.batches(1)))
        assert not alike(first, list(other.batches(0)))


def test_varied_texts_keep_their_labels(small_settings: Callable[..., TrainSettings]) -> None:
    settings = small_settings(tokenizer="bpe", crop=0.5, join=0.5, cut=1.0)
    for batch in TextEpochs(EXAMPLES, LABELS, PROCESSOR, settings).batches(3):
        for ids, mask, label in zip(batch.ids, batch.mask, batch.labels, strict=True):
            spelled = "".join(PROCESSOR._tokenizer.id_to_token(token) for token in ids[1 : mask.sum()])
            numbers = {int(digits) for digits in "".join(c if c.isdigit() else " " for c in spelled).split()}
            assert all(number % 2 == label for number in numbers)

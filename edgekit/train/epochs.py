"""The batches of each epoch, made from text: always the same ones for the same seed and number."""

from collections.abc import Iterator, Sequence

import numpy as np

from edgekit.text.augment import augment_texts
from edgekit.text.datasets import Example
from edgekit.text.processor import CUT, Processor
from edgekit.train.batches import Batch, draw_batches
from edgekit.train.loop import Held
from edgekit.train.settings import TrainSettings


def encode_examples(examples: Sequence[Example], labels: Sequence[str], processor: Processor) -> Held:
    """Return ids and label indices of examples."""
    index = {label: number for number, label in enumerate(labels)}
    return Held(
        rows=processor.encode([example.text for example in examples]),
        labels=np.array([index[example.label] for example in examples], np.int32),
    )


class TextEpochs:
    """An EpochSource over examples: what an epoch holds depends on the seed and its number alone."""

    def __init__(
        self,
        examples: Sequence[Example],
        labels: Sequence[str],
        processor: Processor,
        settings: TrainSettings,
        teacher_processor: Processor | None = None,
    ) -> None:
        self._settings = settings
        self._texts = [example.text for example in examples]
        self._held = encode_examples(examples, labels, processor)
        self._cutting = processor.with_cuts()
        self._teacher = teacher_processor
        self._taught = teacher_processor.encode(self._texts) if teacher_processor is not None else None

    @property
    def examples(self) -> int:
        """Number of examples in one epoch."""
        return len(self._held.labels)

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Return the batches of an epoch, counted from 0."""
        generator = np.random.default_rng([self._settings.seed, epoch])
        rows, taught = self._held.rows, self._taught
        if self._settings.augmentation.changes_text:
            texts = augment_texts(self._texts, self._held.labels, self._settings.augmentation, generator)
            rows = self._cutting.encode(texts)
            if self._teacher is not None:
                taught = self._teacher.encode([text.replace(CUT, "") for text in texts])
        return draw_batches(rows, self._held.labels, self._settings.batch_size, generator, taught)

"""The batches of texts to write, and the scores of a model that writes them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from edgekit.errors import DataError
from edgekit.text.corpora import Pair
from edgekit.text.processor import BOS_ID, EOS_ID, Processor, pad_ids
from edgekit.train.batches import TextBatch, draw_indices, text_batch
from edgekit.train.loop import EVALUATION_BATCH_SIZE, Validated
from edgekit.train.settings import TrainSettings
from edgekit.train.text_metrics import (
    GenerationMetrics,
    Translation,
    TranslationMetrics,
    bits_per_byte,
    references_of,
    translation_metrics,
)
from edgekit.train.trainer import TextTrainer

Rows = list[list[int]]


@dataclass(frozen=True, kw_only=True)
class EncodedTexts:
    """Texts as ids: each target begins with [BOS]; `sources` are those to translate from, or None.

    A text longer than the model reads is several rows where there is no source. A pair with a longer side is left out
    of training (`too_long` counts these) and cut in what is held out. `size_bytes` is of the texts in the rows.
    """

    targets: Rows
    sources: Rows | None
    size_bytes: int
    too_long: int = 0

    def batch(self, indices: Sequence[int]) -> TextBatch:
        """Return the batch of these rows."""
        sources = None if self.sources is None else [self.sources[index] for index in indices]
        return text_batch([self.targets[index] for index in indices], sources)

    def lengths(self) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
        """Return the tokens of each row, of both sides."""
        own = np.array([len(row) for row in self.targets])
        return own if self.sources is None else own + np.array([len(row) for row in self.sources])


def encode_pairs(pairs: Sequence[Pair], processor: Processor, *, translate: bool, training: bool) -> EncodedTexts:
    """Return the ids of texts.

    Raises DataError where every pair is too long to train on.
    """
    targets = [[*ids, EOS_ID] for ids in processor.encode_uncut([pair.target for pair in pairs])]
    longest = processor.max_length
    if not translate:
        rows = [[BOS_ID, *ids[at : at + longest]] for ids in targets for at in range(0, len(ids), longest)]
        return EncodedTexts(targets=rows, sources=None, size_bytes=_size_bytes(pairs))
    sources = [[BOS_ID, *ids] for ids in processor.encode_uncut([pair.source for pair in pairs])]
    fitting = [
        index
        for index, (source, target) in enumerate(zip(sources, targets, strict=True))
        if not training or (len(source) <= longest and len(target) <= longest)
    ]
    if not fitting:
        raise DataError(f"all {len(pairs)} pairs are longer than --max-length {longest}: raise it")
    kept = [[BOS_ID, *targets[index][:longest]] for index in fitting]
    return EncodedTexts(
        targets=kept,
        sources=[sources[index][:longest] for index in fitting],
        size_bytes=sum(
            len(pair.target.encode()) if len(ids) <= longest else len(processor.decode(ids[:longest]).encode())
            for pair, ids in zip(pairs, targets, strict=True)
        ),
        too_long=len(pairs) - len(fitting),
    )


def _size_bytes(pairs: Sequence[Pair]) -> int:
    return sum(len(pair.target.encode()) for pair in pairs)


class WritingEpochs:
    """An EpochSource over texts: what an epoch holds depends on the seed and its number alone."""

    def __init__(self, texts: EncodedTexts, settings: TrainSettings) -> None:
        self._texts, self._settings = texts, settings
        self._lengths = texts.lengths()

    @property
    def examples(self) -> int:
        """Number of rows in one epoch."""
        return len(self._texts.targets)

    def batches(self, epoch: int) -> Iterator[TextBatch]:
        """Return the batches of an epoch, counted from 0."""
        generator = np.random.default_rng([self._settings.seed, epoch])
        for indices in draw_indices(self._lengths, self._settings.batch_size, generator):
            yield self._texts.batch(indices.tolist())


def score_texts(trainer: TextTrainer, texts: EncodedTexts, examples: int) -> GenerationMetrics:
    """Return how well the averaged weights foretell texts, of so many examples."""
    order = np.argsort(texts.lengths(), kind="stable")
    loss, correct, tokens = 0.0, 0, 0
    for start in range(0, len(order), EVALUATION_BATCH_SIZE):
        batch = texts.batch(order[start : start + EVALUATION_BATCH_SIZE].tolist())
        found = trainer.evaluate(batch)
        loss, correct, tokens = loss + found.loss_sum, correct + found.correct, tokens + batch.predictions
    return GenerationMetrics(
        examples=examples,
        tokens=tokens,
        size_bytes=texts.size_bytes,
        bits_per_byte=bits_per_byte(loss, texts.size_bytes),
        accuracy=correct / tokens,
    )


def validate_texts(trainer: TextTrainer, texts: EncodedTexts) -> Validated:
    """Return the scores of the validation part."""
    found = score_texts(trainer, texts, len(texts.targets))
    return Validated(accuracy=found.accuracy, bits_per_byte=found.bits_per_byte)


def translate_texts(trainer: TextTrainer, sources: Sequence[str], processor: Processor) -> list[str]:
    """Return the greedy translation of each source text by the averaged weights."""
    rows = processor.encode(sources)
    order = np.argsort([len(row) for row in rows], kind="stable")
    found = [""] * len(rows)
    for start in range(0, len(order), EVALUATION_BATCH_SIZE):
        indices = order[start : start + EVALUATION_BATCH_SIZE]
        batch = [rows[index] for index in indices]
        # One length for all, that of the longest text: shapes stay the same, and padding changes nothing.
        source = pad_ids(batch, processor.max_length)
        prompts = np.full((len(batch), 1), BOS_ID, np.int32)
        for index, ids in zip(indices, trainer.write(source, prompts), strict=True):
            found[index] = processor.decode(ids)
    return found


def score_translations(
    trainer: TextTrainer, pairs: Sequence[Pair], texts: EncodedTexts, processor: Processor
) -> TranslationMetrics:
    """Return how well the averaged weights foretell and translate held-out pairs."""
    references = references_of(pairs)
    written = translate_texts(trainer, list(references), processor)
    translations = [
        Translation(source=source, references=own, written=text)
        for (source, own), text in zip(references.items(), written, strict=True)
    ]
    return translation_metrics(score_texts(trainer, texts, len(pairs)), translations)

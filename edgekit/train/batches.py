"""Batches of similar length, in an order that numpy draws from the seed: the same in both frameworks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.text.processor import pad_ids

BATCHES_PER_BUCKET = 50  # sorted by length among themselves: little padding, and still a random mix


@dataclass(frozen=True, kw_only=True)
class Batch:
    """ids and mask int32 [batch, length], labels int32 [batch]; `length` is that of the longest text.

    `other_ids` and `other_mask` are the same texts as another tokenizer has them; None: as this one has.
    """

    ids: NDArray[np.int32]
    mask: NDArray[np.int32]
    labels: NDArray[np.int32]
    other_ids: NDArray[np.int32] | None = None
    other_mask: NDArray[np.int32] | None = None

    @property
    def predictions(self) -> int:
        """Number of labels to predict."""
        return len(self.labels)

    @property
    def teacher_ids(self) -> NDArray[np.int32]:
        """What a teacher reads, int32 [batch, its length]."""
        return self.ids if self.other_ids is None else self.other_ids

    @property
    def teacher_mask(self) -> NDArray[np.int32]:
        """1 where `teacher_ids` has a token, 0 where it has padding."""
        return self.mask if self.other_mask is None else self.other_mask


@dataclass(frozen=True, kw_only=True)
class TextBatch:
    """Texts to write: ids, the token after each (`targets`), and 1 where that counts, int32 [batch, length].

    To translate, `source_ids` and `source_mask` are int32 [batch, length of source]; else None.
    """

    ids: NDArray[np.int32]
    targets: NDArray[np.int32]
    counted: NDArray[np.int32]
    source_ids: NDArray[np.int32] | None = None
    source_mask: NDArray[np.int32] | None = None

    @property
    def predictions(self) -> int:
        """Number of tokens to predict."""
        return int(self.counted.sum())

    @property
    def inputs(self) -> tuple[NDArray[np.int32], ...]:
        """What the model takes."""
        if self.source_ids is None or self.source_mask is None:
            return (self.ids,)
        return (self.source_ids, self.source_mask, self.ids)

    def share(self, rank: int, count: int) -> "TextBatch":
        """Return the rows of one worker of `count`; where there are too few, a row that does not count."""
        mine = slice(rank, None, count) if rank < len(self.ids) else slice(0, 1)
        counted = self.counted[mine] if rank < len(self.ids) else np.zeros_like(self.counted[mine])
        return TextBatch(
            ids=self.ids[mine],
            targets=self.targets[mine],
            counted=counted,
            source_ids=None if self.source_ids is None else self.source_ids[mine],
            source_mask=None if self.source_mask is None else self.source_mask[mine],
        )


def text_batch(targets: Sequence[Sequence[int]], sources: Sequence[Sequence[int]] | None) -> TextBatch:
    """Return the batch of texts that begin with [BOS] and end with [EOS], or where they were cut."""
    ids, mask = pad_ids(targets, max(map(len, targets)))
    source_ids, source_mask = (None, None) if sources is None else pad_ids(sources, max(map(len, sources)))
    return TextBatch(
        ids=ids[:, :-1],
        targets=np.ascontiguousarray(ids[:, 1:]),
        counted=np.ascontiguousarray(mask[:, 1:]),
        source_ids=source_ids,
        source_mask=source_mask,
    )


def batch_count(examples: int, batch_size: int) -> int:
    """Return the number of batches in one epoch."""
    return -(-examples // batch_size)


def draw_batches(
    rows: Sequence[Sequence[int]],
    labels: NDArray[np.int32],
    batch_size: int,
    generator: np.random.Generator,
    other_rows: Sequence[Sequence[int]] | None = None,
) -> Iterator[Batch]:
    """Yield one epoch of batches: every example once, lengths alike within a batch, batches in random order.

    `other_rows` are the same examples as another tokenizer has them.
    """
    for indices in draw_indices(np.array([len(row) for row in rows]), batch_size, generator):
        yield _batch(rows, labels, indices, other_rows)


def draw_indices(
    lengths: NDArray[np.int64], batch_size: int, generator: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    """Yield the examples of each batch of one epoch: every one once, lengths alike within a batch, in random order."""
    order = generator.permutation(len(lengths))
    bucket_size = batch_size * BATCHES_PER_BUCKET
    chosen: list[NDArray[np.int64]] = []
    for start in range(0, len(order), bucket_size):
        bucket = order[start : start + bucket_size]
        bucket = bucket[np.argsort(lengths[bucket], kind="stable")]
        chosen += [bucket[at : at + batch_size] for at in range(0, len(bucket), batch_size)]
    for index in generator.permutation(len(chosen)):
        yield chosen[index]


def ordered_batches(
    rows: Sequence[Sequence[int]], batch_size: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]]:
    """Yield (indices, ids, mask) of all rows, shortest first, for evaluation."""
    order = np.argsort([len(row) for row in rows], kind="stable")
    for start in range(0, len(order), batch_size):
        indices = order[start : start + batch_size]
        batch = [rows[index] for index in indices]
        yield indices, *pad_ids(batch, max(map(len, batch)))


def _batch(
    rows: Sequence[Sequence[int]],
    labels: NDArray[np.int32],
    indices: NDArray[np.int64],
    other_rows: Sequence[Sequence[int]] | None,
) -> Batch:
    ids, mask = _padded(rows, indices)
    other_ids, other_mask = (None, None) if other_rows is None else _padded(other_rows, indices)
    return Batch(ids=ids, mask=mask, labels=labels[indices], other_ids=other_ids, other_mask=other_mask)


def _padded(rows: Sequence[Sequence[int]], indices: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    batch = [rows[index] for index in indices]
    return pad_ids(batch, max(map(len, batch)))

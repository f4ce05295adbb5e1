"""Batches of similar length, in an order that numpy draws from the seed: the same in both frameworks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.text.processor import pad_ids

BATCHES_PER_BUCKET = 50  # sorted by length among themselves: little padding, and still a random mix


@dataclass(frozen=True, kw_only=True)
class Batch:
    """ids and mask int32 [batch, length], labels int32 [batch]; `length` is that of the longest text."""

    ids: NDArray[np.int32]
    mask: NDArray[np.int32]
    labels: NDArray[np.int32]


def batch_count(examples: int, batch_size: int) -> int:
    """Return the number of batches in one epoch."""
    return -(-examples // batch_size)


def draw_batches(
    rows: Sequence[Sequence[int]], labels: NDArray[np.int32], batch_size: int, generator: np.random.Generator
) -> Iterator[Batch]:
    """Yield one epoch of batches: every example once, lengths alike within a batch, batches in random order."""
    order = generator.permutation(len(rows))
    lengths = np.array([len(row) for row in rows])
    bucket_size = batch_size * BATCHES_PER_BUCKET
    chosen: list[NDArray[np.int64]] = []
    for start in range(0, len(order), bucket_size):
        bucket = order[start : start + bucket_size]
        bucket = bucket[np.argsort(lengths[bucket], kind="stable")]
        chosen += [bucket[at : at + batch_size] for at in range(0, len(bucket), batch_size)]
    for index in generator.permutation(len(chosen)):
        yield _batch(rows, labels, chosen[index])


def ordered_batches(
    rows: Sequence[Sequence[int]], batch_size: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]]:
    """Yield (indices, ids, mask) of all rows, shortest first, for evaluation."""
    order = np.argsort([len(row) for row in rows], kind="stable")
    for start in range(0, len(order), batch_size):
        indices = order[start : start + batch_size]
        batch = [rows[index] for index in indices]
        yield indices, *pad_ids(batch, max(map(len, batch)))


def _batch(rows: Sequence[Sequence[int]], labels: NDArray[np.int32], indices: NDArray[np.int64]) -> Batch:
    batch = [rows[index] for index in indices]
    ids, mask = pad_ids(batch, max(map(len, batch)))
    return Batch(ids=ids, mask=mask, labels=labels[indices])

import numpy as np

from edgekit.train.batches import Batch, batch_count, draw_batches, ordered_batches

GENERATOR = np.random.default_rng(0)
ROWS = [[1] + [int(n)] * int(length) for n, length in enumerate(GENERATOR.integers(0, 60, 1000), 3)]
LABELS = np.arange(1000, dtype=np.int32)


def drawn(seed: int) -> list[Batch]:
    return list(draw_batches(ROWS, LABELS, 16, np.random.default_rng(seed)))


def test_every_example_once_with_its_label() -> None:
    batches = drawn(0)
    assert len(batches) == batch_count(1000, 16) == 63
    assert sorted(np.concatenate([batch.labels for batch in batches])) == list(range(1000))
    for batch in batches:
        for ids, mask, label in zip(batch.ids, batch.mask, batch.labels, strict=True):
            assert ids[: mask.sum()].tolist() == ROWS[label]
            assert not ids[mask.sum() :].any()


def test_order_depends_on_the_seed_alone() -> None:
    first, again, other = drawn(1), drawn(1), drawn(2)
    assert all(np.array_equal(a.ids, b.ids) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a.labels, b.labels) for a, b in zip(first, other, strict=True))


def test_lengths_are_alike_within_a_batch() -> None:
    padded = sum(batch.ids.size for batch in drawn(0))
    assert padded < 1.15 * sum(map(len, ROWS))
    lengths = [batch.ids.shape[1] for batch in drawn(0)]
    assert lengths != sorted(lengths)


def test_ordered_batches_cover_all_rows() -> None:
    found = list(ordered_batches(ROWS, 256))
    assert sorted(np.concatenate([indices for indices, _, _ in found])) == list(range(1000))
    for indices, ids, mask in found:
        assert mask.sum(1).tolist() == [len(ROWS[index]) for index in indices]
        assert ids.shape == mask.shape

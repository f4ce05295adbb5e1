"""Held-out examples: the test part of what a checkpoint was trained on, and fixed samples of it."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Literal

from edgekit.cache import Cache
from edgekit.cache_keys import cache_key
from edgekit.checkpoint import Checkpoint
from edgekit.errors import DataError
from edgekit.text.datasets import Example, data_sha256, reload_data

HeldOut = Literal["test", "validation"]


def held_out(checkpoint: Checkpoint, part: HeldOut = "test", *, cache: Cache | None = None) -> tuple[Example, ...]:
    """Read the test part of the checkpoint's data again, or the validation part: what choices are made on.

    What is in `cache` is not read again while the data's files stay as they were. Raises DataError where the checkpoint
    has no record of its data, or the data can't be read as it was.
    """
    if checkpoint.data is None:
        raise DataError(f"the checkpoint {checkpoint.name} does not say what data it was trained on")
    data = checkpoint.data

    def read() -> tuple[Example, ...]:
        dataset = reload_data(data)
        return dataset.test if part == "test" else dataset.validation

    files = data_sha256(data) if cache else None
    if cache is None or files is None:
        return read()
    key = cache_key("held-out", data=data.model_dump(mode="json"), part=part, files=files)
    kept = cache.remember(key, lambda: json.dumps([(each.text, each.label) for each in read()]).encode())
    return tuple(Example(text=text, label=label) for text, label in json.loads(kept))


def stratified_sample(examples: Sequence[Example], n: int) -> tuple[Example, ...]:
    """Return `n` examples, each label in its share (largest remainders), always the same ones.

    Within a label they are those whose sha256 is lowest: adding data elsewhere does not change them. All
    examples, in their order, where there are no more than `n`.
    """
    if n >= len(examples):
        return tuple(examples)
    by_label: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        by_label[example.label].append(example)
    shares = {label: n * len(found) / len(examples) for label, found in sorted(by_label.items())}
    counts = {label: int(share) for label, share in shares.items()}
    by_remainder = sorted(shares, key=lambda label: (counts[label] - shares[label], label))
    for label in by_remainder[: n - sum(counts.values())]:
        counts[label] += 1
    chosen = {example for label, found in by_label.items() for example in sorted(found, key=_rank)[: counts[label]]}
    return tuple(example for example in examples if example in chosen)


def _rank(example: Example) -> bytes:
    return hashlib.sha256(f"{example.label}\n{example.text}".encode()).digest()

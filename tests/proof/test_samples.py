import dataclasses
from collections import Counter
from pathlib import Path

import pytest

from edgekit.checkpoint import Checkpoint
from edgekit.errors import DataError
from edgekit.model.sizes import named_config
from edgekit.proof.samples import held_out, stratified_sample
from edgekit.text.datasets import DataSpec, Example, load_dataset
from edgekit.text.processor import train_processor

EXAMPLES = tuple(
    Example(text=f"{label}{number}", label=label)
    for label, count in (("a", 50), ("b", 30), ("c", 20))
    for number in range(count)
)


def test_labels_keep_their_share() -> None:
    sample = stratified_sample(EXAMPLES, 10)
    assert Counter(example.label for example in sample) == {"a": 5, "b": 3, "c": 2}
    assert Counter(example.label for example in stratified_sample(EXAMPLES, 7)).total() == 7


def test_the_sample_is_fixed_and_in_order() -> None:
    sample = stratified_sample(EXAMPLES, 10)
    assert stratified_sample(tuple(reversed(EXAMPLES)), 10) == tuple(reversed(sample))
    assert stratified_sample(EXAMPLES, 100) == EXAMPLES
    assert stratified_sample(EXAMPLES, 1000) == EXAMPLES


def test_held_out_is_the_test_part(tmp_path: Path) -> None:
    path = tmp_path / "d.tsv"
    path.write_text("text\tlabel\n" + "".join(f"t{n}\t{n % 2}\n" for n in range(100)))
    dataset = load_dataset(DataSpec(source=str(path)))
    checkpoint = Checkpoint(
        path=tmp_path,
        name="m",
        framework="torch",
        config=named_config("nano", vocab_size=259, num_labels=2),
        weights={},
        processor=train_processor("byte", (), 259),
        labels=dataset.labels,
        data=dataset.record,
        metrics=None,
    )
    assert held_out(checkpoint) == dataset.test
    with pytest.raises(DataError, match="does not say"):
        held_out(dataclasses.replace(checkpoint, data=None))

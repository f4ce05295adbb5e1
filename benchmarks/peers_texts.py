"""The texts that peers.py measures on, as token ids on disk: real interface texts, the same for every candidate.

The embedded model: 200 held-out texts, and all held-out texts for accuracy. MiniLM: 200 English ones of the same
interfaces, which are new to it (it was trained on none of edgekit's parts).
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from peers_candidates import EMBEDDED, WORK, Model, minilm_path
from tokenizers import Tokenizer

from edgekit.checkpoint import embedded_checkpoint_path, load_checkpoint
from edgekit.proof.samples import stratified_sample
from edgekit.text.datasets import Example, reload_data

COUNT = 200


@dataclass(frozen=True, kw_only=True)
class Texts:
    """Files of token ids: those that are timed, those that quantizers may see, and (embedded) the whole test set."""

    source: Path
    timed: Path
    calibration: Path
    scored: Path
    ids: tuple[tuple[int, ...], ...]
    labels: NDArray[np.int64]

    @property
    def tokens(self) -> list[int]:
        """How many tokens each timed text has."""
        return [len(row) for row in self.ids]


def prepare_texts(model: Model) -> Texts:
    """Write the files of a model, and return where they are."""
    return _embedded() if model is EMBEDDED else _minilm()


def _embedded() -> Texts:
    source = embedded_checkpoint_path()
    checkpoint = load_checkpoint(source)
    assert checkpoint.data is not None  # it ships with edgekit, and says where its data is
    data = reload_data(checkpoint.data)
    timed, calibration = stratified_sample(data.test, COUNT), stratified_sample(data.train, COUNT)

    def encode(examples: tuple[Example, ...]) -> list[list[int]]:
        return checkpoint.processor.encode([example.text for example in examples])

    labels = np.array([checkpoint.labels.index(example.label) for example in data.test])
    return _write("embedded", source, encode(timed), encode(calibration), encode(data.test), labels)


def _minilm() -> Texts:
    source = minilm_path()
    data = load_checkpoint(embedded_checkpoint_path()).data
    assert data is not None
    parts = reload_data(data)
    every = sorted({e for e in (*parts.train, *parts.validation, *parts.test) if e.label == "en"})
    timed = stratified_sample(every, COUNT)
    calibration = stratified_sample([example for example in every if example not in set(timed)], COUNT)
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    tokenizer.no_padding()
    both = [[tokenizer.encode(example.text).ids for example in part] for part in (timed, calibration)]
    return _write("minilm", source, *both, [], np.zeros(0, np.int64))


def _write(
    name: str,
    source: Path,
    timed: list[list[int]],
    calibration: list[list[int]],
    scored: list[list[int]],
    labels: NDArray[np.int64],
) -> Texts:
    folder = WORK / "texts"
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for kind, rows in (("timed", timed), ("calibration", calibration), ("scored", scored)):
        files[kind] = folder / f"{name}-{kind}.json"
        files[kind].write_text(json.dumps(rows))
    return Texts(source=source, **files, ids=tuple(map(tuple, timed)), labels=labels)

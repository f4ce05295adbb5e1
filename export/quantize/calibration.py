"""Calibration: real texts, tokenised as the model's own, that show a quantizer the ranges of activations."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from edgekit.bundle import file_sha256
from edgekit.cache import Cache
from edgekit.cache_keys import cache_key
from edgekit.checkpoint import Checkpoint, content_sha256
from edgekit.errors import DataError, MissingExtraError, RefusedError
from edgekit.proof.golden import Golden, text_steps, write_golden
from edgekit.proof.samples import stratified_sample
from edgekit.sources.checkpoint import SIGNATURE
from edgekit.text.datasets import Example, data_sha256, reload_data
from edgekit.text.processor import Processor
from edgekit.text.readers import read_file

DEFAULT_SAMPLES = 200
#: texts of the checkpoint's own data that calibration texts are compared with
_COMPARED = 5000
#: bits (of at most 1) by which the divergence may exceed what as many of the model's own texts show
UNUSUAL_BITS = 0.1


class CalibrationRecord(BaseModel):
    """What a file was calibrated with, for its manifest.

    `tokens` are the shortest, median and longest text in tokens. `divergence` is the Jensen-Shannon divergence, in
    bits, of the texts' tokens from those of the checkpoint's own data; `own_divergence` is that of as many texts of
    that data (None where it can't be read). `remarks` say what the user should know.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    origin: str
    asked: int
    samples: int
    tokens: tuple[int, int, int]
    divergence: float | None
    own_divergence: float | None
    remarks: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Encoded texts, ids and mask int32 [samples, length], and where they come from."""

    ids: NDArray[np.int32]
    mask: NDArray[np.int32]
    record: CalibrationRecord

    def write_steps(self, path: Path) -> None:
        """Write the texts as steps, in the format of golden data."""
        steps = text_steps({"ids": self.ids, "mask": self.mask}, SIGNATURE)
        write_golden(path, Golden(steps=steps, labels=np.full(len(steps), -1, np.int32)))


class _Chosen(BaseModel):
    """The texts, where they are from, and the divergences of a CalibrationRecord."""

    origin: str
    texts: tuple[str, ...]
    divergences: tuple[float, float] | None


def choose_calibration(
    checkpoint: Checkpoint, *, data: Path | None = None, samples: int = DEFAULT_SAMPLES, cache: Cache | None = None
) -> Calibration:
    """Choose `samples` texts, always the same: of the file `data`, or of the training part of the checkpoint's data.

    Fewer where there are no more, which the record's remarks say, as they do where the texts' tokens are unlike the
    data's. What is in `cache` is not chosen again. Raises RefusedError for less than one sample, DataError for data
    that is empty or can't be read.
    """
    if samples < 1:
        raise RefusedError(f"--num-calibration-samples {samples}: calibration needs at least one text")
    key = _key(checkpoint, data, samples) if cache else None
    if cache and key:
        kept = cache.remember(key, lambda: _choose(checkpoint, data, samples).model_dump_json().encode())
        chosen = _Chosen.model_validate_json(kept)
    else:
        chosen = _choose(checkpoint, data, samples)
    origin, texts = chosen.origin, chosen.texts
    encoded = checkpoint.processor.encode(texts)
    ids, mask = checkpoint.processor.encode_padded(texts, checkpoint.config.max_length)
    lengths = sorted(len(row) for row in encoded)
    divergence, usual = chosen.divergences or (None, None)
    return Calibration(
        ids=ids,
        mask=mask,
        record=CalibrationRecord(
            origin=origin,
            asked=samples,
            samples=len(texts),
            tokens=(lengths[0], lengths[len(lengths) // 2], lengths[-1]),
            divergence=divergence,
            own_divergence=usual,
            remarks=tuple(_remarks(origin, samples, len(texts), divergence, usual)),
        ),
    )


def _key(checkpoint: Checkpoint, data: Path | None, samples: int) -> str | None:
    """The key of the choice; None where the checkpoint's own data is not there to compare with."""
    own = data_sha256(checkpoint.data) if checkpoint.data else None
    given = data.expanduser() if data else None
    if checkpoint.data is None or own is None or (given and not given.is_file()):
        return None
    return cache_key(
        "calibration",
        checkpoint=content_sha256(checkpoint.path),
        data=checkpoint.data.model_dump(mode="json"),
        files=own,
        given=[str(data), file_sha256(given)] if given else None,
        samples=samples,
    )


def _choose(checkpoint: Checkpoint, data: Path | None, samples: int) -> _Chosen:
    own = _own_texts(checkpoint)
    if data is None and isinstance(own, str):
        raise DataError(f"{own}; give texts to calibrate with: --calibration-data FILE")
    if data is None:
        origin = f"training part of {checkpoint.data.source if checkpoint.data else ''}"
        texts = [e.text for e in stratified_sample([e for e in own if isinstance(e, Example)], samples)]
    else:
        origin, texts = str(data), _texts_of(checkpoint, data, samples)
    divergences = None if isinstance(own, str) else _divergences(checkpoint.processor, own, texts)
    return _Chosen(origin=origin, texts=tuple(texts), divergences=divergences)


def _own_texts(checkpoint: Checkpoint) -> tuple[Example, ...] | str:
    """The training part of the checkpoint's data, or why it can't be read."""
    if checkpoint.data is None:
        return f"the checkpoint {checkpoint.name} does not say what data it was trained on"
    try:
        return reload_data(checkpoint.data).train
    except (DataError, MissingExtraError) as error:
        return str(error)


def _texts_of(checkpoint: Checkpoint, data: Path, samples: int) -> list[str]:
    """Texts of a file in the formats of training data; labels are not looked at and need not be there."""
    known = checkpoint.data
    column = known.text_column if known else "text"
    rows = read_file(data.expanduser(), column, column, None).rows
    unique = [Example(text=text, label="") for text in dict.fromkeys(row.text for row in rows)]
    return [example.text for example in stratified_sample(unique, samples)]


def _divergences(processor: Processor, own: Sequence[Example], texts: Sequence[str]) -> tuple[float, float]:
    """How far the texts' tokens are from the own data's, and how far as many own texts are from the rest of them."""
    compared = [example.text for example in stratified_sample(own, _COMPARED)]
    generator = np.random.default_rng(0)
    held = set(generator.permutation(len(compared))[: max(1, min(len(texts), len(compared) // 2))].tolist())
    sample = [text for index, text in enumerate(compared) if index in held]
    rest = _token_shares(processor, [text for index, text in enumerate(compared) if index not in held] or compared)
    ours, theirs = _token_shares(processor, sample), _token_shares(processor, texts)
    return round(jensen_shannon(theirs, rest), 4), round(jensen_shannon(ours, rest), 4)


def _token_shares(processor: Processor, texts: Sequence[str]) -> NDArray[np.float64]:
    """The share of each id among all tokens of the texts, without the one that every text begins with."""
    ids = [token for row in processor.encode(texts) for token in row[1:]] or [0]
    counts = np.bincount(ids, minlength=processor.vocab_size)
    return np.asarray(counts / counts.sum(), np.float64)


def jensen_shannon(p: NDArray[np.float64], q: NDArray[np.float64]) -> float:
    """The Jensen-Shannon divergence of two distributions, in bits: 0 equal, 1 nothing in common (Lin, 1991)."""
    middle = (p + q) / 2

    def half(x: NDArray[np.float64]) -> float:
        some = x > 0
        return float(np.sum(x[some] * np.log2(x[some] / middle[some])))

    return (half(p) + half(q)) / 2


def _remarks(origin: str, asked: int, found: int, divergence: float | None, usual: float | None) -> list[str]:
    remarks = []
    if found < asked:
        remarks.append(f"calibrated with {found} texts, not {asked}: there are no more in the {origin}")
    if divergence is None or usual is None:
        remarks.append("calibration texts were not compared with the checkpoint's own data: it can't be read")
    elif divergence > usual + UNUSUAL_BITS:
        remarks.append(
            f"the calibration texts of {origin} are unlike the data that the model was trained on (their tokens "
            f"diverge by {divergence:.2f} bits, its own texts by {usual:.2f}): another language? Ranges may not fit"
        )
    return remarks

"""Which texts files of a model that writes are tried on: prompts to go on from, and texts to score."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from edgekit.cache import Cache
from edgekit.cache_keys import cache_key
from edgekit.checkpoint import Checkpoint
from edgekit.errors import DataError, MissingExtraError, RefusedError
from edgekit.proof.golden import Golden, write_golden
from edgekit.proof.golden_texts import GoldenTexts, pack_texts
from edgekit.proof.texts import SAMPLE_TEXTS
from edgekit.proof.writing import Prompt
from edgekit.text.corpora import Pair, reload_corpus
from edgekit.text.datasets import data_sha256
from edgekit.text.processor import BOS_ID, Processor
from edgekit.train.text_metrics import references_of
from edgekit.train.texts import encode_pairs

#: how many texts by default: what a release is held to
TEXTS = 200
#: what is written after the beginning of a text, in tokens; a translation goes on to its end
NEW_TOKENS = 32
#: texts that show the range of a cache
CACHE_TEXTS = 64


@dataclass(frozen=True, kw_only=True)
class WrittenSamples:
    """The golden texts before the source has written; of how many held-out ones, from where, and what can't be
    measured, if so.
    """

    texts: GoldenTexts
    population: int
    origin: str
    note: str

    def write(self, path: Path) -> None:
        """Write them for the job that runs the source."""
        write_golden(path, Golden(steps=(), labels=np.zeros(0, np.int32), texts=pack_texts(self.texts)))


def choose_texts(checkpoint: Checkpoint, count: int | None = TEXTS, *, cache: Cache | None = None) -> WrittenSamples:
    """A fixed sample of the test part of the checkpoint's data (None: all of it): beginnings to go on from, or source
    texts to translate, and the same texts to score.

    Where the part is smaller than `count`, prompts of the other parts follow, which are not scored: what a file writes
    after them must be what its source writes, whatever either was trained on.
    Where the data can't be read again, edgekit's own sample texts as prompts, and a note that says why.
    """
    processor, longest = checkpoint.processor, checkpoint.config.max_length
    translate = checkpoint.config.task == "translate"
    try:
        test, validation, train = _parts(checkpoint, cache)
    except (DataError, MissingExtraError) as error:
        made = [Pair(source=text if translate else "", target=text) for text in SAMPLE_TEXTS]
        texts = replace(_prompts(made, processor, longest, translate=translate), sources=(), references=())
        return WrittenSamples(texts=texts, population=0, origin="edgekit's own samples", note=f"not measured: {error}")
    chosen = _sample(test, count, by_source=translate)
    texts = _with_scored(_prompts(chosen, processor, longest, translate=translate), chosen, checkpoint)
    missing = max(0, (count or 0) - len(texts.prompts))
    others = _sample([*validation, *train], missing, by_source=translate)
    more = _prompts(others, processor, longest, translate=translate).prompts
    return WrittenSamples(
        texts=replace(texts, prompts=texts.prompts + more),
        population=len({pair.source for pair in test} if translate else test),
        origin=f"test part of {checkpoint.data.source if checkpoint.data else ''}",
        note="",
    )


def validation_sources(checkpoint: Checkpoint, *, cache: Cache | None = None) -> tuple[str, ...]:
    """The source texts of the validation part of a translator's data, each once.

    Raises DataError where the data can't be read again, MissingExtraError for want of what reads it.
    """
    return tuple(dict.fromkeys(pair.source for pair in _parts(checkpoint, cache)[1]))


def choose_cache_texts(
    checkpoint: Checkpoint, count: int = CACHE_TEXTS, *, cache: Cache | None = None
) -> WrittenSamples:
    """Texts of the training part, to calibrate a quantized cache with.

    Raises RefusedError where the data can't be read again.
    """
    try:
        return choose_scored_texts(checkpoint, "training", count, cache=cache)
    except (DataError, MissingExtraError) as error:
        raise RefusedError(f"a cache of int8 needs texts to see its range: {error}") from error


def choose_scored_texts(
    checkpoint: Checkpoint,
    part: Literal["validation", "training"],
    count: int | None,
    *,
    cache: Cache | None = None,
) -> WrittenSamples:
    """Texts of a part of the checkpoint's data (None: all) to score, without prompts.

    Raises DataError where the data can't be read again, MissingExtraError for want of what reads it.
    """
    _, validation, train = _parts(checkpoint, cache)
    pairs = validation if part == "validation" else train
    chosen = _sample(pairs, count, by_source=checkpoint.config.task == "translate")
    return WrittenSamples(
        texts=_with_scored(GoldenTexts(prompts=(), max_new_tokens=1), chosen, checkpoint),
        population=len(pairs),
        origin=f"{part} part of {checkpoint.data.source if checkpoint.data else ''}",
        note="",
    )


def _with_scored(texts: GoldenTexts, pairs: Sequence[Pair], checkpoint: Checkpoint) -> GoldenTexts:
    """The golden texts with these to score, too."""
    translate = checkpoint.config.task == "translate"
    encoded = encode_pairs(pairs, checkpoint.processor, translate=translate, training=False)
    rows = zip(encoded.targets, encoded.sources or [[] for _ in encoded.targets], strict=True)
    scored = tuple(Prompt(ids=tuple(ids), source=tuple(source)) for ids, source in rows)
    return replace(texts, scored=scored, size_bytes=encoded.size_bytes)


def _parts(checkpoint: Checkpoint, cache: Cache | None) -> list[tuple[Pair, ...]]:
    """The parts of the checkpoint's data: test, validation, train."""
    data = checkpoint.data
    if data is None:
        raise DataError(f"the checkpoint {checkpoint.name} does not say what data it was trained on")

    def read() -> bytes:
        corpus = reload_corpus(data)
        return json.dumps(
            [list(map(astuple, part)) for part in (corpus.test, corpus.validation, corpus.train)]
        ).encode()

    files = data_sha256(data) if cache else None
    key = cache_key("pairs", data=data.model_dump(mode="json"), files=files) if files else ""
    kept = cache.remember(key, read) if cache and files else read()
    return [tuple(Pair(source=source, target=target) for source, target in part) for part in json.loads(kept)]


def _sample(pairs: Sequence[Pair], count: int | None, *, by_source: bool) -> list[Pair]:
    """The pairs of the texts whose sha256 is lowest, in their order: adding data does not change the others."""

    def key(pair: Pair) -> str:
        return pair.source if by_source else pair.target

    kept = sorted({key(pair) for pair in pairs}, key=lambda text: hashlib.sha256(text.encode()).digest())[:count]
    chosen = set(kept)
    return [pair for pair in pairs if key(pair) in chosen]


def _prompts(pairs: Sequence[Pair], processor: Processor, longest: int, *, translate: bool) -> GoldenTexts:
    """The golden texts with prompts alone: source texts with their translations, or the first halves of texts."""
    if translate:
        references = references_of(pairs)
        encoded = processor.encode(list(references))
        return GoldenTexts(
            prompts=tuple(Prompt(ids=(BOS_ID,), source=tuple(ids[:longest])) for ids in encoded),
            max_new_tokens=longest,
            sources=tuple(references),
            references=tuple(references.values()),
        )
    halves = [ids[: min(len(ids), longest) // 2] for ids in processor.encode_uncut([pair.target for pair in pairs])]
    prompts = tuple(Prompt(ids=(BOS_ID, *ids)) for ids in halves)
    return GoldenTexts(prompts=prompts, max_new_tokens=min(NEW_TOKENS, longest))

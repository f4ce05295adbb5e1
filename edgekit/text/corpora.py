"""Data for models that write: texts, or texts with their translation, read, made unique and split."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from edgekit.errors import DataError
from edgekit.text.datasets import DataRecord, DataSpec, check_unchanged, record_of
from edgekit.text.processor import PLACEHOLDER
from edgekit.text.readers import READERS, Reader, TextPair, check_unicode, read_columns, read_lines
from edgekit.text.splits import Part, part_of
from edgekit.text.ui_strings import NAME, read_ui_pairs, read_ui_strings

_TEXT_READERS: Mapping[str, Reader] = {".txt": read_lines, **READERS}
_PLACEHOLDERS = re.compile(PLACEHOLDER)


@dataclass(frozen=True, kw_only=True, order=True)
class Pair:
    """A text to write and the one to translate it from, which is empty where there is none."""

    source: str
    target: str


class CorpusSummary(BaseModel):
    """What was found in the data, counted.

    Rows with an empty text, or with an empty side, are skipped. Of pairs, `with_placeholders` have placeholders
    (%(name)s, {name}) in the source, and in `placeholders_differ` the translation has others than the source;
    `sources_with_several_targets` have several translations, all of which are right.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int
    empty: int
    repeated_rows: int
    train: int
    validation: int
    test: int
    with_placeholders: int
    placeholders_differ: int
    sources_with_several_targets: int


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Unique pairs in three parts, sorted; the same source string is in one part only."""

    record: DataRecord
    train: tuple[Pair, ...]
    validation: tuple[Pair, ...]
    test: tuple[Pair, ...]
    summary: CorpusSummary


@dataclass(frozen=True, kw_only=True)
class _Found:
    pairs: tuple[TextPair, ...]
    empty: int
    sha256: str
    version: str | None = None


def placeholders(text: str) -> Counter[str]:
    """Count the placeholders of printf and str.format in a text."""
    return Counter(match.group() for match in _PLACEHOLDERS.finditer(text))


def load_corpus(spec: DataSpec) -> Corpus:
    """Read and split the data that `spec` names, for its task (generate or translate).

    Raises DataError (unreadable, nothing in it, a part without examples), UnknownNameError for a language that
    ui-strings does not have.
    """
    found = _read(spec)
    return _split(found, record_of(spec, sha256=found.sha256, version=found.version))


def reload_corpus(record: DataRecord) -> Corpus:
    """Read the same data again.

    Raises DataError where the source is gone or its content is no longer what was trained on.
    """
    found = _read(record)
    check_unchanged(record, found.sha256, found.version)
    return _split(found, record)


def _read(spec: DataSpec) -> _Found:
    if spec.source != NAME:
        return _read_file(spec)
    if spec.task == "translate":
        if len(spec.languages) != 1:
            raise DataError("one language to translate into is needed: name it with --target-language")
        pairs, sha256, version = read_ui_pairs(spec.languages[0])
        return _Found(pairs=pairs, empty=0, sha256=sha256, version=version)
    rows = read_ui_strings(spec.languages)
    texts = tuple(TextPair(source="", target=row.text, key=row.source) for row in rows.rows)
    return _Found(pairs=texts, empty=0, sha256=rows.sha256, version=rows.version)


def _read_file(spec: DataSpec) -> _Found:
    path, pairs = Path(spec.source).expanduser(), []
    if spec.task == "translate":
        columns: tuple[str, ...] = (spec.source_column or "source", spec.target_column)
        values, sha256 = read_columns(path, columns, READERS)
    else:
        values, sha256 = read_columns(path, (spec.text_column,), _TEXT_READERS)
    empty = 0
    for place, found in values:
        for text in found:
            if text is not None and not isinstance(text, str):
                raise DataError(f"{path}, {place}: {text!r} ({type(text).__name__}) is not a text")
            check_unicode(path, place, text or "")
        texts = [str(text or "") for text in found]
        if all(text.strip() for text in texts):
            pairs.append(TextPair(source=texts[0] if len(texts) > 1 else "", target=texts[-1], key=texts[0]))
        elif path.suffix.lower() != ".txt":  # there a blank line is no row
            empty += 1
    if not pairs:
        raise DataError(f"{path} has no rows with a text{' on both sides' if spec.task == 'translate' else ''}")
    return _Found(pairs=tuple(pairs), empty=empty, sha256=sha256)


def _split(found: _Found, record: DataRecord) -> Corpus:
    keys: dict[Pair, set[str]] = defaultdict(set)
    for row in found.pairs:
        keys[Pair(source=row.source, target=row.target)].add(row.key)
    of_source = _keys_of_source(keys)
    parts: dict[Part, list[Pair]] = {"train": [], "validation": [], "test": []}
    for pair in sorted(keys):
        parts[part_of(of_source[pair.source] if pair.source else keys[pair], record.split)].append(pair)
    for name, pairs in parts.items():
        if not pairs:
            raise DataError(
                f"the {name} part of {record.source} is empty ({len(keys)} unique examples, split by a hash of "
                "the source string): add data, or change --test-fraction and --validation-fraction"
            )
    return Corpus(
        record=record,
        train=tuple(parts["train"]),
        validation=tuple(parts["validation"]),
        test=tuple(parts["test"]),
        summary=_summary(found, keys, {name: len(pairs) for name, pairs in parts.items()}),
    )


def _keys_of_source(keys: Mapping[Pair, set[str]]) -> Mapping[str, set[str]]:
    """All that decides where a source goes: its keys, and itself, so that all its translations go with it."""
    found: dict[str, set[str]] = defaultdict(set)
    for pair, own in keys.items():
        found[pair.source] |= {pair.source, *own}
    return found


def _summary(found: _Found, pairs: Iterable[Pair], sizes: Mapping[Part, int]) -> CorpusSummary:
    translated = [pair for pair in pairs if pair.source]
    targets = Counter(pair.source for pair in translated)
    marked = [pair for pair in translated if placeholders(pair.source)]
    return CorpusSummary(
        rows=len(found.pairs) + found.empty,
        empty=found.empty,
        repeated_rows=len(found.pairs) - sum(sizes.values()),
        train=sizes["train"],
        validation=sizes["validation"],
        test=sizes["test"],
        with_placeholders=len(marked),
        placeholders_differ=sum(placeholders(pair.source) != placeholders(pair.target) for pair in translated),
        sources_with_several_targets=sum(count > 1 for count in targets.values()),
    )

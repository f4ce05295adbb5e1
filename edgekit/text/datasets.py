"""Data to train and test on: read from a source, made unique, split, and recorded so that it can be read again."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from edgekit.errors import DataError, MissingExtraError
from edgekit.program import ModelTask
from edgekit.text.readers import Row, Rows, read_file
from edgekit.text.splits import Part, SplitRule, part_of
from edgekit.text.ui_strings import DEFAULT_LANGUAGES, NAME, catalogues_sha256, read_ui_strings


@dataclass(frozen=True, kw_only=True, order=True)
class Example:
    """One text and its label."""

    text: str
    label: str


class DataSpec(BaseModel):
    """What to read and how to split it; `source` is a file or "ui-strings".

    `languages` is for ui-strings, the columns are for files; without `source_column` a text is its own source
    string. To translate, `languages` is the one to translate into, and the columns are `source_column` ("source"
    where it is None) and `target_column`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str = Field(min_length=1)
    text_column: str = "text"
    label_column: str = "label"
    source_column: str | None = None
    target_column: str = "target"
    task: ModelTask = "classify"
    languages: tuple[str, ...] = DEFAULT_LANGUAGES
    split: SplitRule = SplitRule()


class DataRecord(DataSpec):
    """Where data came from, exactly enough to read the same split again: `data.json` of a checkpoint.

    `version` is that of the package that carries the data (None for a file); `sha256` is of the file's bytes, or
    of the strings read.
    """

    version: str | None
    sha256: str
    labels: tuple[str, ...]


class DataSummary(BaseModel):
    """What was found in the data, counted.

    `ambiguous_held_out` examples were left out of validation and test: their text exists under several labels, so no
    one answer is right. For training they stay.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int
    repeated_rows: int
    train: int
    train_variants: int
    validation: int
    test: int
    texts_with_several_labels: int
    ambiguous_held_out: int


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Unique (text, label) pairs in three parts, sorted; `train` ends with the regional variants.

    `ambiguous_test` holds what was left out of `test` because its text exists under several labels.
    """

    record: DataRecord
    labels: tuple[str, ...]
    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]
    ambiguous_test: tuple[Example, ...]
    summary: DataSummary


def load_dataset(spec: DataSpec) -> Dataset:
    """Read and split the data that `spec` names.

    Raises DataError (unreadable, one label only, a part without examples), UnknownNameError for a language that
    ui-strings does not have.
    """
    rows = _read(spec)
    labels = tuple(sorted({row.label for row in rows.rows}))
    if len(labels) < 2:
        option = "--languages" if spec.source == NAME else "--label-column"
        raise DataError(
            f"{spec.source} has one label only, {labels[0]!r}: a classifier needs at least two (check {option})"
        )
    return _split(rows.rows, record_of(spec, sha256=rows.sha256, version=rows.version, labels=labels))


def record_of(spec: DataSpec, *, sha256: str, version: str | None, labels: tuple[str, ...] = ()) -> DataRecord:
    """Return the record of what was read; it names a file from any working folder."""
    if spec.source != NAME:
        spec = spec.model_copy(update={"source": str(Path(spec.source).expanduser().absolute())})
    return DataRecord(**dict(spec), version=version, sha256=sha256, labels=labels)


def reload_data(record: DataRecord) -> Dataset:
    """Read the same data again; once in a process, as long as the file stays as it was.

    Raises DataError where the source is gone or its content is no longer what was trained on.
    """
    file = Path(record.source).expanduser()
    written = (file.stat().st_mtime_ns, file.stat().st_size) if record.source != NAME and file.is_file() else None
    return _reload(record, written)


def data_sha256(spec: DataSpec) -> str | None:
    """The sha256 of the files that data is read from, as they are now, unread; None where they can't be found."""
    if spec.source == NAME:
        try:
            return catalogues_sha256()
        except (DataError, MissingExtraError):
            return None
    path = Path(spec.source).expanduser()
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


@lru_cache(maxsize=1)
def _reload(record: DataRecord, written: tuple[int, int] | None) -> Dataset:
    del written  # it tells one reading of a file from the next
    rows = _read(record)
    check_unchanged(record, rows.sha256, rows.version)
    return _split(rows.rows, record)


def check_unchanged(record: DataRecord, sha256: str, version: str | None) -> None:
    """Raise DataError where the data is no longer what was trained on."""
    if sha256 != record.sha256:
        now = f" (now {version}, then {record.version})" if version != record.version else ""
        raise DataError(f"{record.source} has changed since training{now}: its sha256 is {sha256[:12]}…")


def _read(spec: DataSpec) -> Rows:
    if spec.source == NAME:
        return read_ui_strings(spec.languages)
    path = Path(spec.source).expanduser()
    return read_file(path, spec.text_column, spec.label_column, spec.source_column)


def _split(rows: tuple[Row, ...], record: DataRecord) -> Dataset:
    sources: dict[Example, set[str]] = defaultdict(set)
    for row in rows:
        if not row.variant:
            sources[Example(text=row.text, label=row.label)].add(row.source)
    parts: dict[Part, list[Example]] = {"train": [], "validation": [], "test": []}
    for example, found in sources.items():
        parts[part_of(found, record.split)].append(example)
    several = _texts_with_several_labels(sources)
    kept = {part: [e for e in parts[part] if part == "train" or e.text not in several] for part in parts}
    for name, examples in kept.items():
        if not examples:
            raise DataError(
                f"the {name} part of {record.source} is empty ({len(sources)} unique examples, split by a hash of "
                "the source string): add data, or change --test-fraction and --validation-fraction"
            )
    variants = _variants(rows, record.split, known=sources)
    unique = {(row.text, row.label) for row in rows}
    return Dataset(
        record=record,
        labels=record.labels,
        train=(*sorted(kept["train"]), *variants),
        validation=tuple(sorted(kept["validation"])),
        test=tuple(sorted(kept["test"])),
        ambiguous_test=tuple(sorted(e for e in parts["test"] if e.text in several)),
        summary=DataSummary(
            rows=len(rows),
            repeated_rows=len(rows) - len(unique),
            train=len(kept["train"]),
            train_variants=len(variants),
            validation=len(kept["validation"]),
            test=len(kept["test"]),
            texts_with_several_labels=len(several),
            ambiguous_held_out=sum(len(parts[part]) - len(kept[part]) for part in parts),
        ),
    )


def _texts_with_several_labels(examples: Iterable[Example]) -> set[str]:
    labels_of: dict[str, set[str]] = defaultdict(set)
    for example in examples:
        labels_of[example.text].add(example.label)
    return {text for text, labels in labels_of.items() if len(labels) > 1}


def _variants(rows: Iterable[Row], split: SplitRule, known: Iterable[Example]) -> list[Example]:
    """Return the variants' new examples whose source strings are all in the training part."""
    sources: dict[Example, set[str]] = defaultdict(set)
    for row in rows:
        if row.variant:
            sources[Example(text=row.text, label=row.label)].add(row.source)
    for example in known:
        sources.pop(example, None)
    return sorted(example for example, found in sources.items() if part_of(found, split) == "train")

"""Reads TSV, CSV, JSONL and Parquet files into rows of text, label and source string."""

import csv
import hashlib
import importlib
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.errors import DataError, UnknownNameError
from edgekit.extras import require

Values = Iterator[tuple[str, tuple[object, ...]]]  # (place for messages, the columns' values)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of data; `source` is the string whose hash chooses the split.

    `variant` marks text of a regional variant (pt_BR under pt): it is for training only.
    """

    text: str
    label: str
    source: str
    variant: bool = False


@dataclass(frozen=True, kw_only=True)
class TextPair:
    """A text to write, and the one to translate it from (empty where there is none).

    `key` is the string whose hash chooses the split.
    """

    source: str
    target: str
    key: str


@dataclass(frozen=True, kw_only=True)
class Rows:
    """All rows of a source with the sha256 of its content and, where it has one, its version."""

    rows: tuple[Row, ...]
    sha256: str
    version: str | None = None


def read_file(path: Path, text_column: str, label_column: str, source_column: str | None) -> Rows:
    """Read a data file, chosen by its suffix; without `source_column` a text is its own source string.

    Raises DataError naming the file, the line and the value where it can't serve.
    """
    columns = (text_column, label_column, *([source_column] if source_column else []))
    values, sha256 = read_columns(path, columns, READERS)
    rows = tuple(_row(path, place, found) for place, found in values)
    if not rows:
        raise DataError(f"{path} has no rows: give it some examples")
    return Rows(rows=rows, sha256=sha256)


def read_columns(path: Path, columns: Sequence[str], readers: Mapping[str, "Reader"]) -> tuple[Values, str]:
    """Return the values of a file's columns, read as they are asked for, and the sha256 of its content.

    Raises DataError for a suffix that is none of `readers`, and for a file that can't be read.
    """
    if path.suffix.lower() not in readers:
        raise DataError(
            f"can't read {path}: the suffix {path.suffix!r} is none of {', '.join(readers)} (or say ui-strings)"
        )
    content = _content(path)
    return readers[path.suffix.lower()](path, content, columns), hashlib.sha256(content).hexdigest()


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"there is no data file {path}: check the path (or say ui-strings)") from error
    except OSError as error:
        raise DataError(f"can't read {path}: {error.strerror}") from error
    if not content.strip():
        raise DataError(f"{path} is empty: give it a header and examples")
    return content


def _row(path: Path, place: str, values: tuple[object, ...]) -> Row:
    text, label, source = values[0], values[1], values[-1] if len(values) == 3 else values[0]
    if not isinstance(text, str) or not isinstance(source, str) or not text or not source:
        bad = text if not isinstance(text, str) or not text else source
        raise DataError(f"{path}, {place}: the text is {_shown(bad)}; every row needs one: fill or remove it")
    if isinstance(label, bool) or not isinstance(label, str | int) or label == "":
        raise DataError(f"{path}, {place}: the label is {_shown(label)}; it must be a string or a whole number")
    for value in (text, source, str(label)):
        check_unicode(path, place, value)
    return Row(text=text, label=str(label), source=source)


def check_unicode(path: Path, place: str, value: str) -> None:
    """Raise DataError for a string that can't be written as UTF-8."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{path}, {place}: {value!r} is not valid Unicode: half of a surrogate pair") from error


def _shown(value: object) -> str:
    if value is None:
        return "null"
    return "empty" if value == "" else f"{value!r} ({type(value).__name__})"


def _decoded(path: Path, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")  # spreadsheets put a byte order mark first
    except UnicodeDecodeError as error:
        # `error.start` counts from behind the mark, which the decoder cut off.
        offset = error.start + (3 if content.startswith(b"\xef\xbb\xbf") else 0)
        line = content.count(b"\n", 0, offset) + 1
        raise DataError(
            f"{path} is not UTF-8: byte 0x{content[offset]:02x} at offset {offset}, line {line}: convert it first"
        ) from error


def _column_indices(path: Path, header: Sequence[str], columns: Sequence[str]) -> list[int]:
    for column in columns:
        if column not in header:
            raise DataError(f"{path}: {UnknownNameError('column', column, header)}")
        if header.count(column) > 1:
            raise DataError(f"{path}: the column {column!r} is there {header.count(column)} times: rename one")
    return [header.index(column) for column in columns]


def _read_separated(path: Path, content: bytes, columns: Sequence[str]) -> Values:
    """CSV as in RFC 4180; TSV as in the IANA registration: a tab separates, and quotes mean themselves."""
    tabs = path.suffix.lower() == ".tsv"
    stream = io.StringIO(_decoded(path, content), newline=None if tabs else "")
    dialect: dict[str, Any] = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if tabs else {"strict": True}
    reader = csv.reader(stream, **dialect)
    try:
        header = next(reader, [])
        indices = _column_indices(path, header, columns)
        for fields in reader:
            if not fields:
                continue  # a blank line
            if len(fields) != len(header):
                raise DataError(
                    f"{path}, line {reader.line_num}: {len(fields)} fields, but the header has {len(header)}"
                )
            yield f"line {reader.line_num}", tuple(fields[index] for index in indices)
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: malformed row: {error}") from error


def _read_jsonl(path: Path, content: bytes, columns: Sequence[str]) -> Values:
    # split("\n"), not splitlines(): U+2028 and its like are legal inside JSON strings.
    for number, line in enumerate(_decoded(path, content).split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}, line {number}: malformed row, not JSON: {error}") from error
        if not isinstance(record, dict):
            raise DataError(f"{path}, line {number}: malformed row: not a JSON object but {line.strip()[:40]!r}")
        for column in columns:
            if column not in record:
                raise DataError(f"{path}, line {number}: {UnknownNameError('column', column, record)}")
        yield f"line {number}", tuple(record[column] for column in columns)


def _read_parquet(path: Path, content: bytes, columns: Sequence[str]) -> Values:
    pyarrow = require("pyarrow", "a Parquet file")
    parquet = importlib.import_module("pyarrow.parquet")
    try:
        file = parquet.ParquetFile(pyarrow.BufferReader(content))
        _column_indices(path, file.schema_arrow.names, columns)
        table = file.read(columns=list(dict.fromkeys(columns)))
        lists = [table.column(column).to_pylist() for column in columns]
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: a value is not UTF-8: {error}: convert it first") from error
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"can't read {path} as Parquet: {str(error).splitlines()[0]}") from error
    for number, values in enumerate(zip(*lists, strict=True), 1):
        yield f"row {number}", values


def read_lines(path: Path, content: bytes, columns: Sequence[str]) -> Values:
    """Read a text file whose every line is a text; `columns` are not asked for."""
    for number, line in enumerate(_decoded(path, content).split("\n"), 1):
        yield f"line {number}", (line.removesuffix("\r"),)


Reader = Callable[[Path, bytes, Sequence[str]], Values]
READERS: dict[str, Reader] = {
    ".tsv": _read_separated,
    ".csv": _read_separated,
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
}

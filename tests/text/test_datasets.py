"""Data files and the built-in data: what is read, how it is split, and what is refused."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from edgekit.errors import DataError, EdgekitError, MissingExtraError, UnknownNameError
from edgekit.text.datasets import Dataset, DataSpec, Example, load_dataset, reload_data
from edgekit.text.splits import SplitRule, part_of, split_position

Pairs = list[tuple[str, str]]
PAIRS: Pairs = [(f'text "{number}", läß', "even" if number % 2 == 0 else "odd") for number in range(80)]


def write_tsv(path: Path, pairs: Pairs) -> None:
    path.write_text("text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in pairs), encoding="utf-8")


def write_csv(path: Path, pairs: Pairs) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([("label", "text"), *((label, text) for text, label in pairs)])


def write_jsonl(path: Path, pairs: Pairs) -> None:
    lines = [json.dumps({"label": label, "text": text}, ensure_ascii=False) for text, label in pairs]
    path.write_text("\n".join(lines), encoding="utf-8")


def write_parquet(path: Path, pairs: Pairs) -> None:
    texts, labels = zip(*pairs, strict=True)
    pyarrow.parquet.write_table(pyarrow.table({"text": texts, "label": labels}), path)


WRITERS: dict[str, Callable[[Path, Pairs], None]] = {
    ".tsv": write_tsv,
    ".csv": write_csv,
    ".jsonl": write_jsonl,
    ".parquet": write_parquet,
}


def read(path: Path, **fields: object) -> Dataset:
    return load_dataset(DataSpec.model_validate({"source": str(path), **fields}))


def refusal(path: Path, **fields: object) -> str:
    with pytest.raises(EdgekitError) as caught:
        read(path, **fields)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("suffix", WRITERS)
def test_each_format_gives_the_same_examples(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"data{suffix}"
    WRITERS[suffix](path, PAIRS)
    dataset = read(path)
    found = {(e.text, e.label) for part in (dataset.train, dataset.validation, dataset.test) for e in part}
    assert found == set(PAIRS)
    assert dataset.labels == ("even", "odd")
    again = reload_data(dataset.record)
    assert (again.train, again.validation, again.test) == (dataset.train, dataset.validation, dataset.test)


def test_split_is_the_stated_rule(tmp_path: Path) -> None:
    write_tsv(tmp_path / "d.tsv", PAIRS)
    dataset = read(tmp_path / "d.tsv", split={"test": 0.3, "validation": 0.2})
    for examples, low, high in ((dataset.test, 0, 0.3), (dataset.validation, 0.3, 0.5), (dataset.train, 0.5, 1)):
        assert all(low <= split_position(example.text) < high for example in examples)


def test_split_position_is_fixed_for_ever() -> None:
    assert split_position("Save") == pytest.approx(0.0821832050, abs=1e-9)
    fractions = [split_position(str(number)) for number in range(4000)]
    assert np.mean(np.array(fractions) < 0.1) == pytest.approx(0.1, abs=0.015)


def test_an_example_with_any_held_out_source_is_held_out() -> None:
    rule = SplitRule()
    by_part = {part_of([str(n)], rule): str(n) for n in range(200)}
    assert part_of([by_part["train"], by_part["test"], by_part["validation"]], rule) == "test"
    assert part_of([by_part["validation"], by_part["train"]], rule) == "validation"


def test_the_source_column_keeps_translations_together(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    rows = [(f"{language}-{key}", language, f"key{key}") for key in range(60) for language in ("de", "fr", "it")]
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([("text", "language", "msgid"), *rows])
    dataset = read(path, label_column="language", source_column="msgid")
    keys = [{e.text.split("-")[1] for e in part} for part in (dataset.train, dataset.validation, dataset.test)]
    assert all(len(part) == 3 * len(found) for part, found in zip((dataset.train,), keys, strict=False))
    assert keys[0].isdisjoint(keys[1] | keys[2])
    assert keys[1].isdisjoint(keys[2])


def test_repeats_and_texts_with_several_labels_are_counted(tmp_path: Path) -> None:
    write_tsv(tmp_path / "d.tsv", PAIRS * 2 + [(text, "third") for text, _ in PAIRS[:40]])
    dataset = read(tmp_path / "d.tsv")
    several = {text for text, _ in PAIRS[:40]}
    assert dataset.summary.rows == 200
    assert dataset.summary.repeated_rows == 80
    assert dataset.summary.texts_with_several_labels == 40
    assert several.isdisjoint(e.text for e in (*dataset.validation, *dataset.test))
    in_training = [e for e in dataset.train if e.text in several]
    assert len(in_training) == 2 * len({e.text for e in in_training})
    assert dataset.summary.ambiguous_held_out == 80 - len(in_training)
    assert {e.text for e in dataset.ambiguous_test} <= several
    texts = {e.text for e in dataset.test}
    assert texts.isdisjoint(e.text for e in dataset.train)


def test_missing_unknown_and_empty_files(tmp_path: Path) -> None:
    assert "there is no data file" in refusal(tmp_path / "none.tsv")
    (tmp_path / "d.xlsx").write_text("x")
    assert "'.xlsx'" in refusal(tmp_path / "d.xlsx")
    for suffix in WRITERS:
        (tmp_path / f"e{suffix}").write_bytes(b"\n")
        assert "is empty" in refusal(tmp_path / f"e{suffix}")
    (tmp_path / "h.csv").write_text("text,label\n")
    assert "has no rows" in refusal(tmp_path / "h.csv")
    (tmp_path / "folder.csv").mkdir()
    assert "can't read" in refusal(tmp_path / "folder.csv")


@pytest.mark.parametrize("suffix", WRITERS)
def test_no_such_column(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"d{suffix}"
    WRITERS[suffix](path, PAIRS)
    message = refusal(path, label_column="lable")
    assert "'lable'" in message
    assert "did you mean label?" in message
    assert "text" in message


def test_one_label_only_and_empty_parts(tmp_path: Path) -> None:
    write_tsv(tmp_path / "one.tsv", [(text, "same") for text, _ in PAIRS])
    assert "one label only, 'same'" in refusal(tmp_path / "one.tsv")
    write_tsv(tmp_path / "few.tsv", PAIRS[:3])
    assert "part of" in refusal(tmp_path / "few.tsv")


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_invalid_utf8_is_located(tmp_path: Path, mark: bytes) -> None:
    path = tmp_path / "d.tsv"
    path.write_bytes(mark + b"text\tlabel\nok\ta\nb\xe4d\tb\n")
    message = refusal(path)
    assert f"byte 0xe4 at offset {len(mark) + 17}, line 3" in message


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("d.tsv", "text\tlabel\na\tb\tc\n", "line 2: 3 fields, but the header has 2"),
        ("d.csv", 'text,label\n"a"b,c\n', "line 2: malformed row"),
        ("d.csv", 'text,label\n"a,c\n', "malformed row"),
        ("d.csv", "text,label\n,c\n", "the text is empty"),
        ("d.csv", "text,label\na,\n", "the label is empty"),
        ("d.csv", "text,label,text\na,b,c\n", "'text' is there 2 times"),
        ("d.jsonl", '{"text": "a", "label": "b"}\n{"text": \n', "line 2: malformed row"),
        ("d.jsonl", '["a", "b"]\n', "not a JSON object"),
        ("d.jsonl", '{"text": null, "label": "b"}\n', "line 1: the text is null"),
        ("d.jsonl", '{"text": 5, "label": "b"}\n', "the text is 5 (int)"),
        ("d.jsonl", '{"text": "a", "label": null}\n', "the label is null"),
        ("d.jsonl", '{"text": "a", "label": 1.5}\n', "the label is 1.5"),
        ("d.jsonl", '{"text": "\\ud800", "label": "b"}\n', "not valid Unicode"),
        ("d.parquet", "not parquet at all", "as Parquet"),
    ],
)
def test_malformed_rows(tmp_path: Path, name: str, content: str, words: str) -> None:
    (tmp_path / name).write_text(content)
    assert words in refusal(tmp_path / name)


def test_null_in_parquet(tmp_path: Path) -> None:
    path = tmp_path / "d.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a", None], "label": [1, 2]}), path)
    assert "row 2: the text is null" in refusal(path)


def test_numeric_labels_become_strings(tmp_path: Path) -> None:
    path = tmp_path / "d.parquet"
    table = pyarrow.table({"text": [text for text, _ in PAIRS], "label": [n % 3 for n in range(80)]})
    pyarrow.parquet.write_table(table, path)
    assert read(path).labels == ("0", "1", "2")


def test_quotes_mean_themselves_in_tsv_and_line_breaks_in_csv_are_kept(tmp_path: Path) -> None:
    pairs = [*PAIRS, ('"Hello" he said', "even"), ('a "b', "odd")]
    write_tsv(tmp_path / "d.tsv", pairs)
    dataset = read(tmp_path / "d.tsv")
    assert Example(text='"Hello" he said', label="even") in {*dataset.train, *dataset.validation, *dataset.test}
    write_csv(tmp_path / "d.csv", [*PAIRS, ("two\nlines", "odd")])
    dataset = read(tmp_path / "d.csv")
    assert Example(text="two\nlines", label="odd") in {*dataset.train, *dataset.validation, *dataset.test}


def test_changed_data_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "d.tsv"
    write_tsv(path, PAIRS)
    record = read(path).record
    write_tsv(path, PAIRS[:-1])
    with pytest.raises(DataError, match="changed since training"):
        reload_data(record)
    path.unlink()
    with pytest.raises(DataError, match="there is no data file"):
        reload_data(record)


def test_a_missing_reader_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_parquet(tmp_path / "d.parquet", PAIRS)
    monkeypatch.setattr("edgekit.extras.is_installed", lambda module: False)
    with pytest.raises(MissingExtraError, match=r"edgekit-toolkit\[data\]"):
        read(tmp_path / "d.parquet")
    with pytest.raises(MissingExtraError, match=r"edgekit-toolkit\[data\]"):
        load_dataset(DataSpec(source="ui-strings"))


@pytest.fixture(scope="module")
def german_and_portuguese() -> Dataset:
    return load_dataset(DataSpec(source="ui-strings", languages=("de", "pt", "en")))


def test_ui_strings(german_and_portuguese: Dataset) -> None:
    dataset = german_and_portuguese
    assert dataset.labels == ("de", "en", "pt")
    assert dataset.record.version is not None
    assert dataset.record.version.startswith("Django 5.2")
    assert Example(text="Save", label="en") in {*dataset.train, *dataset.validation, *dataset.test}
    assert dataset.summary.train_variants > 0  # pt_BR, en_GB
    held_out = {*dataset.validation, *dataset.test}
    assert held_out.isdisjoint(dataset.train)
    assert 0.08 < len(dataset.test) / (len(dataset.test) + len(dataset.train)) < 0.2


def test_ui_strings_are_read_alike_again(german_and_portuguese: Dataset) -> None:
    assert reload_data(german_and_portuguese.record).test == german_and_portuguese.test
    other = german_and_portuguese.record.model_copy(update={"sha256": "0" * 64, "version": "Django 1.0"})
    with pytest.raises(DataError, match=r"then Django 1\.0"):
        reload_data(other)


def test_a_single_language() -> None:
    with pytest.raises(DataError, match=r"one label only, 'de'.*--languages"):
        load_dataset(DataSpec(source="ui-strings", languages=("de",)))


def test_an_unknown_language() -> None:
    with pytest.raises(UnknownNameError, match="did you mean"):
        load_dataset(DataSpec(source="ui-strings", languages=("de", "zh_hans")))

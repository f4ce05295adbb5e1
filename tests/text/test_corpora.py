"""Texts and pairs: what is read, what is skipped and counted, and that no source is in two parts."""

import json
from pathlib import Path

import pytest

from edgekit.errors import DataError, UnknownNameError
from edgekit.text.corpora import Corpus, load_corpus, placeholders, reload_corpus
from edgekit.text.datasets import DataSpec
from edgekit.text.splits import SplitRule

SPLIT = SplitRule(test=0.2, validation=0.2)


def pairs_file(folder: Path, extra: str = "") -> Path:
    path = folder / "pairs.tsv"
    rows = "".join(f"text {number}\tTexte {number}\n" for number in range(40))
    path.write_text(f"source\ttarget\n{rows}{extra}")
    return path


def translate(path: Path | str, **changes: object) -> Corpus:
    return load_corpus(
        DataSpec.model_validate({"source": str(path), "task": "translate", "split": SPLIT.model_dump(), **changes})
    )


def all_pairs(corpus: Corpus) -> list[tuple[str, str]]:
    return [(pair.source, pair.target) for pair in (*corpus.train, *corpus.validation, *corpus.test)]


def test_interface_strings_are_pairs_with_their_placeholders() -> None:
    corpus = translate("ui-strings", languages=("de",))
    pairs = set(all_pairs(corpus))
    assert ("Yesterday", "Gestern") in pairs or ("yesterday", "gestern") in pairs
    marked = [pair for pair in pairs if placeholders(pair[0])]
    assert corpus.summary.with_placeholders == len(marked) > 100
    different = [pair for pair in pairs if placeholders(pair[0]) != placeholders(pair[1])]
    assert corpus.summary.placeholders_differ == len(different) < len(marked) / 10
    assert any("%(count)" in target or "%(count)" in source for source, target in pairs)
    assert corpus.record.version is not None
    assert corpus.record.languages == ("de",)


def test_plural_forms_go_with_their_own_side() -> None:
    pairs = set(all_pairs(translate("ui-strings", languages=("de",))))
    assert ("%(num)d minute", "%(num)d Minute") in pairs
    assert ("%(num)d minutes", "%(num)d Minuten") in pairs
    japanese = dict(all_pairs(translate("ui-strings", languages=("ja",))))
    assert "%(num)d minutes" in japanese
    assert "%(num)d minute" not in japanese


@pytest.mark.parametrize("language", ["de", "fr", "ar"])
def test_no_source_text_is_in_two_parts(language: str) -> None:
    corpus = translate("ui-strings", languages=(language,))
    parts = [{pair.source for pair in part} for part in (corpus.train, corpus.validation, corpus.test)]
    assert not parts[0] & parts[1] and not parts[0] & parts[2] and not parts[1] & parts[2]  # noqa: PT018
    assert sum(map(len, parts)) + corpus.summary.sources_with_several_targets <= len(all_pairs(corpus))


def test_all_translations_of_a_source_stay_together(tmp_path: Path) -> None:
    corpus = translate(pairs_file(tmp_path, "".join(f"text {n}\tAndere {n}\n" for n in range(40))))
    assert corpus.summary.sources_with_several_targets == 40
    assert len(corpus.test) % 2 == len(corpus.validation) % 2 == 0


@pytest.mark.parametrize("row", ["\tohne Quelle", "without target\t", " \t ", "\t"])
def test_an_empty_side_is_skipped_and_counted(tmp_path: Path, row: str) -> None:
    corpus = translate(pairs_file(tmp_path, f"{row}\n"))
    assert (corpus.summary.empty, corpus.summary.rows, len(all_pairs(corpus))) == (1, 41, 40)


def test_a_file_of_empty_sides_alone_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "pairs.tsv"
    path.write_text("source\ttarget\na\t\n\tb\n")
    with pytest.raises(DataError, match="has no rows with a text on both sides"):
        translate(path)


def test_repeated_pairs_are_one(tmp_path: Path) -> None:
    corpus = translate(pairs_file(tmp_path, "text 3\tTexte 3\ntext 3\tTexte 3\n"))
    assert (corpus.summary.repeated_rows, len(all_pairs(corpus))) == (2, 40)


def test_other_columns_are_named(tmp_path: Path) -> None:
    path = pairs_file(tmp_path)
    path.write_text(path.read_text().replace("source\ttarget", "en\tfr"))
    with pytest.raises(DataError, match=r"unknown column 'source': .*known are en, fr"):
        translate(path)
    assert len(all_pairs(translate(path, source_column="en", target_column="fr"))) == 40


def test_a_value_that_is_no_text_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"source": "a", "target": "b"}\n{"source": "a", "target": 7}\n')
    with pytest.raises(DataError, match=r"line 2: 7 \(int\) is not a text"):
        translate(path)


def test_texts_come_from_lines_or_a_column(tmp_path: Path) -> None:
    texts = [f"text {number}" for number in range(40)]
    lines, rows = tmp_path / "texts.txt", tmp_path / "texts.jsonl"
    lines.write_text("\n".join(texts[:20]) + "\n\n" + "\r\n".join(texts[20:]) + "\n")
    rows.write_text("".join(json.dumps({"text": text}) + "\n" for text in [*texts, ""]))
    found = [load_corpus(DataSpec(source=str(path), task="generate", split=SPLIT)) for path in (lines, rows)]
    assert all_pairs(found[0]) == all_pairs(found[1])
    assert sorted(target for _, target in all_pairs(found[0])) == sorted(texts)
    assert [corpus.summary.empty for corpus in found] == [0, 1]


def test_interface_text_of_languages() -> None:
    corpus = load_corpus(DataSpec(source="ui-strings", task="generate", languages=("cy",)))
    assert all(not source for source, _ in all_pairs(corpus))
    assert corpus.summary.train > 400


def test_changed_data_is_noticed(tmp_path: Path) -> None:
    path = pairs_file(tmp_path)
    corpus = translate(path)
    assert all_pairs(reload_corpus(corpus.record)) == all_pairs(corpus)
    pairs_file(tmp_path, "more\tmehr\n")
    with pytest.raises(DataError, match="has changed since training"):
        reload_corpus(corpus.record)


def test_a_language_that_is_not_there_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="unknown language to translate into 'en'"):
        translate("ui-strings", languages=("en",))


def test_placeholders_are_counted() -> None:
    assert placeholders("%(name)s has %d of {total} {} %s %s") == {
        "%(name)s": 1,
        "%d": 1,
        "{total}": 1,
        "{}": 1,
        "%s": 2,
    }
    assert not placeholders("100 % sure { of } it")

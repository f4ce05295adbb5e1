from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.errors import CheckpointError, DataError, RefusedError, UnknownNameError
from edgekit.text.processor import (
    BOS_ID,
    CLS_ID,
    EOS_ID,
    PAD_ID,
    TOKENIZER_KINDS,
    UNK_ID,
    Processor,
    train_processor,
)

TEXTS = ["Datei speichern", "Save the file", "Файл сохранён", "ファイルを保存", "Datei öffnen", "Open the file"] * 3
SIZES = {"byte": 259, "bpe": 300, "wordpiece": 280}


@pytest.fixture(scope="module", params=TOKENIZER_KINDS)
def processor(request: pytest.FixtureRequest) -> Processor:
    return train_processor(request.param, TEXTS, SIZES[request.param], max_length=12)


def test_cls_first_never_empty_never_too_long(processor: Processor) -> None:
    rows = processor.encode(["", " ", "Datei", "Datei speichern " * 20])
    assert all(row[0] == CLS_ID and 1 <= len(row) <= 12 for row in rows)
    assert len(rows[3]) == 12
    assert max(max(row) for row in rows) < processor.vocab_size


def test_padding_and_mask(processor: Processor) -> None:
    ids, mask = processor.encode_padded(["", "Datei speichern"], 8)
    assert (ids.dtype, mask.dtype, ids.shape, mask.shape) == (np.int32, np.int32, (2, 8), (2, 8))
    assert mask[0].tolist() == [1] + [0] * 7
    assert ids[0].tolist() == [CLS_ID] + [0] * 7
    assert np.all((ids == 0) == (mask == 0))
    assert processor.encode_padded(["Datei speichern"], 2)[0].shape == (1, 2)


def test_saved_and_loaded_alike(processor: Processor, tmp_path: Path) -> None:
    processor.save(tmp_path / "tokenizer.json")
    again = Processor.load(tmp_path / "tokenizer.json")
    assert again.encode(TEXTS) == processor.encode(TEXTS)
    assert (again.vocab_size, again.max_length) == (processor.vocab_size, processor.max_length)


@pytest.mark.parametrize("kind", TOKENIZER_KINDS)
def test_training_repeats(kind: str, tmp_path: Path) -> None:
    for name in ("a", "b"):
        train_processor(kind, TEXTS, SIZES[kind]).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@given(st.text())
@settings(max_examples=50, deadline=None)
def test_bytes_are_never_unknown(text: str) -> None:
    assert UNK_ID not in BYTES.encode([text])[0]


BYTES = train_processor("byte", (), 259)


def test_byte_has_one_id_per_byte() -> None:
    assert BYTES.vocab_size == 259
    assert len(BYTES.encode(["aé日"])[0]) == 1 + 1 + 2 + 3


def test_bpe_learns_merges() -> None:
    bpe = train_processor("bpe", TEXTS, 300)
    assert bpe.vocab_size == 300
    assert len(bpe.encode(["Datei"])[0]) < len(BYTES.encode(["Datei"])[0])


def test_wordpiece_leaves_rare_characters_unknown() -> None:
    texts = ["".join(chr(0x1000 + n) for n in range(start, start + 9)) for start in range(0, 800, 9)] + TEXTS
    wordpiece = train_processor("wordpiece", texts, 300)
    assert wordpiece.vocab_size <= 300
    assert UNK_ID in wordpiece.encode([texts[50]])[0]
    assert UNK_ID not in wordpiece.encode(["Datei"])[0]


def test_lowercase() -> None:
    lower = train_processor("bpe", TEXTS, 280, lowercase=True)
    assert lower.encode(["DATEI"]) == lower.encode(["datei"])


@pytest.mark.parametrize("kind", TOKENIZER_KINDS)
def test_placeholders_can_be_left_out(kind: str) -> None:
    texts = [*TEXTS, "%(count)d files in {folder}, %s, 100 %"]
    processor = train_processor(kind, texts, SIZES[kind] + 20, strip_placeholders=True)
    assert processor.encode(["a %(name)s b {name} c"]) == processor.encode(["a   b   c"])
    assert processor.encode(["a 50 %"]) != processor.encode(["a 50  "])


def test_bpe_sees_a_word_alike_everywhere_and_white_space_as_a_border() -> None:
    bpe = train_processor("bpe", TEXTS, 300)
    word = bpe.encode(["Datei"])[0][1:]
    assert bpe.encode(["Save Datei"])[0][-len(word) :] == word
    assert bpe.encode(["Save \n\t Datei"]) == bpe.encode(["Save Datei"])


def test_refusals() -> None:
    with pytest.raises(UnknownNameError, match="did you mean wordpiece"):
        train_processor("word-piece", TEXTS, 300)
    with pytest.raises(RefusedError, match="259"):
        train_processor("bpe", TEXTS, 100)
    with pytest.raises(RefusedError, match="--vocab-size 10 "):
        train_processor("wordpiece", TEXTS, 10)
    with pytest.raises(DataError, match="Unicode"):
        BYTES.encode(["good", "\ud800"])


def test_a_foreign_tokenizer_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    BYTES.save(path)
    path.write_text(path.read_text().replace("[CLS]", "[BOS]"))
    with pytest.raises(CheckpointError, match=r"\[CLS\]"):
        Processor.load(path)
    with pytest.raises(CheckpointError, match="can't read the tokenizer"):
        Processor.load(tmp_path / "none.json")


@pytest.fixture(scope="module")
def writers() -> dict[str, Processor]:
    texts = ["Save the file %(name)s", "Speichern ünd schließen", "  two  spaces\n"] * 3
    return {kind: train_processor(kind, texts, 300, max_length=12, writes=True) for kind in ("byte", "bpe")}


@pytest.mark.parametrize("kind", ["byte", "bpe"])
@settings(max_examples=60, deadline=None, derandomize=True)
@given(text=st.text())
def test_a_writers_tokenizer_gives_every_text_back(writers: dict[str, Processor], kind: str, text: str) -> None:
    processor = writers[kind]
    for given_text in (text, f" {text}[EOS][PAD]\n%(name)s e\u0301"):
        (ids,) = processor.encode_uncut([given_text])
        assert processor.decode(ids) == given_text
        assert not {PAD_ID, BOS_ID, EOS_ID} & set(ids)
        assert processor.encode([given_text]) == [[BOS_ID, *ids][:12]]


def test_a_writers_tokenizer_survives_its_file(writers: dict[str, Processor], tmp_path: Path) -> None:
    for kind, processor in writers.items():
        processor.save(tmp_path / kind)
        loaded = Processor.load(tmp_path / kind)
        assert loaded.writes
        assert loaded.encode(["[EOS] Save"]) == processor.encode(["[EOS] Save"])
        assert len(loaded.token_texts()) == loaded.vocab_size
    assert writers["byte"].vocab_size == 260


@pytest.mark.parametrize("options", [{"kind": "wordpiece"}, {"lowercase": True}, {"strip_placeholders": True}])
def test_a_writers_tokenizer_changes_no_character(options: dict[str, Any]) -> None:
    with pytest.raises(RefusedError, match="keeps every character"):
        train_processor(**{"kind": "bpe", "texts": ["a"], "vocab_size": 400, "writes": True, **options})

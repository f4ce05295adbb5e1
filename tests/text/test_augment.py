from collections import Counter

import numpy as np
import pytest
from pydantic import ValidationError

from edgekit.text.augment import Augmentation, augment_texts, crop_text, cut_text
from edgekit.text.processor import CUT, train_processor

TEXTS = ["one two three four five", "eins zwei drei vier", "ab", "日本語のファイルを保存する"] * 50
LABELS = np.array([0, 1, 0, 2] * 50, np.int32)


def drawn(seed: int = 0, **options: float) -> list[str]:
    return augment_texts(TEXTS, LABELS, Augmentation.model_validate(options), np.random.default_rng(seed))


def test_nothing_asked_nothing_changed() -> None:
    assert drawn() == TEXTS
    assert not Augmentation().changes_text


def test_the_seed_repeats_it() -> None:
    options = {"crop": 0.4, "join": 0.2, "cut": 0.5}
    assert drawn(1, **options) == drawn(1, **options)
    assert drawn(1, **options) != drawn(2, **options)


def test_crops_are_parts_of_their_text() -> None:
    cropped = drawn(crop=1.0)
    assert all(found in text for found, text in zip(cropped, TEXTS, strict=True))
    assert all(found == "ab" for found, text in zip(cropped, TEXTS, strict=True) if text == "ab")
    lengths = Counter(len(found.split()) for found in cropped[::4])
    assert set(lengths) == {1, 2, 3, 4, 5}
    assert lengths[1] > lengths[4]
    assert {len(found) for found in cropped[3::4]} > {3, 4, 5}


def test_a_crop_of_spaces_and_nothing_is_not_made() -> None:
    generator = np.random.default_rng(0)
    assert {crop_text("a  b", generator) for _ in range(50)} == {"a  b"}
    assert crop_text("", generator) == ""


def test_joins_stay_within_the_label() -> None:
    for found, label in zip(drawn(join=1.0), LABELS, strict=True):
        others = [text for text, other in zip(TEXTS, LABELS, strict=True) if other != label]
        assert not any(word in found.split() for text in others for word in text.split())
    assert any(len(found) > len(text) for found, text in zip(drawn(join=1.0), TEXTS, strict=True))


def test_cuts_vary_the_subwords_and_nothing_else() -> None:
    for found, text in zip(drawn(cut=1.0, cut_rate=0.3), TEXTS, strict=True):
        assert found.replace(CUT, "") == text
    bpe = train_processor("bpe", TEXTS, 400)
    plain = bpe.encode(["one two three"])[0]
    cutting = bpe.with_cuts()
    assert cutting.encode(["one two three"])[0] == plain
    cut = cutting.encode([f"on{CUT}e two thr{CUT}ee"])[0]
    assert len(cut) > len(plain)
    spelled = ["".join(bpe._tokenizer.id_to_token(token) for token in ids) for ids in (plain, cut)]
    assert spelled[0] == spelled[1]


def test_the_rate_of_cuts() -> None:
    count = cut_text("x" * 10_000, 0.2, np.random.default_rng(0)).count(CUT)
    assert count == pytest.approx(2000, rel=0.1)


def test_out_of_range() -> None:
    with pytest.raises(ValidationError):
        Augmentation(crop=1.1)

"""Varies training texts: crops, joins and cuts, drawn by numpy so that a seed repeats them.

Short texts give a model few views of a language; these give more without inventing any word.
"""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from edgekit.text.processor import CUT

_CROP_STOP = 0.35  # a crop's length in words is geometric: 1 / 0.35, about three words
_MIN_CROP = 3  # characters: shorter crops say nothing about most languages
_FIRST_EAST_ASIAN = "\u2e80"  # from here on, scripts are written without spaces: Han, kana, hangul


class Augmentation(BaseModel):
    """How often texts are varied; all zero leaves them alone.

    `crop` is the probability that a text is replaced by some of its words (characters, in scripts without spaces),
    `join` that it is joined with another text of its label, `cut` that it is cut inside words at random places:
    about `cut_rate` of its characters (twice that at most) then start a new piece, so that its subwords vary as
    under BPE-dropout (arXiv:1910.13267).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    crop: float = Field(default=0.0, ge=0, le=1)
    join: float = Field(default=0.0, ge=0, le=1)
    cut: float = Field(default=0.0, ge=0, le=1)
    cut_rate: float = Field(default=0.1, gt=0, le=0.5)

    @property
    def changes_text(self) -> bool:
        """Tell whether anything is varied at all."""
        return bool(self.crop or self.join or self.cut)


def augment_texts(
    texts: Sequence[str], labels: NDArray[np.int32], options: Augmentation, generator: np.random.Generator
) -> list[str]:
    """Return a varied copy of `texts`; `labels` int32 [n] say which may be joined. Cuts are marked by CUT."""
    of_label: dict[int, list[str]] = defaultdict(list)
    for text, label in zip(texts, labels, strict=True):
        of_label[int(label)].append(text)
    varied = []
    for text, label in zip(texts, labels, strict=True):
        draw = generator.random()
        if draw < options.crop:
            text = crop_text(text, generator)
        elif draw < options.crop + options.join:
            text = _joined(text, of_label[int(label)], generator)
        if options.cut and generator.random() < options.cut:
            text = cut_text(text, 2 * options.cut_rate * generator.random(), generator)
        varied.append(text)
    return varied


def crop_text(text: str, generator: np.random.Generator) -> str:
    """Return a few consecutive words of a text, or a run of characters where its script has no spaces."""
    words = text.split(" ")
    if len(words) > 1:
        count = min(len(words), int(generator.geometric(_CROP_STOP)))
        start = int(generator.integers(0, len(words) - count + 1))
        found = " ".join(words[start : start + count])
        return found if len(found.strip()) >= _MIN_CROP else text
    if len(text) >= 2 * _MIN_CROP and max(text) >= _FIRST_EAST_ASIAN:
        count = int(generator.integers(2, len(text)))
        start = int(generator.integers(0, len(text) - count + 1))
        return text[start : start + count]
    return text


def cut_text(text: str, rate: float, generator: np.random.Generator) -> str:
    """Return a text with CUT before each character with the probability `rate`."""
    cuts = generator.random(len(text)) < rate
    return "".join(CUT + character if cut else character for character, cut in zip(text, cuts, strict=True))


def _joined(text: str, others: Sequence[str], generator: np.random.Generator) -> str:
    other = others[int(generator.integers(len(others)))]
    if generator.random() < 0.7:
        other = crop_text(other, generator)
    if generator.random() < 0.5:
        text = crop_text(text, generator)
    return f"{text} {other}" if generator.random() < 0.5 else f"{other} {text}"

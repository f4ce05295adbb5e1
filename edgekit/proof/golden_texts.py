"""Golden texts of a model that writes: prompts with what its source wrote after them, and held-out texts to score.

Kept in `golden.npz` beside the steps, as arrays whose names begin with `texts/`; rows of ids are padded with -1.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from edgekit.errors import BundleError
from edgekit.proof.golden import Arrays, Golden
from edgekit.proof.writing import Prompt
from edgekit.text.processor import EOS_ID

Rows = tuple[tuple[int, ...], ...]
Texts = tuple[tuple[str, ...], ...]
_PADDING = -1


@dataclass(frozen=True, kw_only=True)
class GoldenTexts:
    """What a file is to write, greedily, and how well its source foretold held-out texts.

    `written` are the source model's ids after each prompt, the first of `stop_ids` among them where a text ended with
    one, up to `max_new_tokens`; `references` are the right translations of the first prompts, whose source texts are
    `sources`. `scored` texts begin with `[BOS]`; they have `size_bytes` bytes of UTF-8, and the source's loss of them
    is `loss`, in nats. A `foreign` tokenizer is not edgekit's.
    """

    prompts: tuple[Prompt, ...]
    written: Rows = ()
    max_new_tokens: int
    scored: tuple[Prompt, ...] = ()
    size_bytes: int = 0
    loss: float = 0.0
    sources: tuple[str, ...] = ()
    references: Texts = field(default=())
    stop_ids: tuple[int, ...] = (EOS_ID,)
    foreign: bool = False


def pack_texts(texts: GoldenTexts) -> Arrays:
    """The arrays of golden texts, for `Golden.texts`."""
    return {
        "prompts": _pad([prompt.ids for prompt in texts.prompts]),
        "prompt_sources": _pad([prompt.source for prompt in texts.prompts]),
        "written": _pad(texts.written),
        "max_new_tokens": np.array(texts.max_new_tokens, np.int32),
        "scored": _pad([prompt.ids for prompt in texts.scored]),
        "scored_sources": _pad([prompt.source for prompt in texts.scored]),
        "size_bytes": np.array(texts.size_bytes, np.int64),
        "loss": np.array(texts.loss, np.float64),
        "sources": _strings([texts.sources]),
        "references": _strings(texts.references),
        "stop_ids": np.array(texts.stop_ids, np.int32),
        "foreign": np.array(texts.foreign),
    }


def unpack_texts(golden: Golden) -> GoldenTexts | None:
    """The golden texts of a bundle; None where there are none. Raises BundleError where they are broken."""
    if not golden.texts:
        return None
    arrays = golden.texts
    try:
        sources = _texts(arrays["sources"])
        return GoldenTexts(
            prompts=_prompts(arrays, "prompts", "prompt_sources"),
            written=_rows(arrays["written"]),
            max_new_tokens=int(arrays["max_new_tokens"].item()),
            scored=_prompts(arrays, "scored", "scored_sources"),
            size_bytes=int(arrays["size_bytes"].item()),
            loss=float(arrays["loss"].item()),
            sources=sources[0] if sources else (),
            references=_texts(arrays["references"]),
            stop_ids=tuple(map(int, arrays.get("stop_ids", np.array([EOS_ID])))),
            foreign=bool(arrays.get("foreign", np.array(False)).item()),
        )
    except (KeyError, ValueError, TypeError) as error:
        raise BundleError(f"the golden texts of this bundle are broken ({error}): export it again") from error


def _prompts(arrays: Arrays, ids: str, sources: str) -> tuple[Prompt, ...]:
    pairs = zip(_rows(arrays[ids]), _rows(arrays[sources]), strict=True)
    return tuple(Prompt(ids=own, source=source) for own, source in pairs)


def _pad(rows: Sequence[Sequence[int]]) -> "np.ndarray[tuple[int, int], np.dtype[np.int32]]":
    padded = np.full((len(rows), max(map(len, rows), default=0)), _PADDING, np.int32)
    for index, row in enumerate(rows):
        padded[index, : len(row)] = row
    return padded


def _rows(padded: "np.ndarray[tuple[int, ...], np.dtype[np.generic]]") -> Rows:
    return tuple(tuple(int(value) for value in row if value != _PADDING) for row in padded)


def _strings(rows: Sequence[Sequence[str]]) -> "np.ndarray[tuple[int, int], np.dtype[np.str_]]":
    """Texts as fixed-width strings, which numpy reads without running anything; rows are filled up with empty ones."""
    most = max(map(len, rows), default=0)
    return np.array([[*row, *[""] * (most - len(row))] for row in rows], np.str_).reshape(len(rows), most)


def _texts(rows: "np.ndarray[tuple[int, ...], np.dtype[np.generic]]") -> Texts:
    return tuple(tuple(str(text) for text in row if text) for row in rows)

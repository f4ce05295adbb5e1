"""Chooses the next token from logits: pure functions over float32 [vocab], in the order in which transformers has them.

Repetition penalty (arXiv:1909.05858), temperature, top-k (arXiv:1805.04833), top-p (arXiv:1904.09751).
"""

from typing import Any, NamedTuple, Sequence

import numpy as np

Logits = Any  # float32 [vocab]


class Sampling(NamedTuple):
    """How a token is chosen: `temperature` 0 takes the likeliest; `top_k` 0 and `top_p` 1 leave all tokens in."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0


def penalize_repetition(logits: Logits, ids: Sequence[int], penalty: float) -> Logits:
    """Logits in which each of `ids` is less likely: divided by `penalty` where positive, else multiplied by it."""
    places = np.unique(np.asarray(ids, np.int64))
    changed = np.array(logits, np.float32)
    found = changed[places]
    changed[places] = np.where(found < 0, found * np.float32(penalty), found / np.float32(penalty))
    return changed


def keep_top_k(logits: Logits, count: int) -> Logits:
    """Logits with -inf for all that are below the `count`-th largest."""
    if not 0 < count < len(logits):
        return logits
    least = np.partition(logits, -count)[-count]
    return np.where(logits < least, np.float32(-np.inf), logits)


def keep_top_p(logits: Logits, share: float) -> Logits:
    """Logits with -inf for all but the likeliest that have the probability `share` together; one at least is kept."""
    if share >= 1:
        return logits
    order = np.argsort(logits, kind="stable")
    below = np.cumsum(probabilities(logits)[order]) <= 1 - share
    below[-1] = False
    kept = np.array(logits, np.float32)
    kept[order[below]] = -np.inf
    return kept


def probabilities(logits: Logits) -> Any:
    """The softmax of logits, float64 [vocab]."""
    exponentials = np.exp(np.asarray(logits, np.float64) - np.max(logits))
    return exponentials / exponentials.sum()


def log_probabilities(logits: Logits) -> Any:
    """The logarithm of the softmax of logits, float64 [vocab]."""
    shifted = np.asarray(logits, np.float64) - np.max(logits)
    return shifted - np.log(np.exp(shifted).sum())


def warp(logits: Logits, sampling: Sampling) -> Logits:
    """Logits as they are drawn from: all of them for the likeliest token."""
    if sampling.temperature > 0:
        logits = keep_top_p(keep_top_k(logits / np.float32(sampling.temperature), sampling.top_k), sampling.top_p)
    return logits


def choose(logits: Logits, sampling: Sampling, generator: Any) -> int:
    """The next token, by what `warp` left: the likeliest, or one drawn with numpy's `generator`."""
    if sampling.temperature <= 0:
        return int(logits.argmax())
    cumulated = np.cumsum(probabilities(logits))
    place = int(np.searchsorted(cumulated, generator.random() * cumulated[-1], side="right"))
    return min(place, len(cumulated) - 1)

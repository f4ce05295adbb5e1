"""What a model's own settings forbid, force and weigh: on the scores of the next token, in transformers' order.

n-grams once (arXiv:1705.04304), less repetition (arXiv:1909.05858); the others are what its `generate` does with the
settings of these names.
"""

from typing import Any, Iterable, Iterator, NamedTuple, Optional, Sequence

import numpy as np

from .sampling import Logits, Sampling, penalize_repetition, warp

Ids = Sequence[int]


class Rules(NamedTuple):
    """Settings by transformers' names; the default is no rule.

    `begun` of a prompt's tokens count as written: a first token that the model forces stands in its prompt.
    """

    encoder_repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    encoder_no_repeat_ngram_size: int = 0
    bad_words_ids: Sequence[Ids] = ()
    min_length: int = 0
    min_new_tokens: int = 0
    forced_eos_token_id: Ids = ()
    suppress_tokens: Ids = ()
    begin_suppress_tokens: Ids = ()
    begun: int = 0


NO_RULES = Rules()


class Text(NamedTuple):
    """What stands before a token: `ids`, the last `new` of them written, of `longest` that may be; for a `source`."""

    ids: Ids
    new: int = 0
    longest: Optional[int] = None
    source: Ids = ()
    stop_ids: Ids = ()


def filtered(logits: Logits, text: Text, sampling: Sampling, rules: Rules = NO_RULES) -> Logits:
    """Logits as the next token of a text is chosen from; log-probabilities likewise."""
    if rules.encoder_repetition_penalty != 1 and text.source:
        logits = penalize_repetition(logits, text.source, 1 / rules.encoder_repetition_penalty)
    if sampling.repetition_penalty != 1:
        logits = penalize_repetition(logits, text.ids, sampling.repetition_penalty)
    if rules != NO_RULES:
        logits = _allowed(logits, text, rules)
    return warp(logits, sampling)


def _allowed(logits: Logits, text: Text, rules: Rules) -> Logits:
    """Logits with -inf for what is forbidden, and for all others where tokens are forced, whose logits are then 0."""
    changed = np.array(logits, np.float32)
    _put(changed, _forbidden_first(text, rules), -np.inf)
    if rules.forced_eos_token_id and text.new + 1 == text.longest:
        changed[:] = -np.inf
        _put(changed, rules.forced_eos_token_id, 0)
    _put(changed, rules.suppress_tokens, -np.inf)
    if text.new == 0:
        _put(changed, rules.begin_suppress_tokens, -np.inf)
    return changed


def _put(logits: Logits, ids: Iterable[int], value: float) -> None:
    """Set the logits of `ids`; some models name tokens that they have no logits of."""
    logits[[token for token in ids if token < len(logits)]] = value


def _forbidden_first(text: Text, rules: Rules) -> Iterator[int]:
    """What is forbidden before anything is forced."""
    yield from _continuations(text.ids, text.ids, rules.no_repeat_ngram_size)
    yield from _continuations(text.source, text.ids, rules.encoder_no_repeat_ngram_size)
    for word in rules.bad_words_ids:
        is_stop = len(word) == 1 and word[0] in text.stop_ids
        if not is_stop and _ends_with(text.ids, word[:-1]):
            yield word[-1]
    if len(text.ids) < rules.min_length or text.new + rules.begun < rules.min_new_tokens:
        yield from text.stop_ids


def _continuations(known: Ids, ids: Ids, size: int) -> Iterator[int]:
    """The tokens that would make the last `size` ones of `ids` a sequence that `known` has."""
    if size < 1 or len(ids) + 1 < size:
        return
    last = list(ids[len(ids) + 1 - size :])
    for start in range(len(known) + 1 - size):
        if list(known[start : start + size - 1]) == last:
            yield known[start + size - 1]


def _ends_with(ids: Ids, end: Ids) -> bool:
    return not end or list(ids[-len(end) :]) == list(end)


def parse_rules(fields: Any) -> Rules:
    """Check the rules of a decoded job; raises ValueError with the name of the field that is wrong."""
    if not isinstance(fields, dict):
        raise ValueError("rules")
    for name, value in fields.items():
        known = getattr(NO_RULES, name, None) if name in Rules._fields else None
        if name == "bad_words_ids":
            good = isinstance(value, list) and all(_are_ids(word) and word for word in value)
        elif isinstance(known, tuple):
            good = _are_ids(value)
        elif known is not None:
            least = 1e-3 if isinstance(known, float) else 0
            good = type(value) in (type(known), int) and value >= least
        else:
            good = False
        if not good:
            raise ValueError(name)
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()}
    return Rules(**values)


def _are_ids(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)

"""Writes texts: the loop from one token to the next, and beam search (arXiv:1609.08144 for its length penalty)."""

from typing import Any, Callable, NamedTuple, Optional, Sequence, Union

import numpy as np

from .failures import RunError
from .rules import NO_RULES, Rules, Text, filtered
from .sampling import Sampling, choose, log_probabilities
from .writer import Reading, Writer

#: what is told of each token as it is chosen
OnToken = Callable[[int], None]
#: why a text ended: a stop token, as many tokens as were asked for, or no room for more in the cache
ENDS = ("stop", "length", "context")


class Prompt(NamedTuple):
    """What to go on from: token ids, and those of the text to translate."""

    ids: tuple[int, ...]
    source: tuple[int, ...] = ()


class Generation(NamedTuple):
    """How to write.

    `stop_ids` end a text and are left out. `long_prompt` is what to do where the cache has no room for more: refuse a
    prompt, and end a text there, or slide: forget the oldest tokens, but the first, until half of the cache is free.
    With `num_beams` the likeliest text is looked for, its log-probability over its length to the power of
    `length_penalty`; it is told of when it is found. `early_stopping` is transformers': when as many texts have ended,
    the search goes on while a better one could be found ("never"), or could at the length that was reached (False), or
    ends (True).
    """

    max_new_tokens: int = 64
    stop_ids: tuple[int, ...] = ()
    sampling: Sampling = Sampling()
    seed: int = 0
    long_prompt: str = "refuse"
    num_beams: int = 1
    length_penalty: float = 1.0
    early_stopping: Union[bool, str] = "never"
    rules: Rules = NO_RULES


class Written(NamedTuple):
    """The ids of a text, why it ended, and how often its oldest tokens were forgotten."""

    ids: list[int]
    ended: str
    slid: int = 0


def write(writer: Writer, prompt: Prompt, generation: Generation, on_token: Optional[OnToken] = None) -> Written:
    """Go on from a prompt.

    Raises RunError: "bad-input" for a prompt that the file can't take, "run-failed" where it can't be run, or gives
    logits that are no numbers; the message names the step.
    """
    tell = on_token or (lambda _: None)
    if generation.num_beams > 1:
        written = _search(writer, prompt, generation)
        for token in written.ids:
            tell(token)
        return written
    return _go_on(writer, prompt, generation, tell)


def _go_on(writer: Writer, prompt: Prompt, generation: Generation, tell: OnToken) -> Written:
    generator = np.random.default_rng(generation.seed)
    ids, kept, slid = list(prompt.ids), list(prompt.ids), 0
    if _is_full(writer, len(kept) - 1) and generation.long_prompt == "slide":
        kept, slid = _newest(kept, writer.longest), 1
    reading = writer.read(kept, prompt.source)
    try:
        while True:
            text = _text(prompt, ids, generation)
            logits = filtered(checked(reading.logits, text.new), text, generation.sampling, generation.rules)
            token = choose(logits, generation.sampling, generator)
            if token in generation.stop_ids:
                return Written(ids[len(prompt.ids) :], "stop", slid)
            tell(token)
            ids.append(token)
            kept.append(token)
            if len(ids) - len(prompt.ids) >= generation.max_new_tokens:
                return Written(ids[len(prompt.ids) :], "length", slid)
            if not _is_full(writer, reading.length):
                reading = writer.go_on(token, reading)
            elif generation.long_prompt == "slide":
                kept, slid = _newest(kept, writer.longest), slid + 1
                writer.finish(reading)
                reading = writer.read(kept, prompt.source)
            else:
                return Written(ids[len(prompt.ids) :], "context", slid)
    finally:
        writer.finish(reading)


def _text(prompt: Prompt, ids: Sequence[int], generation: Generation) -> Text:
    new = len(ids) - len(prompt.ids)
    return Text(ids, new, generation.max_new_tokens, prompt.source, generation.stop_ids)


def _is_full(writer: Writer, count: int) -> bool:
    return writer.longest is not None and count >= writer.longest


def _newest(ids: list[int], longest: Optional[int]) -> list[int]:
    """The first token, which begins every text, and the newest ones: half of the `longest` text."""
    size = max(1, (longest or len(ids)) // 2 - 1)
    return [ids[0], *ids[max(1, len(ids) - size) :]]


def checked(logits: Any, step: int) -> Any:
    """The logits; raises RunError where the largest is none that can be chosen."""
    largest = logits[logits.argmax()]  # NaN is the largest of all to argmax
    if np.isfinite(largest):
        return logits
    broken = int(np.size(logits) - np.count_nonzero(np.isfinite(logits)))
    raise RunError(
        "run-failed",
        f"the logits of token {step + 1} are no numbers: {broken} of {np.size(logits)} are NaN or infinite. The file "
        "computes nonsense: `edgekit verify` says since which step",
    )


class _Beam(NamedTuple):
    ids: tuple[int, ...]
    score: float
    reading: Reading


class _Ended(NamedTuple):
    score: float
    ids: tuple[int, ...]
    ended: str


def _search(writer: Writer, prompt: Prompt, generation: Generation) -> Written:
    """The likeliest text among `num_beams` kept at each step; of what ends there, only the best so many count.

    Ends when no beam can become better than the texts that have ended, as `early_stopping` says, or at the longest.
    """
    width = generation.num_beams
    beams = [_Beam((), 0.0, writer.read(prompt.ids, prompt.source))]
    texts: list[_Ended] = []  # the best first
    try:
        for step in range(generation.max_new_tokens):
            full = _is_full(writer, beams[0].reading.length)
            last = full or step + 1 == generation.max_new_tokens
            found = _continuations(beams, prompt, generation, step)
            for score, index, token in found[:width]:
                ids, normalized = beams[index].ids, _normalized(score, step + 1, generation)
                if token in generation.stop_ids:
                    texts.append(_Ended(normalized, ids, "stop"))
                elif last:
                    texts.append(_Ended(normalized, (*ids, token), "context" if full else "length"))
            texts = sorted(texts, key=lambda text: -text.score)[:width]
            going = [each for each in found if each[2] not in generation.stop_ids][:width]
            if last or not going or _is_decided(texts, going[0][0], step + 1, generation):
                break
            beams = _next_beams(writer, beams, going)
    finally:
        writer.finish(beams[0].reading)
        for beam in beams[1:]:
            writer.release(beam.reading)
    return Written(list(texts[0].ids), texts[0].ended) if texts else Written([], "stop")


def _continuations(
    beams: list[_Beam], prompt: Prompt, generation: Generation, step: int
) -> list[tuple[float, int, int]]:
    """Score, beam and token of the best continuations: enough that `num_beams` of them do not end."""
    count = generation.num_beams * (1 + max(1, len(generation.stop_ids)))
    found = []
    for index, beam in enumerate(beams):
        logits = checked(beam.reading.logits, step)
        # as in transformers, what rules and penalties change are log-probabilities
        scores = log_probabilities(logits).astype(np.float32)
        text = _text(prompt, [*prompt.ids, *beam.ids], generation)
        scores = filtered(scores, text, generation.sampling, generation.rules)
        best = np.argsort(-scores, kind="stable")[:count]
        found += [(beam.score + float(scores[token]), index, int(token)) for token in best]
    return sorted(found, key=lambda each: (-each[0], each[1], each[2]))[:count]


def _next_beams(writer: Writer, beams: list[_Beam], going: Sequence[tuple[float, int, int]]) -> list[_Beam]:
    """Read the chosen tokens, each after its own beam; what nothing goes on from is released."""
    made = [_Beam((*beams[i].ids, token), score, writer.step(token, beams[i].reading)) for score, i, token in going]
    for beam in beams:
        writer.release(beam.reading)
    return made


def _normalized(score: float, length: int, generation: Generation) -> float:
    return score / float(length + generation.rules.begun) ** generation.length_penalty


def _is_decided(texts: Sequence[_Ended], best: float, length: int, generation: Generation) -> bool:
    """Whether the search ends though beams go on: as many texts have ended, and none of these can beat their worst."""
    if len(texts) < generation.num_beams:
        return False
    if generation.early_stopping is True:
        return True
    goes_far = generation.early_stopping == "never" and generation.length_penalty > 0
    return texts[-1].score >= _normalized(best, generation.max_new_tokens if goes_far else length, generation)

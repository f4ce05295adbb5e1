"""How well a text is foretold by a file that writes: the cross-entropy of its tokens, each after those before it."""

from typing import NamedTuple

import numpy as np

from .generation import Prompt, checked
from .sampling import log_probabilities
from .writer import Writer


class Scored(NamedTuple):
    """The sum of the losses of `tokens` tokens, in nats, and how many of them were the likeliest."""

    loss: float
    correct: int
    tokens: int


def score(writer: Writer, text: Prompt) -> Scored:
    """Score the tokens of a text after its first, one call for each.

    Raises RunError: "bad-input" for a text that the file can't take, "run-failed" as `write`.
    """
    loss, correct = 0.0, 0
    reading = writer.read(text.ids[:1], text.source)
    try:
        for place, token in enumerate(text.ids[1:], 1):
            logits = checked(reading.logits, place - 1)
            loss -= float(log_probabilities(logits)[token])
            correct += int(np.argmax(logits) == token)
            if place + 1 < len(text.ids):
                reading = writer.go_on(token, reading)
    finally:
        writer.finish(reading)
    return Scored(loss, correct, len(text.ids) - 1)

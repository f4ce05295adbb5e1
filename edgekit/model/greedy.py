"""Greedy decoding with a cache: one loop of numpy over a step of either framework."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int32]
#: takes ids [batch, n] and the number of tokens before them, gives logits [batch, n, vocab] and keeps the cache
Step = Callable[[Ids, int], NDArray[np.float32]]


def greedy_ids(step: Step, prompts: Ids, *, max_length: int, stop_id: int) -> list[list[int]]:
    """Return the ids that follow each prompt [batch, n], the likeliest at each step, without `stop_id`.

    A text ends at `stop_id`, or where prompt and text together have `max_length` tokens and one more can't be read.
    """
    batch, position = prompts.shape
    found: list[list[int]] = [[] for _ in range(batch)]
    running = np.ones(batch, bool)
    logits = step(prompts, 0)
    while True:
        ids = logits[:, -1].argmax(-1).astype(np.int32)
        running &= ids != stop_id
        for index in np.flatnonzero(running):
            found[index].append(int(ids[index]))
        if not running.any() or position >= max_length:
            return found
        logits = step(ids[:, None], position)
        position += 1

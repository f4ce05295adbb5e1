"""Golden steps for a file that takes several sequence lengths: each step at the shortest one that holds its text."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from edgekit.errors import RefusedError
from edgekit.proof.golden import Golden, Step


def fit_steps(golden: Golden, lengths: Sequence[int], signature_of: Callable[[int], str]) -> Golden:
    """Cut the padding of every step, so that each of `lengths` (ascending, in tokens) is proven by at least one.

    Inputs are [1, length] and padded to the right where `mask` is 0; the outputs stay, as padding changes no answer.
    `signature_of` names the signature of a length. Raises RefusedError for a length that no text is short enough for.
    """
    tokens = [int(np.asarray(step.inputs["mask"]).sum()) for step in golden.steps]
    chosen = [next(length for length in lengths if length >= count) for count in tokens]
    for length in lengths:
        if length not in chosen:
            _spare(chosen, tokens, length)
    steps = tuple(_cut(step, length, signature_of(length)) for step, length in zip(golden.steps, chosen, strict=True))
    return replace(golden, steps=steps)


def _spare(chosen: list[int], tokens: list[int], length: int) -> None:
    """Give `length` the longest text that fits it, of those whose own length has others."""
    fitting = [i for i, count in enumerate(tokens) if count <= length and chosen.count(chosen[i]) > 1]
    if not fitting:
        raise RefusedError(
            f"a sequence length of {length} can't be proven: of {len(tokens)} held-out texts none to spare has "
            f"{length} tokens or fewer; leave it out of --sequence-length, or give more --eval-samples"
        )
    chosen[max(fitting, key=lambda i: tokens[i])] = length


def _cut(step: Step, length: int, signature: str) -> Step:
    inputs = {name: np.ascontiguousarray(value[:, :length]) for name, value in step.inputs.items()}
    return replace(step, signature=signature, inputs=inputs)

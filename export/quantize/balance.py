"""Factors for the channels of activations that hold outliers, whatever the format of the file."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgekit.export.quantize.evidence import Floats
from edgekit.proof.golden import Step

#: an activation has outliers where its largest channel is so many times the median one: all-MiniLM-L6-v2 has 213, the
#: embedded model 2.6
OUTLIERS = 8.0
#: texts that outliers are looked for in, at most
MOST_TEXTS = 64
_LEAST = 1e-5


def has_outliers(largest: Floats, times: float | None = None) -> bool:
    """Whether some channel, by its largest magnitude, is more than `times` (None: OUTLIERS) the median one."""
    beyond = OUTLIERS if times is None else times
    return bool(largest.size > 2 and np.max(largest) > beyond * max(_LEAST, float(np.median(largest))))


def input_factors(largest: Floats, matrices: Sequence[Floats], strength: float) -> Floats:
    """What each channel of an input is to be divided by, and its column of `matrices` [outputs, inputs] multiplied.

    `strength`: how much of the difficulty goes to the matrix, 0 none, 1 all (SmoothQuant, arXiv:2211.10438).
    """
    columns = np.max([np.max(np.abs(matrix), axis=0) for matrix in matrices], axis=0)
    factors = np.maximum(largest, _LEAST) ** strength / np.maximum(columns, _LEAST) ** (1 - strength)
    return np.asarray(factors / np.exp(np.mean(np.log(factors))), np.float32)


def output_factors(largest: Floats) -> Floats:
    """What each channel of an output is to be divided by, so that all have one range."""
    return np.asarray(np.maximum(largest, 1e-3 * np.max(largest)) / np.max(largest), np.float32)


def real_rows(values: Any, step: Step) -> Floats:
    """An activation as rows of channels, without those of padding where there is one for each token."""
    rows = np.asarray(values, np.float32).reshape(-1, np.shape(values)[-1])
    mask = step.inputs.get("mask")
    if mask is None or np.size(mask) != len(rows):
        return rows
    real = np.asarray(mask).ravel() != 0
    return rows[real] if real.any() else rows


def some_steps(steps: Sequence[Step]) -> Sequence[Step]:
    """At most MOST_TEXTS of the steps, spread over all of them."""
    return steps[:: -(-len(steps) // MOST_TEXTS) or 1]

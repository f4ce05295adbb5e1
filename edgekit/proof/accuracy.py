"""Accuracy of an exported file on held-out data, with its interval."""

import math

import numpy as np

from edgekit.bundle import Accuracy
from edgekit.proof.golden import Golden, stack_outputs
from edgekit.proof.parity import OUTPUT

_Z95 = 1.959963984540054


def score_outputs(golden: Golden, produced: Golden, population: int) -> Accuracy:
    """Share of steps whose largest logit is the true label's, beside the reference's share on the same steps."""
    known = golden.labels >= 0
    right = np.argmax(stack_outputs(produced.steps, OUTPUT), 1) == golden.labels
    reference_right = np.argmax(stack_outputs(golden.steps, OUTPUT), 1) == golden.labels
    samples = int(np.count_nonzero(known))
    low, high = wilson_interval(int(np.count_nonzero(right & known)), samples)
    return Accuracy(
        accuracy=float(np.mean(right[known])),
        low=low,
        high=high,
        reference_accuracy=float(np.mean(reference_right[known])),
        samples=samples,
        population=population,
    )


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """The 95 % score interval of a proportion (Wilson, 1927)."""
    if trials == 0:
        return 0.0, 1.0
    p, z2 = successes / trials, _Z95**2
    centre = (p + z2 / (2 * trials)) / (1 + z2 / trials)
    half = _Z95 * math.sqrt(p * (1 - p) / trials + z2 / (4 * trials**2)) / (1 + z2 / trials)
    return max(0.0, centre - half), min(1.0, centre + half)

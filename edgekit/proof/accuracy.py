"""Accuracy of an exported file on held-out data, with its interval."""

import numpy as np

from edgekit.bundle import Accuracy
from edgekit.proof.golden import Golden, stack_outputs
from edgekit.proof.intervals import wilson_interval
from edgekit.proof.parity import OUTPUT


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

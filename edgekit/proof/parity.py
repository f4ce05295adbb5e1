"""Parity: are the outputs of an exported file those of the source model?"""

import numpy as np

from edgekit.bundle import Parity
from edgekit.proof.golden import Golden, stack_outputs
from edgekit.proof.intervals import wilson_interval

OUTPUT = "logits"


def compare_outputs(
    golden: Golden, produced: Golden, relative_tolerance: float, labels_changed_tolerance: float = 1.0
) -> Parity:
    """Compare the produced outputs with the golden ones, over all steps.

    Within tolerance means |Δ| ≤ relative_tolerance · max(1, max |reference|) for every output, all of them finite, and
    a share of changed labels (in [0, 1]) that is not over `labels_changed_tolerance` with 95 % confidence.
    """
    reference = stack_outputs(golden.steps, OUTPUT)
    if len(produced.steps) != len(golden.steps):
        return Parity(
            verdict="failed",
            steps=len(golden.steps),
            note=f"{len(produced.steps)} of {len(golden.steps)} steps answered",
        )
    outputs = stack_outputs(produced.steps, OUTPUT)
    if outputs.shape != reference.shape:
        note = f"outputs of shape {outputs.shape[1:]}, not {reference.shape[1:]}"
        return Parity(verdict="failed", steps=len(golden.steps), note=note)
    non_finite = int(np.count_nonzero(~np.isfinite(outputs)))
    largest = float(np.max(np.abs(reference)))
    tolerance = relative_tolerance * max(1.0, largest)
    difference = None if non_finite else float(np.max(np.abs(outputs - reference)))
    changed = int(np.count_nonzero(np.argmax(outputs, 1) != np.argmax(reference, 1)))
    surely_changed, _ = wilson_interval(changed, len(golden.steps))
    equal = difference is not None and difference <= tolerance and surely_changed <= labels_changed_tolerance
    return Parity(
        verdict="within-tolerance" if equal else "failed",
        steps=len(golden.steps),
        max_abs_difference=difference,
        tolerance=tolerance,
        max_abs_reference=largest,
        labels_changed=changed,
        labels_changed_tolerance=labels_changed_tolerance,
        non_finite_outputs=non_finite,
        note=_note(non_finite, changed, len(golden.steps), surely_changed > labels_changed_tolerance),
    )


def _note(non_finite: int, changed: int, steps: int, too_many: bool) -> str:
    if non_finite:
        return f"{non_finite} outputs are NaN or infinite"
    return f"{changed} of {steps} labels changed, more than its scheme may change" if too_many else ""

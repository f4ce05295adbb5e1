"""Parity: are the outputs of an exported file those of the source model?"""

import numpy as np

from edgekit.bundle import Parity
from edgekit.proof.golden import Golden, stack_outputs

OUTPUT = "logits"


def compare_outputs(golden: Golden, produced: Golden, relative_tolerance: float) -> Parity:
    """Compare the produced outputs with the golden ones, over all steps.

    Equal means |Δ| ≤ relative_tolerance · max(1, max |reference|) for every output, all of them finite.
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
    equal = difference is not None and difference <= tolerance
    return Parity(
        verdict="within-tolerance" if equal else "failed",
        steps=len(golden.steps),
        max_abs_difference=difference,
        tolerance=tolerance,
        max_abs_reference=largest,
        labels_changed=int(np.count_nonzero(np.argmax(outputs, 1) != np.argmax(reference, 1))),
        non_finite_outputs=non_finite,
        note=f"{non_finite} outputs are NaN or infinite" if non_finite else "",
    )

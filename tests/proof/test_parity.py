"""What is said of labels that changed: whether the source itself was nearly undecided."""

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle import Parity
from edgekit.proof.golden import Golden, Step
from edgekit.proof.parity import compare_outputs


def compared(reference: NDArray[np.float32], produced: NDArray[np.float32]) -> Parity:
    both = []
    for logits in (reference, produced):
        inputs = {"ids": np.zeros((1, 4), np.int32)}
        steps = tuple(Step(signature="serve", inputs=inputs, outputs={"logits": row[None]}) for row in logits)
        both.append(Golden(steps=steps, labels=np.full(len(steps), -1, np.int32)))
    return compare_outputs(both[0], both[1], 0.06, 0.02)


def test_changes_among_near_ties_are_named_and_still_fail() -> None:
    reference = np.tile(np.float32([[0.5, 0.49, 0.0]]), (8, 1))
    parity = compared(reference, reference + np.float32([0, 0.02, 0]))
    assert parity.verdict == "failed"
    assert parity.labels_changed == 8
    assert "near-ties" in parity.note
    assert "1.0e-02" in parity.note


def test_changes_of_clear_labels_are_no_near_ties() -> None:
    reference = np.tile(np.float32([[0.9, 0.1, 0.0]]), (8, 1))
    parity = compared(reference, reference[:, ::-1].copy())
    assert parity.verdict == "failed"
    assert "near-ties" not in parity.note

"""By which tolerance outputs of a device are judged."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgekit.bundle import Parity
from edgekit.devices.collected import Collected
from edgekit.proof.golden import Golden, Step
from edgekit.proof.parity import OUTPUT


def golden(shift: float) -> Golden:
    """Three steps with logits of up to 10, all moved by `shift`."""
    logits = [np.array([[10.0, 1.0]]), np.array([[0.0, 4.0]]), np.array([[-3.0, 2.0]])]
    steps = tuple(Step(signature="s", inputs={}, outputs={OUTPUT: values + shift}) for values in logits)
    return Golden(steps=steps, labels=np.full(3, -1, np.int32))


def bundle(relative: float) -> Any:
    parity = Parity(verdict="within-tolerance", steps=3, tolerance=10 * relative, max_abs_reference=10.0)
    return SimpleNamespace(manifest=SimpleNamespace(parity=parity))


@pytest.mark.parametrize(
    ("accelerator", "relative", "shift", "verdict", "says"),
    [
        ("cpu", 1e-5, 5e-3, "failed", ""),  # a CPU has no excuse
        ("npu", 1e-5, 5e-3, "within-tolerance", "half precision"),
        ("gpu", 1e-5, 5e-5, "within-tolerance", ""),
        ("npu", 1e-5, 0.5, "failed", ""),
        ("npu", 0.06, 0.5, "within-tolerance", ""),  # a wider promise stays what it is
    ],
)
def test_half_precision_is_an_accelerators_own(
    accelerator: Any, relative: float, shift: float, verdict: str, says: str
) -> None:
    collected = Collected()
    collected.prove(bundle(relative), golden(0.0), golden(shift), accelerator)
    assert collected.parity.verdict == verdict
    assert says in collected.parity.note

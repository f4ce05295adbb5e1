"""Parity: are the outputs of an exported file those of the source model?"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle import Parity
from edgekit.proof.golden import Golden, Step, stack_outputs
from edgekit.proof.intervals import wilson_interval

OUTPUT = "logits"
#: what float16 is held to: it keeps 11 significant bits of each weight, or of each product and sum
HALF_TOLERANCE, HALF_COSINE = 2e-2, 0.9999
POSITIONS = ("start_logits", "end_logits")  # of question answering: the answer is a position
_MASK = "mask"


def compare_outputs(
    golden: Golden,
    produced: Golden,
    relative_tolerance: float,
    labels_changed_tolerance: float = 1.0,
    cosine_tolerance: float = 0.0,
) -> Parity:
    """Compare the produced outputs with the golden ones, over all steps.

    Within tolerance means |Δ| ≤ relative_tolerance · max(1, max |reference|) for every output, all of them finite, a
    share of changed labels (in [0, 1]) that is not over `labels_changed_tolerance` with 95 % confidence, and, for
    outputs that are no scores of labels, a mean cosine of at least `cosine_tolerance`. Outputs by token are compared
    where there are tokens: what a model gives for padding means nothing.
    """
    if len(produced.steps) != len(golden.steps):
        return _unlike(golden, f"{len(produced.steps)} of {len(golden.steps)} steps answered")
    names = tuple(dict.fromkeys(name for step in golden.steps for name in step.outputs))
    pairs = list(zip(golden.steps, produced.steps, strict=True))
    wrong = next((text for a, b in pairs for name in a.outputs if (text := _shape_problem(name, a, b))), None)
    if wrong:
        return _unlike(golden, wrong)
    if names == (OUTPUT,) and golden.steps[0].outputs[OUTPUT].ndim == 2:
        return _compare_labels(golden, produced, relative_tolerance, labels_changed_tolerance)
    of_name = {name: [pair for pair in pairs if name in pair[0].outputs] for name in names}
    # a model that writes is judged by whole texts: the likeliest token of a few steps would tell little
    compared = [_compare_output(name, of_name[name], relative_tolerance, answers=not golden.texts) for name in names]
    return _judge(golden, compared, labels_changed_tolerance, cosine_tolerance)


def _unlike(golden: Golden, note: str) -> Parity:
    return Parity(verdict="failed", steps=len(golden.steps), note=note)


def _shape_problem(name: str, reference: Step, produced: Step) -> str:
    if name not in produced.outputs:
        return f"no output {name!r}"
    wanted, found = (np.shape(step.outputs[name])[1:] for step in (reference, produced))
    return "" if wanted == found else f"outputs of shape {found}, not {wanted}"


def _compare_labels(
    golden: Golden, produced: Golden, relative_tolerance: float, labels_changed_tolerance: float
) -> Parity:
    """One vector of scores for each step, whose largest is the answer."""
    reference, outputs = (stack_outputs(each.steps, OUTPUT) for each in (golden, produced))
    non_finite = int(np.count_nonzero(~np.isfinite(outputs)))
    largest = float(np.max(np.abs(reference)))
    tolerance = relative_tolerance * max(1.0, largest)
    difference = None if non_finite else float(np.max(np.abs(outputs - reference)))
    changed = int(np.count_nonzero(np.argmax(outputs, 1) != np.argmax(reference, 1)))
    surely_changed, _ = wilson_interval(changed, len(golden.steps))
    equal = difference is not None and difference <= tolerance and surely_changed <= labels_changed_tolerance
    too_many = surely_changed > labels_changed_tolerance
    near = _near_ties(reference, outputs, tolerance) if too_many and not non_finite else ""
    return Parity(
        verdict="within-tolerance" if equal else "failed",
        steps=len(golden.steps),
        max_abs_difference=difference,
        tolerance=tolerance,
        max_abs_reference=largest,
        labels_changed=changed,
        labels_changed_tolerance=labels_changed_tolerance,
        non_finite_outputs=non_finite,
        note=_note(non_finite, changed, len(golden.steps), too_many) + near,
    )


def _near_ties(reference: NDArray[np.generic], outputs: NDArray[np.generic], tolerance: float) -> str:
    """What to add of changed labels that the source itself was nearly undecided about, by less than the tolerance."""
    best = np.sort(reference.astype(np.float64), 1)
    margins = (best[:, -1] - best[:, -2])[np.argmax(outputs, 1) != np.argmax(reference, 1)]
    if np.max(margins) > tolerance:
        return ""
    return f", all of them near-ties: the source's two best are at most {np.max(margins):.1e} apart there"


def _note(non_finite: int, changed: int, labels: int, too_many: bool) -> str:
    if non_finite:
        return f"{non_finite} outputs are NaN or infinite"
    return f"{changed} of {labels} labels changed, more than its scheme may change" if too_many else ""


@dataclass(frozen=True, kw_only=True)
class _Compared:
    """One output over all steps; `labels` are answers counted (0: it is no scores), `cosines` one for each step."""

    difference: float
    tolerance: float
    largest: float
    non_finite: int
    labels: int
    changed: int
    cosines: tuple[float, ...]


def _compare_output(
    name: str, pairs: list[tuple[Step, Step]], relative_tolerance: float, *, answers: bool
) -> _Compared:
    """One output over the steps that have it; with `answers`, logits are scores of labels."""
    difference, largest, non_finite, labels, changed = 0.0, 0.0, 0, 0, 0
    cosines = []
    for golden, produced in pairs:
        reference, output = (_real(step.outputs[name], golden) for step in (golden, produced))
        non_finite += int(np.count_nonzero(~np.isfinite(output)))
        largest = max(largest, float(np.max(np.abs(reference))))
        difference = max(difference, float(np.max(np.abs(output - reference))))
        if answers and name.endswith(OUTPUT):
            axis = 0 if name in POSITIONS else -1
            right = np.argmax(reference, axis)
            labels += right.size
            changed += int(np.count_nonzero(np.argmax(output, axis) != right))
        else:
            cosines.append(_cosine(output, reference))
    tolerance = relative_tolerance * max(1.0, largest)
    return _Compared(
        difference=difference,
        tolerance=tolerance,
        largest=largest,
        non_finite=non_finite,
        labels=labels,
        changed=changed,
        cosines=tuple(cosines),
    )


def _real(output: NDArray[np.generic], golden: Step) -> NDArray[np.float64]:
    """An output of one text without its batch axis, and without padding where it has a value for each token."""
    values = np.asarray(output, np.float64)[0] if np.ndim(output) else np.asarray(output, np.float64)
    mask = golden.inputs.get(_MASK)
    if mask is None or values.ndim == 0 or mask.shape[1] != len(values):
        return values
    return values[np.asarray(mask[0], bool)]


def _cosine(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    a, b = one.ravel(), other.ravel()
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norms if norms > 0 else float(np.array_equal(a, b))


def _judge(
    golden: Golden, compared: list[_Compared], labels_changed_tolerance: float, cosine_tolerance: float
) -> Parity:
    """The verdict over all outputs; differences are those of the output nearest to its tolerance."""
    nearest = max(compared, key=lambda each: each.difference / each.tolerance if each.non_finite == 0 else np.inf)
    non_finite = sum(each.non_finite for each in compared)
    labels, changed = sum(each.labels for each in compared), sum(each.changed for each in compared)
    cosines = [cosine for each in compared for cosine in each.cosines]
    cosine = float(np.mean(cosines)) if cosines and not non_finite else None
    surely_changed = wilson_interval(changed, labels)[0] if labels else 0.0
    too_many, too_far = surely_changed > labels_changed_tolerance, cosine is not None and cosine < cosine_tolerance
    far = f"the mean cosine {cosine:.5f} is under {cosine_tolerance:g}" if too_far else ""
    within = nearest.difference <= nearest.tolerance and not non_finite
    return Parity(
        verdict="within-tolerance" if within and not too_many and not too_far else "failed",
        steps=len(golden.steps),
        max_abs_difference=None if non_finite else nearest.difference,
        tolerance=nearest.tolerance,
        max_abs_reference=nearest.largest,
        labels_changed=changed if labels else None,
        labels_changed_tolerance=labels_changed_tolerance,
        labels=labels or None,
        cosine=cosine,
        cosine_tolerance=cosine_tolerance if cosines else None,
        non_finite_outputs=non_finite,
        note=_note(non_finite, changed, labels, too_many) or far,
    )

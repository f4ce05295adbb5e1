"""Quantized means quantized: what became of each weight, and the errors for schemes that took on nothing.

Quantizers skip what they don't know and say nothing, and some recipes change no weight at all. So every written file
is read back: each matrix must be stored in integers, and its values, unpacked, must differ from the source's by
more than nothing and by no more than one step.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import ExportError
from edgekit.export.jobs import Evidence, WeightEvidence

Floats = NDArray[np.float32]

#: rounding moves a weight by half a step; scales that are themselves rounded, and ranges cut for accuracy, by more
LARGEST_STEPS = 1.001
SHOWN = 10
_BYTE = ("int8", "uint8")
#: stored dtypes that a scheme may give a weight
DTYPES = {
    **dict.fromkeys(("int8-dynamic", "int8-weight", "int8", "int16x8"), _BYTE),
    "int4-weight": ("int4",),
    **{f"palette{bits}": (f"palette{bits}",) for bits in (4, 6, 8)},
}


@dataclass(frozen=True, kw_only=True)
class StoredWeight:
    """One quantized constant, unpacked.

    `values` has the source's shape; `step` is the distance between neighbouring values it could have, broadcast to that
    shape; `dtype` is how it is stored.
    """

    dtype: str
    values: Floats
    step: NDArray[Any]


def check_quantized(
    scheme: str,
    source: Mapping[str, Floats],
    stored: Mapping[str, StoredWeight],
    wanted: Mapping[str, str],
) -> Evidence:
    """Compare the quantized weights of a file with the float32 ones they were made from, by name.

    `wanted` are the weights that were to be quantized (those of products and tables), and the scheme of each; `scheme`
    names the whole. Every name is checked; a weight of several names counts once. Raises ExportError, naming the
    tensor, where none was quantized, one was left in float or has another type than its scheme's, or stored values are
    not the source's to within one step.
    """
    total = sum(values.size for values in _once(source).values() if is_matrix(values.shape))
    if not any(name in stored for name in wanted):
        raise ExportError(f"{scheme} did not take: not one of {len(wanted)} matrices of weights is quantized")
    for name in sorted(wanted, key=lambda name: (-source[name].size, name)):
        values = source[name]
        if name not in stored:
            share = f"{100 * values.size / total:.0f} % of all"
            raise ExportError(f"{scheme} left {name!r} {list(values.shape)} in float32, {share} weights of matrices")
        if stored[name].dtype not in DTYPES[wanted[name]]:
            asked = f"{stored[name].dtype}, not as {wanted[name]} has it"
            raise ExportError(f"{scheme} did not take: {name!r} is stored as {asked}")
    compared = {name: _compare(scheme, name, source[name], stored[name]) for name in source if name in stored}
    weights = [compared[name] for name in _once({name: source[name] for name in compared})]
    weights.sort(key=lambda weight: (-math.prod(weight.shape), weight.name))
    return Evidence(
        quantized_tensors=len(weights),
        quantized_elements=sum(math.prod(weight.shape) for weight in weights),
        matrix_elements=total,
        largest_difference_in_steps=max(weight.difference_in_steps for weight in weights),
        largest=tuple(weights[:SHOWN]),
    )


def _once(source: Mapping[str, Floats]) -> dict[str, Floats]:
    """Each weight by one of its names: several signatures read one array, each by a name of its own."""
    names: dict[int, str] = {}
    for name, values in source.items():
        names.setdefault(id(values), name)
    return {name: source[name] for name in names.values()}


def is_matrix(shape: tuple[int, ...]) -> bool:
    """Whether a constant is a matrix or table: at least two axes longer than 1. Biases and scales are not."""
    return sum(size > 1 for size in shape) >= 2


def nearest_step(values: Floats, table: Floats) -> NDArray[Any]:
    """A step for each value of a palette: twice the distance to its nearest entry, which is then half a step away."""
    entries = np.sort(table.ravel().astype(np.float64))
    right = np.clip(np.searchsorted(entries, values), 1, len(entries) - 1)
    return 2 * np.minimum(np.abs(values - entries[right - 1]), np.abs(values - entries[right])) + 1e-9


def unpack_int4(packed: NDArray[np.uint8], count: int) -> NDArray[np.int8]:
    """Two's complement nibbles, the low one first, as int8 [count]."""
    nibbles = np.stack([packed & 15, packed >> 4], axis=-1).ravel()[:count].astype(np.int8)
    return np.where(nibbles > 7, nibbles - 16, nibbles).astype(np.int8)


def _on_grid(source: Floats, stored: StoredWeight) -> bool:
    """Whether a weight is whole steps of its own already, no more than integers of 8 bits hold: after --qat it is."""
    integers = source / np.where(stored.step == 0, 1, stored.step)
    return bool(np.all(np.abs(integers - np.rint(integers)) < 1e-3) and np.max(np.abs(integers)) < 128.5)


def _compare(scheme: str, name: str, source: Floats, stored: StoredWeight) -> WeightEvidence:
    if stored.values.shape != source.shape:
        shapes = f"{list(stored.values.shape)}, not {list(source.shape)}"
        raise ExportError(f"{scheme} broke {name!r}: it unpacks to the shape {shapes}")
    difference = np.abs(stored.values.astype(np.float64) - source)
    steps = float(np.max(difference / np.maximum(stored.step, 1e-30)))
    if not steps <= LARGEST_STEPS:
        raise ExportError(f"{scheme} broke {name!r}: a weight is {steps:.2g} steps from the source's")
    if not np.any(difference) and np.unique(source[:64]).size > 2 and not _on_grid(source, stored):
        raise ExportError(f"{scheme} did not take: {name!r} is stored as {stored.dtype} but is exactly the source's")
    return WeightEvidence(
        name=name,
        dtype=stored.dtype,
        shape=source.shape,
        difference_in_steps=round(steps, 4),
        relative_difference=round(float(np.sqrt(np.mean(difference**2) / max(np.mean(source**2), 1e-30))), 6),
    )


def largest_evidence(found: Iterable[Evidence | None]) -> Evidence | None:
    """Of several files, what the scheme took on in the one with most weights."""
    return max((each for each in found if each), key=lambda each: each.matrix_elements, default=None)

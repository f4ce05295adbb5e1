"""Golden data: steps (signature, inputs, reference outputs) on real text, kept as `golden.npz`.

Keys are `{step:05d}/{signature}/in/{name}` and `…/out/{name}`, as the runner reads and writes them; `labels` holds
the index of the true label of each step, or -1 where there is none; `texts/{name}` are of a model that writes.
"""

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import BundleError
from edgekit.program import Signature

Arrays = dict[str, NDArray[np.generic]]
_TEXTS = "texts/"


@dataclass(frozen=True, kw_only=True)
class Step:
    """One call of a signature: its inputs and (in golden data) the outputs of the source model."""

    signature: str
    inputs: Arrays
    outputs: Arrays = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Golden:
    """Steps, and the true label of each (-1: unknown); `texts` are what `golden_texts.py` packs."""

    steps: tuple[Step, ...]
    labels: NDArray[np.int32]
    texts: Arrays = field(default_factory=dict)


def write_golden(path: Path, golden: Golden) -> None:
    """Write golden data; the same data gives the same bytes."""
    arrays: Arrays = {"labels": golden.labels.astype(np.int32)}
    arrays |= {f"{_TEXTS}{name}": value for name, value in golden.texts.items()}
    for index, step in enumerate(golden.steps):
        for kind, values in (("in", step.inputs), ("out", step.outputs)):
            arrays.update({f"{index:05d}/{step.signature}/{kind}/{name}": v for name, v in values.items()})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:  # np.savez stores the time of day
        for key, value in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{key}.npy"), "w") as member:
                np.lib.format.write_array(member, np.ascontiguousarray(value), allow_pickle=False)


def read_golden(path: Path) -> Golden:
    """Read golden data (or the outputs that the runner wrote for it).

    Raises BundleError where the file is missing or broken.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise BundleError(f"{path} can't be read: {error}") from error
    grouped: dict[int, tuple[str, dict[str, Arrays]]] = {}
    for key, value in arrays.items():
        parts = key.split("/", 3)
        if len(parts) == 4 and parts[0].isdigit() and parts[2] in ("in", "out"):
            _, kinds = grouped.setdefault(int(parts[0]), (parts[1], {"in": {}, "out": {}}))
            kinds[parts[2]][parts[3]] = value
    steps = tuple(Step(signature=s, inputs=k["in"], outputs=k["out"]) for _, (s, k) in sorted(grouped.items()))
    labels = arrays.get("labels", np.full(len(steps), -1, dtype=np.int32))
    if len(labels) != len(steps):
        raise BundleError(f"{path} is broken: {len(steps)} steps but {len(labels)} labels")
    texts = {key.removeprefix(_TEXTS): value for key, value in arrays.items() if key.startswith(_TEXTS)}
    return Golden(steps=steps, labels=labels.astype(np.int32), texts=texts)


def take_steps(golden: Golden, count: int) -> Golden:
    """Up to `count` of the steps, evenly spaced; of the same data always the same ones."""
    total = len(golden.steps)
    if total <= count:
        return golden
    chosen = [index * total // count for index in range(count)]
    return replace(golden, steps=tuple(golden.steps[index] for index in chosen), labels=golden.labels[chosen])


def stack_outputs(steps: Sequence[Step], name: str) -> NDArray[np.float64]:
    """One output of all steps as [steps, …] (the batch axis of 1 is dropped)."""
    return np.stack([np.asarray(step.outputs[name], dtype=np.float64).reshape(-1) for step in steps])


def text_steps(encoded: Mapping[str, NDArray[np.int32]], signature: str) -> tuple[Step, ...]:
    """One step of batch size 1 for each row of the encoded inputs ({"ids": [n, length], "mask": [n, length]})."""
    rows = len(next(iter(encoded.values())))
    return tuple(
        Step(signature=signature, inputs={name: value[i : i + 1] for name, value in encoded.items()})
        for i in range(rows)
    )


def fit_inputs(steps: Sequence[Step], signature: Signature) -> tuple[Step, ...]:
    """The steps with inputs of the types and ranks of `signature`: a mask may be float32 [1, 1, 1, length] there."""
    specs = {spec.name: spec for spec in signature.inputs}

    def fit(name: str, value: NDArray[np.generic]) -> NDArray[np.generic]:
        spec = specs[name]
        missing = (1,) * (len(spec.shape) - value.ndim)
        return value.astype(spec.dtype).reshape(value.shape[:-1] + missing + value.shape[-1:])

    return tuple(replace(step, inputs={name: fit(name, v) for name, v in step.inputs.items()}) for step in steps)

"""Compares a Core ML package, whoever made it, with the model that it is said to be."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.checkpoint import load_checkpoint
from edgekit.errors import BundleError, DataError, RefusedError
from edgekit.proof.golden import Arrays, Golden, Step, read_golden, write_golden
from edgekit.proof.replay import replay_steps
from edgekit.sources.checkpoint import SIGNATURE, checkpoint_logits

#: suffix of a file that something can be compared with → what runs it
RUNTIMES = {".mlpackage": "coreml", ".onnx": "onnxruntime", ".pt2": "torch", ".tflite": "litert"}
#: calls with random inputs, where none are given
CALLS = 4


@dataclass(frozen=True, kw_only=True)
class OutputDifference:
    """One output of all calls beside the reference's: `cosine` is of all values, `name` the package's own."""

    name: str
    max_abs_difference: float
    max_abs_reference: float
    cosine: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What a comparison showed; `operations` are the package's by kind, `float16` whether it computes in that."""

    calls: int
    outputs: tuple[OutputDifference, ...]
    operations: dict[str, int]
    float16: bool

    @property
    def compressed(self) -> bool:
        """Whether the package's weights are compressed."""
        return any(kind.startswith("constexpr_") for kind in self.operations)

    def holds(self, relative_tolerance: float) -> bool:
        """Whether |Δ| ≤ tolerance · max(1, max |reference|) for every output."""
        return all(
            each.max_abs_difference <= relative_tolerance * max(1.0, each.max_abs_reference) for each in self.outputs
        )


def compare_package(package: Path, against: Path, inputs: Path | None = None) -> Comparison:
    """Evaluate a package and run its reference on the same inputs.

    `against` is a checkpoint folder, a .pt2, .onnx, .tflite or another .mlpackage that takes inputs of the same names.
    `inputs` is a .npz of arrays by input name (one call) or of golden steps; None draws random ones that are valid.

    Raises RefusedError for what can't be compared, DataError for inputs that can't be read, RunnerError where either
    can't be run.
    """
    if package.suffix != ".mlpackage":
        raise RefusedError(f"{package} is no .mlpackage: --against compares Core ML packages")
    with tempfile.TemporaryDirectory(prefix="edgekit-against-") as folder:
        steps = Path(folder) / "steps.npz"
        if inputs is not None:
            write_golden(steps, _given(inputs))
        replay = replay_steps(package, "coreml", steps, random_steps=0 if inputs is not None else CALLS)
        reference = _reference(against, steps)
    return Comparison(
        calls=len(reference),
        outputs=tuple(_differences(replay.produced.steps, reference)),
        operations=replay.loaded.get("operations", {}),
        float16=bool(replay.loaded.get("float16")),
    )


def _given(path: Path) -> Golden:
    """The inputs of a file, as steps."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            named = {key: archive[key] for key in archive.files}
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"the inputs {path} can't be read: {error}") from error
    if any(key.split("/", 3)[2:3] == ["in"] for key in named):
        return read_golden(path)
    return Golden(steps=(Step(signature=SIGNATURE, inputs=named),), labels=np.full(1, -1, np.int32))


def _reference(against: Path, steps: Path) -> tuple[Step, ...]:
    if against.suffix in RUNTIMES:
        return replay_steps(against, RUNTIMES[against.suffix], steps).produced.steps
    if not (against / "config.json").is_file():
        known = ", ".join(RUNTIMES)
        raise RefusedError(f"{against} is nothing to compare with: it is neither a checkpoint folder nor a {known}")
    checkpoint = load_checkpoint(against)
    given = read_golden(steps).steps
    for step in given:
        if set(step.inputs) != {"ids", "mask"}:
            raise RefusedError(f"the checkpoint {against} takes ids and mask, the package {', '.join(step.inputs)}")
    return tuple(
        Step(signature=step.signature, inputs=step.inputs, outputs={"logits": _logits(checkpoint, step.inputs)})
        for step in given
    )


def _logits(checkpoint: Any, inputs: Arrays) -> NDArray[Any]:
    ids, mask = (inputs[name].astype(np.int32).reshape(len(inputs["ids"]), -1) for name in ("ids", "mask"))
    return checkpoint_logits(checkpoint, ids, mask)


def _differences(produced: Sequence[Step], reference: Sequence[Step]) -> list[OutputDifference]:
    if len(produced) != len(reference):
        raise BundleError(f"the package answered {len(produced)} calls, the reference {len(reference)}")
    names, others = list(produced[0].outputs), list(reference[0].outputs)
    pairs = [(name, name) for name in names if name in others]
    if not pairs and len(names) == len(others) == 1:
        pairs = [(names[0], others[0])]
    if not pairs:
        raise RefusedError(f"no output has the same name: {', '.join(names)} beside {', '.join(others)}")
    return [_difference(name, other, produced, reference) for name, other in pairs]


def _difference(name: str, other: str, produced: Sequence[Step], reference: Sequence[Step]) -> OutputDifference:
    for one, two in zip(produced, reference, strict=True):
        if one.outputs[name].shape != two.outputs[other].shape:
            shapes = f"{list(one.outputs[name].shape)}, the reference {list(two.outputs[other].shape)}"
            raise RefusedError(f"the output {name!r} has the shape {shapes}")
    ours = np.concatenate([step.outputs[name].astype(np.float64).ravel() for step in produced])
    theirs = np.concatenate([step.outputs[other].astype(np.float64).ravel() for step in reference])
    length = float(np.linalg.norm(ours) * np.linalg.norm(theirs))
    difference = np.max(np.abs(ours - theirs))
    return OutputDifference(
        name=name,
        max_abs_difference=float(difference) if np.isfinite(difference) else float("inf"),
        max_abs_reference=float(np.max(np.abs(theirs))),
        cosine=float(ours @ theirs) / length if length else 1.0,
    )

"""What a bundle holds beside its target file, made once by the worker that has a foreign source open.

Golden steps with the source's own outputs, calibration steps, the tokenizer with golden ids, labels, and the signature,
which for such sources is known only when they have run.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from edgekit.bundle import GOLDEN, LABELS, PREPROCESSOR, TOKENIZER, TOKENS, write_labels
from edgekit.export.quantize.calibration import CalibrationRecord
from edgekit.program import Program, Signature, SourceRef
from edgekit.proof.golden import Arrays, Golden, Step, write_golden

PREPARED, CALIBRATION = "prepared.json", "calibration.npz"
#: golden outputs may take this much room; a language model's logits for one text of 128 tokens are 15 MB
GOLDEN_BYTES = 64_000_000
LEAST_STEPS = 4

Run = Callable[[str, Arrays], Arrays]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Texts(_Record):
    """The texts that a source is run on, tokenized and calibrated with, and where each are from."""

    samples: tuple[str, ...]
    origin: str
    calibration: tuple[str, ...] = ()
    calibration_origin: str = ""
    calibration_asked: int = 0


class Prepared(_Record):
    """What the worker found: the signatures, labels in the order of the logits, where the golden inputs are from, what
    was calibrated with, and the files that every bundle gets.
    """

    signatures: tuple[Signature, ...]
    labels: tuple[str, ...] = ()
    origin: str
    calibration: CalibrationRecord | None = None
    files: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a source is run on: golden and calibration steps without outputs, and what else is known of it."""

    steps: tuple[Step, ...]
    origin: str
    calibration: tuple[Step, ...] = ()
    record: CalibrationRecord | None = None
    labels: tuple[str, ...] = ()


def prepare(source: SourceRef, program: Program, texts: Texts, run: Run, folder: Path) -> int:
    """Fill `folder` for bundles of `source`; `run` calls a signature of the program. Returns how many golden steps."""
    folder.mkdir()
    if source.kind == "huggingface":
        from edgekit.export import prepare_hub

        inputs = prepare_hub.make_inputs(source, program, texts, folder)
    else:
        from edgekit.export import prepare_arrays

        inputs = prepare_arrays.make_inputs(program, source)
    signature = program.signatures[0]
    steps = tuple(
        Step(signature=signature.name, inputs=step.inputs, outputs=run(signature.name, step.inputs))
        for step in inputs.steps[: affordable(signature, len(inputs.steps))]
    )
    write_golden(folder / GOLDEN, Golden(steps=steps, labels=np.full(len(steps), -1, np.int32)))
    if inputs.calibration:
        unknown = np.full(len(inputs.calibration), -1, np.int32)
        write_golden(folder / CALIBRATION, Golden(steps=inputs.calibration, labels=unknown))
    if inputs.labels:
        write_labels(folder / LABELS, inputs.labels)
    kept = tuple(name for name in (TOKENIZER, TOKENS, PREPROCESSOR, LABELS) if (folder / name).is_file())
    prepared = Prepared(
        signatures=program.signatures,
        labels=inputs.labels,
        origin=inputs.origin,
        calibration=inputs.record,
        files=kept,
    )
    (folder / PREPARED).write_text(prepared.model_dump_json(indent=2), encoding="utf-8")
    return len(steps)


def affordable(signature: Signature, asked: int) -> int:
    """How many of `asked` golden steps there is room for, by the size of their outputs."""
    size = sum(4 * int(np.prod(spec.shape)) for spec in signature.outputs)
    return min(asked, max(LEAST_STEPS, GOLDEN_BYTES // max(1, size)))


def read_prepared(folder: Path) -> Prepared:
    """What `prepare` wrote."""
    return Prepared.model_validate_json((folder / PREPARED).read_bytes())

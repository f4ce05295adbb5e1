"""What the candidates of a sweep are run on: texts of the validation part, with labels, or to foretell by token."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.checkpoint import Checkpoint
from edgekit.errors import DataError
from edgekit.proof.golden_texts import pack_texts
from edgekit.proof.held_out_texts import choose_scored_texts
from edgekit.proof.prove import choose_samples
from edgekit.sources.writers import check_writer, writer_signatures


@dataclass(frozen=True, kw_only=True)
class SweepTexts:
    """The texts: `count` of them and where they are from, what a score depends on of them, and how they are written.

    `reference` and `conversion` are fields of the jobs that run the source on them and convert it.
    """

    origin: str
    count: int
    arrays: tuple[NDArray[Any], ...]
    write: Callable[[Path], None]
    reference: dict[str, Any]
    conversion: dict[str, Any] = field(default_factory=dict)


def choose_sweep_texts(checkpoint: Checkpoint, count: int | None) -> SweepTexts:
    """`count` texts of the validation part (None: all); raises DataError where the data can't be read again."""
    if checkpoint.config.task != "classify":
        return _to_foretell(checkpoint, count)
    samples = choose_samples(checkpoint, count, "validation")
    if samples.note:
        raise DataError(f"{samples.note.removeprefix('not measured: ')}; candidates are compared on its texts")
    return SweepTexts(
        origin=samples.origin,
        count=len(samples.ids),
        arrays=(samples.ids, samples.mask, samples.labels),
        write=samples.write_steps,
        reference={"op": "reference"},
    )


def _to_foretell(checkpoint: Checkpoint, count: int | None) -> SweepTexts:
    check_writer(checkpoint, "this sweep")
    try:
        samples = choose_scored_texts(checkpoint, "validation", count)
    except DataError as error:
        raise DataError(f"{error}; candidates are compared on its texts") from error
    packed, signatures = pack_texts(samples.texts), writer_signatures(checkpoint.config)
    return SweepTexts(
        origin=samples.origin,
        count=len(samples.texts.scored),
        arrays=tuple(np.asarray(array) for array in packed.values()),
        write=samples.write,
        reference={"op": "write", "signatures": signatures},
        conversion={"signatures": signatures},
    )

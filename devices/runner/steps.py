"""The steps file: arrays keyed `{step:05d}/{signature}/in/{name}`, answered by `{step:05d}/{signature}/out/{name}`."""

import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .failures import RunError

Arrays = dict[str, Any]  # name → numpy array


class Step(NamedTuple):
    """One call: the step's number as it stands in the keys, the signature, and the inputs by name."""

    number: str
    signature: str
    inputs: Arrays


def read_steps(path: str) -> list[Step]:
    """Read the inputs of every step, in order; other keys (reference outputs, labels) are passed over.

    Raises RunError("bad-input") where the file can't be read, holds pickles, or has no step.
    """
    found: dict[tuple[str, str], Arrays] = {}
    try:
        with np.load(path, allow_pickle=False) as archive:
            for key in archive.files:
                parts = key.split("/", 3)
                if len(parts) == 4 and parts[0].isdigit() and parts[2] == "in":
                    found.setdefault((parts[0], parts[1]), {})[parts[3]] = archive[key]
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise RunError("bad-input", f"can't read the steps {path}: {error}") from error
    if not found:
        raise RunError("bad-input", f"{path} holds no step")
    return [Step(number, signature, inputs) for (number, signature), inputs in sorted(found.items())]


def write_outputs(path: str, outputs: list[tuple[Step, Arrays]]) -> None:
    """Write the outputs of all steps at once; a reader finds the whole file or none."""
    arrays = {
        f"{step.number}/{step.signature}/out/{name}": value
        for step, produced in outputs
        for name, value in produced.items()
    }
    new = Path(f"{path}.new")
    with new.open("wb") as stream:
        np.savez(stream, **arrays)
    new.replace(path)

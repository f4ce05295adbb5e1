"""The state of an interrupted training: a folder beside the output, of safetensors and JSON."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict
from safetensors.numpy import save

from edgekit.checkpoint import read_json, read_tensors, write_json
from edgekit.errors import CheckpointError
from edgekit.model.config import TransformerConfig
from edgekit.model.weights import Weights
from edgekit.outputs import atomic_directory
from edgekit.text.datasets import DataRecord
from edgekit.text.processor import Processor
from edgekit.train.loop import Position
from edgekit.train.settings import TrainSettings

STATE_FILE = "state.json"
TENSORS_FILE = "state.safetensors"
TOKENIZER_FILE = "tokenizer.json"
_BEST = "best/"


class StateHeader(BaseModel):
    """What state.json holds: all that is not a tensor."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    edgekit_training_state: Literal[1] = 1
    settings: TrainSettings
    data: DataRecord
    config: TransformerConfig
    position: Position
    seconds: float
    teacher_sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class TrainingState:
    """An interrupted training: `tensors` is the trainer's own state, `best_weights` those of the best epoch so far."""

    header: StateHeader
    processor: Processor
    tensors: Weights
    best_weights: Weights | None


def state_path(output: Path) -> Path:
    """Return where the state of a training with this output is kept."""
    return output.with_name(f"{output.name}.interrupted")


def save_state(state: TrainingState, output: Path) -> Path:
    """Write the state in one step, over an older one, and return its folder."""
    path = state_path(output)
    best = {f"{_BEST}{name}": tensor for name, tensor in (state.best_weights or {}).items()}
    with atomic_directory(path, force=True, marker=STATE_FILE) as folder:
        (folder / TENSORS_FILE).write_bytes(save({**state.tensors, **best}))
        state.processor.save(folder / TOKENIZER_FILE)
        write_json(folder / STATE_FILE, state.header.model_dump(mode="json"))
    return path


def load_state(output: Path) -> TrainingState:
    """Read the state of the training with this output.

    Raises CheckpointError where there is none or it is broken.
    """
    path = state_path(output)
    if not path.is_dir():
        raise CheckpointError(f"there is nothing to resume: {path} does not exist (give the same -o as before)")
    tensors = read_tensors(path / TENSORS_FILE)
    best = {name.removeprefix(_BEST): tensor for name, tensor in tensors.items() if name.startswith(_BEST)}
    return TrainingState(
        header=read_json(path / STATE_FILE, StateHeader),
        processor=Processor.load(path / TOKENIZER_FILE),
        tensors={name: tensor for name, tensor in tensors.items() if not name.startswith(_BEST)},
        best_weights=best or None,
    )


def remove_state(output: Path) -> None:
    """Remove the state of a training that has ended; nothing else is touched."""
    path = state_path(output)
    if (path / STATE_FILE).is_file():
        shutil.rmtree(path)

"""Checkpoints: config, weights, processor, labels and where the data came from, in a folder of plain files.

Framework-neutral: trained in one framework, a checkpoint loads in the other. Nothing in it can run code.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load, save

from edgekit.errors import CheckpointError, RefusedError
from edgekit.model.config import TransformerConfig
from edgekit.model.weights import Weights, check_weights
from edgekit.outputs import atomic_directory
from edgekit.program import Framework
from edgekit.text.datasets import DataRecord
from edgekit.text.processor import PAD_ID, Processor

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
TOKENIZER_FILE = "tokenizer.json"
LABELS_FILE = "labels.json"
DATA_FILE = "data.json"
METRICS_FILE = "metrics.json"

_CODE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".h5", ".hdf5", ".keras", ".npy", ".joblib")
_MODEL = TypeVar("_MODEL", bound=BaseModel)


class CheckpointConfig(BaseModel):
    """What config.json holds: the schema's number, the framework that trained the model, and its configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    edgekit_checkpoint: Literal[1] = 1
    framework: Framework
    model: TransformerConfig


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A trained model and everything needed to use it.

    `framework` is the one that trained it, and so the one that references are computed with; `metrics` is
    metrics.json as it is.
    """

    path: Path
    name: str
    framework: Framework
    config: TransformerConfig
    weights: Weights
    processor: Processor
    labels: tuple[str, ...]
    data: DataRecord | None
    metrics: dict[str, Any] | None


def embedded_checkpoint_path() -> Path:
    """Return the folder of the default model that ships with edgekit: 40 languages of interface text."""
    return Path(__file__).parent / "assets" / "language-id"


def load_checkpoint(path: Path) -> Checkpoint:
    """Read and check a checkpoint folder.

    Raises CheckpointError, one line, for anything missing, broken, inconsistent or unsafe.
    """
    _check_folder(path)
    header = read_json(path / CONFIG_FILE, CheckpointConfig)
    config = header.model
    weights = _read_weights(path / WEIGHTS_FILE, config)
    processor = Processor.load(path / TOKENIZER_FILE)
    _check_processor(path, processor, config)
    metrics = _read_plain_json(path / METRICS_FILE) if (path / METRICS_FILE).exists() else None
    if metrics is not None and not isinstance(metrics, dict):
        raise CheckpointError(f"{path / METRICS_FILE} is not a JSON object")
    return Checkpoint(
        path=path,
        name=path.resolve().name,
        framework=header.framework,
        config=config,
        weights=weights,
        processor=processor,
        labels=_read_labels(path / LABELS_FILE, config.num_labels),
        data=read_json(path / DATA_FILE, DataRecord) if (path / DATA_FILE).exists() else None,
        metrics=metrics,
    )


def check_classifier(checkpoint: Checkpoint, what: str) -> None:
    """Raise RefusedError, naming what is asked for, unless a checkpoint is a classifier's."""
    if checkpoint.config.task != "classify":
        raise RefusedError(
            f"{what} takes classifiers only so far; {checkpoint.name} was trained with --task {checkpoint.config.task}"
        )


def save_checkpoint(checkpoint: Checkpoint, path: Path, *, force: bool = False) -> None:
    """Write a checkpoint folder in one step; an existing one is kept unless `force`.

    Raises CheckpointError for weights that `load_checkpoint` would refuse, OutputError where it can't be written.
    """
    check_weights(checkpoint.config, checkpoint.weights)
    header = CheckpointConfig(framework=checkpoint.framework, model=checkpoint.config)
    with atomic_directory(path, force=force, marker=CONFIG_FILE) as folder:
        (folder / WEIGHTS_FILE).write_bytes(save(checkpoint.weights))
        checkpoint.processor.save(folder / TOKENIZER_FILE)
        write_json(folder / LABELS_FILE, list(checkpoint.labels))
        if checkpoint.data is not None:
            write_json(folder / DATA_FILE, checkpoint.data.model_dump(mode="json"))
        if checkpoint.metrics is not None:
            write_json(folder / METRICS_FILE, checkpoint.metrics)
        write_json(folder / CONFIG_FILE, header.model_dump(mode="json"))


def content_sha256(path: Path) -> str:
    """Return the sha256 of what makes a checkpoint's answers: config, weights, tokenizer and labels.

    Raises CheckpointError where one of them can't be read.
    """
    digest = hashlib.sha256()
    for name in (CONFIG_FILE, WEIGHTS_FILE, TOKENIZER_FILE, LABELS_FILE):
        digest.update(f"{name} {hashlib.sha256(read_bytes(path / name)).hexdigest()}\n".encode())
    return digest.hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Write JSON as edgekit does everywhere: UTF-8, indented, a newline at the end."""
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def read_json(path: Path, model: type[_MODEL]) -> _MODEL:
    """Read a JSON file of a checkpoint into a pydantic model; raises CheckpointError with the first thing wrong."""
    try:
        return model.model_validate_json(read_bytes(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise CheckpointError(f"{path} is invalid: {f'{where}: ' if where else ''}{first['msg']}") from error


def read_bytes(path: Path) -> bytes:
    """Read a file of a checkpoint; raises CheckpointError where it is missing or unreadable."""
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise CheckpointError(f"the checkpoint {path.parent} has no {path.name}: it is not complete") from error
    except OSError as error:
        raise CheckpointError(f"can't read {path}: {error.strerror}") from error


def read_tensors(path: Path) -> Weights:
    """Read a safetensors file, unchecked; raises CheckpointError for anything that is not one."""
    content = read_bytes(path)
    try:
        return load(content)
    except (SafetensorError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise CheckpointError(f"{path} {_explained(content, error)}") from error


def _explained(content: bytes, error: Exception) -> str:
    """Say what a file that is not safetensors is, by its first bytes; it is never opened as that."""
    if content[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05") or content[:4] == b"PK\x03\x04":
        return "is a pickle (or zip) under another name: it could run code and is not loaded; save it as safetensors"
    if content[:4] == b"\x89HDF":
        return "is an HDF5 file under another name and is not loaded; save it as safetensors"
    return f"is truncated or not safetensors: {str(error).splitlines()[0]}"


def _check_folder(path: Path) -> None:
    if path.is_file():
        if path.suffix.lower() in _CODE_SUFFIXES:
            raise CheckpointError(_pickle_message(path))
        raise CheckpointError(f"{path} is a file: a checkpoint is a folder with {CONFIG_FILE} and {WEIGHTS_FILE}")
    if not path.is_dir():
        raise CheckpointError(f"there is no checkpoint {path}: train one with edgekit train -o {path}")
    if not (path / WEIGHTS_FILE).exists():
        for file in sorted(path.iterdir()):
            if file.suffix.lower() in _CODE_SUFFIXES:
                raise CheckpointError(_pickle_message(file))


def _pickle_message(path: Path) -> str:
    return f"{path}: weights in a {path.suffix} file can run code and are not loaded; save them as {WEIGHTS_FILE}"


def _read_weights(path: Path, config: TransformerConfig) -> Weights:
    weights = read_tensors(path)
    try:
        check_weights(config, weights)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    return weights


def _read_plain_json(path: Path) -> Any:
    try:
        return json.loads(read_bytes(path))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from error


def _read_labels(path: Path, num_labels: int) -> tuple[str, ...]:
    labels = _read_plain_json(path)
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise CheckpointError(f"{path} must be a JSON list of strings")
    if len(labels) != num_labels or len(set(labels)) != num_labels:
        raise CheckpointError(f"{path} holds {len(set(labels))} different labels; {CONFIG_FILE} says {num_labels}")
    return tuple(labels)


def _check_processor(path: Path, processor: Processor, config: TransformerConfig) -> None:
    if processor.vocab_size > config.vocab_size:
        raise CheckpointError(
            f"{path / TOKENIZER_FILE} has {processor.vocab_size} ids; {CONFIG_FILE} has room for {config.vocab_size}"
        )
    if processor.max_length > config.max_length:
        raise CheckpointError(
            f"{path / TOKENIZER_FILE} gives up to {processor.max_length} ids; {CONFIG_FILE} takes {config.max_length}"
        )
    if processor.writes != (config.task != "classify"):
        needed = "[BOS] and [EOS]" if config.task != "classify" else "[CLS]"
        raise CheckpointError(f"{path / TOKENIZER_FILE}: a model to {config.task} needs a tokenizer with {needed}")
    if config.pad_id != PAD_ID:
        raise CheckpointError(f"{path / CONFIG_FILE}: pad_id is {config.pad_id}; the tokenizer pads with {PAD_ID}")

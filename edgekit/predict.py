"""Labels for texts, from a checkpoint (in its framework) or from a bundle (in its runtime)."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle import MANIFEST, TOKENIZER, Bundle, Manifest, open_bundle, read_labels
from edgekit.checkpoint import Checkpoint, load_checkpoint
from edgekit.errors import RefusedError
from edgekit.program import WRITING_TASKS
from edgekit.proof.golden import Golden, Step, fit_inputs, stack_outputs, write_golden
from edgekit.proof.parity import OUTPUT
from edgekit.proof.replay import replay_steps
from edgekit.sources.checkpoint import checkpoint_logits
from edgekit.text.hub_tokenizer import HubTokenizer
from edgekit.text.processor import Processor, pad_ids

Prediction = tuple[tuple[str, float], ...]  # (label, probability), the most probable first


def predict_texts(path: Path, texts: Sequence[str], *, top_k: int = 3) -> list[Prediction]:
    """The `top_k` most probable labels of each text.

    Raises CheckpointError or BundleError for a broken `path`, MissingExtraError without a framework, RunnerError
    without a runtime.
    """
    if (path / MANIFEST).is_file():
        bundle = open_bundle(path)
        _check_predictable(bundle)
        labels, logits = read_labels(bundle), _bundle_logits(bundle, texts)
    else:
        checkpoint = load_checkpoint(path)
        if checkpoint.config.task in WRITING_TASKS:
            raise RefusedError(f"{path} writes texts, it gives no labels: use `edgekit {checkpoint.config.task}`")
        labels, logits = checkpoint.labels, _checkpoint_logits(checkpoint, texts)
    return [_most_probable(labels, row, top_k) for row in logits]


def count_cut(path: Path, texts: Sequence[str]) -> tuple[int, int]:
    """How many of the texts are longer than the model of a checkpoint or bundle takes, and what it takes, in tokens."""
    processor = _load_tokenizer(path)
    return sum(map(processor.is_cut, texts)), processor.max_length


def _check_predictable(bundle: Bundle) -> None:
    """Raise RefusedError for a bundle whose answer is not one label for a text."""
    task = bundle.manifest.task
    if task in WRITING_TASKS:
        raise RefusedError(f"{bundle.path} writes texts, it gives no labels: use `edgekit {task}`")
    if task not in ("classify", "text-classification"):
        raise RefusedError(f"{bundle.path} is of {task}, which gives no label for a text: its README.md shows its call")


def _load_tokenizer(path: Path) -> Processor | HubTokenizer:
    """The tokenizer of a checkpoint or bundle; a foreign model's where its manifest says so."""
    foreign = (path / MANIFEST).is_file() and open_bundle(path).manifest.task != "classify"
    return HubTokenizer.load(path / TOKENIZER) if foreign else Processor.load(path / TOKENIZER)


def _bundle_logits(bundle: Bundle, texts: Sequence[str]) -> NDArray[np.float64]:
    """Each text by the shortest signature that holds it; one that none holds is cut."""
    manifest = bundle.manifest
    processor = _load_tokenizer(bundle.path)
    steps = tuple(_text_step(manifest, ids) for ids in processor.encode(texts))
    with tempfile.TemporaryDirectory(prefix="edgekit-predict-") as folder:
        path = Path(folder) / "steps.npz"
        write_golden(path, Golden(steps=steps, labels=np.full(len(steps), -1, np.int32)))
        produced = replay_steps(bundle.model_path, manifest.runtime, path).produced
    return stack_outputs(produced.steps, OUTPUT)


def _text_step(manifest: Manifest, ids: Sequence[int]) -> Step:
    length = manifest.length_for(len(ids))
    padded, mask = pad_ids([ids[:length]], length)
    name = manifest.lengths.get(length, manifest.signatures[0].name)
    signature = next(each for each in manifest.signatures if each.name == name)
    return fit_inputs((Step(signature=name, inputs={"ids": padded, "mask": mask}),), signature)[0]


def _checkpoint_logits(checkpoint: Checkpoint, texts: Sequence[str]) -> NDArray[np.float64]:
    return checkpoint_logits(checkpoint, *checkpoint.processor.encode_padded(texts, checkpoint.config.max_length))


def _most_probable(labels: Sequence[str], logits: NDArray[np.float64], top_k: int) -> Prediction:
    exponentials = np.exp(logits - logits.max())
    probabilities = exponentials / exponentials.sum()
    order = np.argsort(-probabilities, kind="stable")[:top_k]
    return tuple((labels[i], float(probabilities[i])) for i in order)

"""Labels for texts, from a checkpoint (in its framework) or from a bundle (in its runtime)."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle import MANIFEST, TOKENIZER, Bundle, open_bundle, read_labels
from edgekit.checkpoint import Checkpoint, load_checkpoint
from edgekit.proof.golden import Golden, fit_inputs, stack_outputs, text_steps, write_golden
from edgekit.proof.parity import OUTPUT
from edgekit.proof.replay import replay_steps
from edgekit.sources.checkpoint import checkpoint_logits
from edgekit.text.processor import Processor

Prediction = tuple[tuple[str, float], ...]  # (label, probability), the most probable first


def predict_texts(path: Path, texts: Sequence[str], *, top_k: int = 3) -> list[Prediction]:
    """The `top_k` most probable labels of each text.

    Raises CheckpointError or BundleError for a broken `path`, MissingExtraError without a framework, RunnerError
    without a runtime.
    """
    if (path / MANIFEST).is_file():
        bundle = open_bundle(path)
        labels, logits = read_labels(bundle), _bundle_logits(bundle, texts)
    else:
        checkpoint = load_checkpoint(path)
        labels, logits = checkpoint.labels, _checkpoint_logits(checkpoint, texts)
    return [_most_probable(labels, row, top_k) for row in logits]


def _bundle_logits(bundle: Bundle, texts: Sequence[str]) -> NDArray[np.float64]:
    manifest = bundle.manifest
    signature = manifest.signatures[0]
    processor = Processor.load(bundle.path / TOKENIZER)
    ids, mask = processor.encode_padded(texts, signature.inputs[0].shape[1])
    steps = fit_inputs(text_steps({"ids": ids, "mask": mask}, signature.name), signature)
    with tempfile.TemporaryDirectory(prefix="edgekit-predict-") as folder:
        path = Path(folder) / "steps.npz"
        write_golden(path, Golden(steps=steps, labels=np.full(len(steps), -1, np.int32)))
        produced = replay_steps(bundle.model_path, manifest.runtime, path).produced
    return stack_outputs(produced.steps, OUTPUT)


def _checkpoint_logits(checkpoint: Checkpoint, texts: Sequence[str]) -> NDArray[np.float64]:
    return checkpoint_logits(checkpoint, *checkpoint.processor.encode_padded(texts, checkpoint.config.max_length))


def _most_probable(labels: Sequence[str], logits: NDArray[np.float64], top_k: int) -> Prediction:
    exponentials = np.exp(logits - logits.max())
    probabilities = exponentials / exponentials.sum()
    order = np.argsort(-probabilities, kind="stable")[:top_k]
    return tuple((labels[i], float(probabilities[i])) for i in order)

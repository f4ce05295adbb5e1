"""A checkpoint whose own answers are the labels of its data: every label that quantization changes is an error."""

from itertools import product
from pathlib import Path

import numpy as np

from edgekit.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from edgekit.model.config import TransformerConfig
from edgekit.model.pytorch import build_encoder
from edgekit.model.weights import initial_weights
from edgekit.text.datasets import DataSpec, load_dataset
from edgekit.text.processor import train_processor
from edgekit.text.splits import SplitRule
from tests.tiny import THINGS, VERBS

LENGTH = 16


def self_labelled_checkpoint(folder: Path, *, seed: int = 1, num_labels: int = 6) -> Checkpoint:
    """One layer of random weights with the whole text in view; 60 % of 512 texts are validation."""
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    config = TransformerConfig(
        vocab_size=259,
        num_labels=num_labels,
        max_length=LENGTH,
        hidden_size=32,
        num_layers=1,
        num_heads=2,
        ffn_size=64,
        pooling="mean",
    )
    weights = {name: 2 * tensor for name, tensor in initial_weights(config, seed).items()}
    processor = train_processor("byte", (), 259, max_length=LENGTH)
    texts = [f"{a} {b}{mark}" for a, b, mark in product(VERBS, THINGS, (".", "!", "?", "s", "ed", "", " 1", " 2"))]
    ids, mask = processor.encode_padded(texts, LENGTH)
    with torch.inference_mode():
        logits = build_encoder(config, weights)(torch.from_numpy(ids), torch.from_numpy(mask)).numpy()
    weights["classifier.bias"] = weights["classifier.bias"] - logits.mean(0).astype(np.float32)  # every label is used
    with torch.inference_mode():
        logits = build_encoder(config, weights)(torch.from_numpy(ids), torch.from_numpy(mask)).numpy()
    labels = [f"label{index}" for index in np.argmax(logits, 1)]
    data = folder / "data.tsv"
    data.write_text("text\tlabel\n" + "".join(f"{t}\t{label}\n" for t, label in zip(texts, labels, strict=True)))
    dataset = load_dataset(DataSpec(source=str(data), split=SplitRule(validation=0.6)))
    assert dataset.labels == tuple(f"label{index}" for index in range(num_labels))
    made = Checkpoint(
        path=folder / "own",
        name="own",
        framework="torch",
        config=config,
        weights=weights,
        processor=processor,
        labels=dataset.labels,
        data=dataset.record,
        metrics=None,
    )
    save_checkpoint(made, made.path)
    return load_checkpoint(made.path)

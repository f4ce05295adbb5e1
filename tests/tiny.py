"""Tiny real checkpoints, for tests that need one: built in milliseconds, with data that can be read again."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from edgekit.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from edgekit.model.config import TransformerConfig
from edgekit.model.weights import initial_weights
from edgekit.program import Framework, ModelTask
from edgekit.text.corpora import load_corpus
from edgekit.text.datasets import DataSpec, load_dataset
from edgekit.text.processor import train_processor

VERBS = ("open", "close", "save", "print", "send", "delete", "copy", "move")
THINGS = ("file", "window", "letter", "picture", "folder", "answer", "page", "song")


def write_data(path: Path) -> Path:
    """A TSV of 128 short commands in two languages."""
    rows = [(f"{verb} the {thing}", "en") for verb in VERBS for thing in THINGS]
    rows += [(f"{thing}um {verb}are", "la") for verb in VERBS for thing in THINGS]
    path.write_text("text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows))
    return path


def tiny_checkpoint(folder: Path, *, framework: Framework = "torch", seed: int = 1, **overrides: Any) -> Checkpoint:
    """A checkpoint of random weights (larger than fresh ones, so that logits differ) in `folder`/tiny."""
    spec = DataSpec(source=str(write_data(folder / "data.tsv")))
    dataset = load_dataset(spec)
    shape = {"hidden_size": 16, "num_layers": 2, "num_heads": 2, "ffn_size": 32, "max_length": 16} | overrides
    processor = train_processor("byte", (), 259, max_length=shape["max_length"])
    config = TransformerConfig(vocab_size=processor.vocab_size, num_labels=len(dataset.labels), **shape)
    weights = {name: 2 * tensor for name, tensor in initial_weights(config, seed).items()}
    made = Checkpoint(
        path=folder / "tiny",
        name="tiny",
        framework=framework,
        config=config,
        weights=weights,
        processor=processor,
        labels=dataset.labels,
        data=dataset.record,
        metrics=None,
    )
    save_checkpoint(made, made.path)
    return load_checkpoint(made.path)


def loud_checkpoint(folder: Path) -> Checkpoint:
    """A checkpoint in `folder`/loud whose activations are in the thousands: their squares leave float16's range."""
    made = tiny_checkpoint(folder, norm="rmsnorm")
    weights = made.weights | {"embed.tokens.weight": 1500 * made.weights["embed.tokens.weight"]}
    for index in range(made.config.num_layers):
        for part in ("attention.output", "ffn.down"):  # as loud as the tokens, so that the blocks still matter
            weights[f"blocks.{index}.{part}.weight"] = 500 * weights[f"blocks.{index}.{part}.weight"]
    save_checkpoint(replace(made, path=folder / "loud", name="loud", weights=weights), folder / "loud")
    return load_checkpoint(folder / "loud")


def write_pairs(path: Path) -> Path:
    """A TSV of 64 short commands and their translation."""
    rows = [(f"{verb} the {thing}", f"{thing}um {verb}are") for verb in VERBS for thing in THINGS]
    path.write_text("source\ttarget\n" + "".join(f"{source}\t{target}\n" for source, target in rows))
    return path


def tiny_writer(folder: Path, task: ModelTask, *, framework: Framework = "torch", **overrides: Any) -> Checkpoint:
    """A checkpoint of random weights that generates or translates, in `folder`/TASK."""
    spec = DataSpec(source=str(write_pairs(folder / "pairs.tsv")), task=task, text_column="target")
    corpus = load_corpus(spec)
    shape = {"hidden_size": 32, "num_layers": 2, "num_heads": 2, "ffn_size": 64, "max_length": 40} | overrides
    processor = train_processor("byte", (), 260, max_length=shape["max_length"], writes=True)
    config = TransformerConfig(task=task, vocab_size=processor.vocab_size, **shape)
    weights = {name: 1.25 * tensor for name, tensor in initial_weights(config, 1).items()}
    made = Checkpoint(
        path=folder / task,
        name=task,
        framework=framework,
        config=config,
        weights=weights,
        processor=processor,
        labels=(),
        data=corpus.record,
        metrics=None,
    )
    save_checkpoint(made, made.path)
    return load_checkpoint(made.path)

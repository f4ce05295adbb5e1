"""Models that write, small, with random weights: live programs, and bundles of real files made from them."""

import functools
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.bundle import GOLDEN, TOKENIZER, Accuracy, Bundle, Parity, open_bundle, seal_bundle
from edgekit.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from edgekit.model.config import TransformerConfig
from edgekit.model.weights import Weights, initial_weights
from edgekit.program import Program, SourceRef
from edgekit.proof.golden import Golden, Step, write_golden
from edgekit.sources.writers import build_writer_program
from edgekit.text.datasets import DataRecord, DataSpec
from edgekit.text.processor import train_processor
from edgekit.text.splits import SplitRule

CONTEXT = 24
LLAMA: dict[str, Any] = {
    "norm": "rmsnorm",
    "positions": "rotary",
    "activation": "silu",
    "gated_ffn": True,
    "linear_bias": False,
    "num_kv_heads": 2,
}
SIZES: dict[str, Any] = {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "ffn_size": 48, "max_length": CONTEXT}


def writer_config(task: str, **overrides: Any) -> TransformerConfig:
    return TransformerConfig.model_validate({"task": task, "vocab_size": 260, **SIZES, **LLAMA, **overrides})


def loud_weights(config: TransformerConfig, seed: int = 0) -> Weights:
    """Weights so large that every token changes what is likeliest next."""
    generator = np.random.default_rng(seed)
    return {
        name: 0.3 * generator.standard_normal(tensor.shape, np.float32) if tensor.ndim > 1 else tensor
        for name, tensor in initial_weights(config, seed).items()
    }


def writer_checkpoint(folder: Path, task: str) -> Checkpoint:
    """A checkpoint in `folder`/TASK, of bytes, whose greedy texts are long and go through many characters."""
    config = writer_config(task)
    record = DataRecord.model_validate(_record(task))
    made = Checkpoint(
        path=folder / task,
        name=task,
        framework="torch",
        config=config,
        weights=loud_weights(config),
        processor=train_processor("byte", (), 260, max_length=CONTEXT, writes=True),
        labels=(),
        data=record,
        metrics=None,
    )
    save_checkpoint(made, made.path)
    return load_checkpoint(made.path)

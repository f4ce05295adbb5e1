"""Distillation, what both frameworks share: a trained model, of any size, whose answers a smaller one learns from.

loss = (1 - w) · cross-entropy + w · T² · KL(teacher ‖ student), both softened by the temperature T (arXiv:1503.02531),
+ h · mean (student's states · Pᵀ - teacher's states)² over the tokens present (arXiv:1412.6550), of the states behind
the final norm. P [teacher's hidden, student's hidden] is trained along and thrown away. The states are compared where
both models read the same tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.checkpoint import Checkpoint
from edgekit.model.config import TransformerConfig
from edgekit.model.weights import Weights
from edgekit.text.processor import Processor

PROJECT = "distillation.project.weight"  # known to trainers alone


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """The model to learn from, its labels in the student's order; `processor` is None where it reads the same ids."""

    config: TransformerConfig
    weights: Weights
    processor: Processor | None

    @property
    def compares_states(self) -> bool:
        """Whether its states are of the same tokens as the student's."""
        return self.processor is None


def make_teacher(checkpoint: Checkpoint, labels: Sequence[str], processor: Processor) -> Teacher:
    """Return a checkpoint, whose labels are `labels` in any order, as the teacher of a student with `processor`."""
    order = [checkpoint.labels.index(label) for label in labels]
    reordered = {f"classifier.{part}": checkpoint.weights[f"classifier.{part}"][order] for part in ("weight", "bias")}
    return Teacher(
        config=checkpoint.config,
        weights={**checkpoint.weights, **reordered},
        processor=None if checkpoint.processor.equals(processor) else checkpoint.processor,
    )


def initial_projection(teacher: TransformerConfig, student: TransformerConfig, seed: int) -> NDArray[np.float32]:
    """Return P [teacher's hidden, student's hidden] as training begins: Glorot's deviation."""
    shape = (teacher.hidden_size, student.hidden_size)
    # A child of the seed of its own: weights are drawn from the seed, n-grams from its first child.
    generator = np.random.default_rng(np.random.SeedSequence(seed).spawn(2)[1])
    return generator.standard_normal(shape, np.float32) * np.float32((2 / sum(shape)) ** 0.5)

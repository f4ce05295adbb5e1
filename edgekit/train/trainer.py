"""What the training loop asks of a framework: a Trainer, the same arithmetic in PyTorch and in Keras."""

import os
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgekit.extras import check_installed
from edgekit.model.config import TransformerConfig
from edgekit.model.greedy import Ids
from edgekit.model.weights import Weights
from edgekit.train.batches import Batch, TextBatch
from edgekit.train.distillation import Teacher
from edgekit.train.ngrams import NgramMatrix
from edgekit.train.settings import TrainSettings
from edgekit.train.workers import Worker

# AdamW (arXiv:1711.05101) as PyTorch computes it: epsilon is added to the corrected root.
BETA1, BETA2, EPSILON = 0.9, 0.98, 1e-8
CLIP_EPSILON = 1e-6  # what torch.nn.utils.clip_grad_norm_ adds to the norm


@dataclass(frozen=True, kw_only=True)
class StepPlan:
    """What changes from step to step: `step` counts from 0, `seed` is for this step's dropout."""

    step: int
    learning_rate: float
    average_decay: float
    seed: int


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """Mean loss of a batch before its update, and how many of its examples were right."""

    loss: float
    correct: int


_BATCH = TypeVar("_BATCH", contravariant=True)


class Steps(Protocol[_BATCH]):
    """A model being trained, its optimiser, and the moving average of its weights."""

    def step(self, batch: _BATCH, plan: StepPlan) -> StepResult:
        """Take one training step."""

    def weights(self) -> Weights:
        """Return a copy of the averaged weights by neutral name; with `qat` rounded, which rounding again keeps."""

    def state(self) -> Weights:
        """Return a copy of everything that the next steps depend on."""

    def load_state(self, state: Weights) -> None:
        """Continue from what `state` returned."""


@dataclass(frozen=True, kw_only=True)
class TextScores:
    """Summed loss (nats, without label smoothing) of a batch's tokens, and how many of them were the likeliest."""

    loss_sum: float
    correct: int


class TextTrainer(Steps[TextBatch], Protocol):
    """A model that writes, being trained; what it answers is by the averaged weights, without dropout."""

    def evaluate(self, batch: TextBatch) -> TextScores:
        """Score the tokens of a batch, each after the real ones before it."""

    def write(self, source: tuple[Ids, Ids] | None, prompts: Ids) -> list[list[int]]:
        """Return the ids that follow each prompt [batch, n], greedily; to translate, `source` is ids and mask."""

    def agree(self, flag: bool) -> bool:
        """Tell whether the flag is set in any worker; all of them must ask."""


class Trainer(Steps[Batch], Protocol):
    """A classifier being trained."""

    def observe(self, batch: Batch) -> None:
        """Let a batch widen the ranges of quantized activations, without a step; nothing else changes."""

    def logits(self, ids: NDArray[np.int32], mask: NDArray[np.int32]) -> NDArray[np.float32]:
        """Return the averaged weights' logits, float32 [batch, num_labels], without dropout, rounded as `qat` says."""


def decays(name: str) -> bool:
    """Tell whether weight decay applies to a parameter: not to norms and biases."""
    return not name.endswith(".bias") and "norm." not in name


def set_tensorflow_environment() -> None:
    """Set what TensorFlow reads once, when it is first imported; what the user has set stays.

    oneDNN's rounding depends on the processor and on which of its kernels it chooses, and TensorFlow 2.21 prints a
    page about it whatever the log level.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")


def check_framework(settings: TrainSettings) -> None:
    """Raise MissingExtraError where the framework, or what quantizes in it, is not installed; import nothing."""
    modules = ("torch",) if settings.framework == "torch" else ("tensorflow", "keras")
    check_installed(modules, f"--framework {settings.framework}")
    if settings.qat != "none" and settings.framework == "torch":
        check_installed(("torchao",), f"--qat {settings.qat} in PyTorch")


def make_trainer(
    config: TransformerConfig,
    weights: Weights,
    settings: TrainSettings,
    ngrams: NgramMatrix | None = None,
    teacher: Teacher | None = None,
) -> Trainer:
    """Return the trainer of the framework that `settings` names; imports that framework and no other.

    With `ngrams`, tokens also learn through their n-grams; what the trainer gives has the sum folded in.
    With `teacher`, batches are also compared with what that answers.

    Raises MissingExtraError where it is not installed.
    """
    check_framework(settings)
    if settings.framework == "torch":
        from edgekit.train.pytorch import PytorchTrainer

        return PytorchTrainer(config, weights, settings, ngrams, teacher)
    set_tensorflow_environment()
    from edgekit.train.keras import KerasTrainer

    return KerasTrainer(config, weights, settings, ngrams, teacher)


def make_text_trainer(
    config: TransformerConfig, weights: Weights, settings: TrainSettings, worker: Worker
) -> TextTrainer:
    """Return the trainer of a model that writes, in the framework that `settings` names; imports no other.

    Raises MissingExtraError where it is not installed.
    """
    check_framework(settings)
    if settings.framework == "torch":
        from edgekit.train.writer_pytorch import PytorchWriter

        return PytorchWriter(config, weights, settings, worker)
    set_tensorflow_environment()
    from edgekit.train.writer_keras import KerasWriter

    return KerasWriter(config, weights, settings, worker)

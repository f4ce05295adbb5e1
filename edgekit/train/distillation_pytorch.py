"""Distillation in PyTorch."""

import torch
from torch import Tensor
from torch.nn import functional

from edgekit.model.pytorch import Encoder, build_encoder
from edgekit.train.batches import Batch
from edgekit.train.distillation import Teacher
from edgekit.train.qat import Tap, attach
from edgekit.train.settings import TrainSettings

_STATES = Tap(module="final_norm")


class Distiller:
    """A teacher beside its student; it is built in the student's framework, whichever trained it."""

    def __init__(self, teacher: Teacher, student: Encoder, settings: TrainSettings) -> None:
        self._settings = settings
        self._encoder = build_encoder(teacher.config, teacher.weights)
        self._seen: dict[str, Tensor] = {}
        attach(student, _STATES, lambda states: self._seen.setdefault("student", states))
        attach(self._encoder, _STATES, lambda states: self._seen.setdefault("teacher", states))

    def loss(self, plain: Tensor, logits: Tensor, batch: Batch, projection: Tensor | None) -> Tensor:
        """Return the loss, where `plain` is the cross-entropy of the student's `logits`, which it has just computed."""
        with torch.no_grad():
            taught = self._encoder(torch.from_numpy(batch.teacher_ids), torch.from_numpy(batch.teacher_mask))
        weight = self._settings.teacher_weight
        total = (1 - weight) * plain + weight * soft_loss(logits, taught, self._settings.temperature)
        if projection is not None:
            mask = torch.from_numpy(batch.mask)
            total = total + self._settings.hidden_weight * states_loss(
                self._seen["student"], self._seen["teacher"], projection, mask
            )
        self._seen.clear()
        return total

    def forget(self) -> None:
        """Forget states that were seen outside of a step."""
        self._seen.clear()


def soft_loss(logits: Tensor, taught: Tensor, temperature: float) -> Tensor:
    """Return T² · KL(teacher ‖ student), the mean over the batch, of logits [batch, num_labels]."""
    student = functional.log_softmax(logits / temperature, dim=-1)
    teacher = functional.log_softmax(taught / temperature, dim=-1)
    return temperature**2 * (teacher.exp() * (teacher - student)).sum(-1).mean()


def states_loss(student: Tensor, teacher: Tensor, projection: Tensor, mask: Tensor) -> Tensor:
    """Return the mean squared difference over tokens present, of states [batch, length, hidden] of either model."""
    present = mask.to(student.dtype)
    squares = (student @ projection.T - teacher).square().mean(-1)
    return (squares * present).sum() / present.sum()

"""Distillation in TensorFlow: the arithmetic of `distillation_pytorch.py`."""

from typing import Any

import tensorflow as tf

from edgekit.model.keras import Encoder, build_encoder
from edgekit.train.distillation import Teacher
from edgekit.train.qat import Tap, attach
from edgekit.train.settings import TrainSettings

_STATES = Tap(module="final_norm")


class Distiller:
    """A teacher beside its student; it is built in the student's framework, whichever trained it."""

    def __init__(self, teacher: Teacher, student: Encoder, settings: TrainSettings) -> None:
        self._settings = settings
        self._encoder = build_encoder(teacher.config, teacher.weights)
        self._seen: dict[str, Any] = {}
        attach(student, _STATES, lambda states: self._seen.setdefault("student", states))
        attach(self._encoder, _STATES, lambda states: self._seen.setdefault("teacher", states))

    def loss(self, plain: Any, logits: Any, mask: Any, texts: tuple[Any, Any], projection: Any | None) -> Any:
        """Return the loss, where `plain` is the cross-entropy of the student's `logits`, which it has just computed.

        `texts` are the teacher's ids and mask, `mask` is the student's.
        """
        taught = tf.stop_gradient(self._encoder(texts))
        weight = self._settings.teacher_weight
        total = (1 - weight) * plain + weight * soft_loss(logits, taught, self._settings.temperature)
        if projection is not None:
            states = self._seen["student"], tf.stop_gradient(self._seen["teacher"])
            total += self._settings.hidden_weight * states_loss(*states, projection, mask)
        self._seen.clear()
        return total

    def forget(self) -> None:
        """Forget states that were seen outside of a step."""
        self._seen.clear()


def soft_loss(logits: Any, taught: Any, temperature: float) -> Any:
    """Return T² · KL(teacher ‖ student), the mean over the batch, of logits [batch, num_labels]."""
    student = tf.nn.log_softmax(logits / temperature)
    teacher = tf.nn.log_softmax(taught / temperature)
    return temperature**2 * tf.reduce_mean(tf.reduce_sum(tf.exp(teacher) * (teacher - student), -1))


def states_loss(student: Any, teacher: Any, projection: Any, mask: Any) -> Any:
    """Return the mean squared difference over tokens present, of states [batch, length, hidden] of either model."""
    present = tf.cast(mask, student.dtype)
    squares = tf.reduce_mean(tf.square(tf.matmul(student, projection, transpose_b=True) - teacher), -1)
    return tf.reduce_sum(squares * present) / tf.reduce_sum(present)

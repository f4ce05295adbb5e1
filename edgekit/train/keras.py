"""The trainer in Keras 3 on TensorFlow: the same arithmetic as `pytorch.py`, traced once for every length."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from edgekit.model.config import TransformerConfig
from edgekit.model.keras import Encoder, build_encoder, classification_loss, model_weights
from edgekit.model.weights import Weights, keras_variables
from edgekit.train.adamw_keras import SCALAR, AdamWTrainer
from edgekit.train.batches import Batch
from edgekit.train.distillation import PROJECT, Teacher, initial_projection
from edgekit.train.distillation_keras import Distiller
from edgekit.train.ngrams import GRAMS, TOKENS, NgramMatrix, initial_grams
from edgekit.train.qat_keras import FakeQuantizer
from edgekit.train.settings import TrainSettings
from edgekit.train.trainer import StepPlan, StepResult

_TEXTS = tf.TensorSpec([None, None], tf.int32)


class KerasTrainer(AdamWTrainer):
    """Trains an Encoder with AdamW; `average` is a second Encoder that holds the averaged weights.

    With `ngrams`, the Encoders hold the tokens' own rows, and run on the table that the sums are folded into. With
    the settings' `qat`, both run on rounded weights and activations; the weights themselves stay what they are.
    """

    def __init__(
        self,
        config: TransformerConfig,
        weights: Weights,
        settings: TrainSettings,
        ngrams: NgramMatrix | None = None,
        teacher: Teacher | None = None,
    ) -> None:
        self.settings = settings
        self.model, self.average = build_encoder(config, weights), build_encoder(config, weights)
        names = {place.path: name for name, place in keras_variables(config).items()}
        self.names = [names[variable.path] for variable in self.model.trainable_variables]
        self.variables = [variable.value for variable in self.model.trainable_variables]
        self.averages = [variable.value for variable in self.average.trainable_variables]
        self.table = None
        if ngrams is not None:
            self.table = _NgramTable(ngrams, self.names.index(TOKENS), len(self.names))
            grams = initial_grams(ngrams, config.token_size, settings.seed)
            self.names.append(GRAMS)
            self.variables.append(tf.Variable(grams))
            self.averages.append(tf.Variable(grams))
        self.rounding = None
        if settings.qat != "none":
            self.rounding = FakeQuantizer(config, settings.qat)
            self.rounding.attach(self.model, watch=True)
            self.rounding.attach(self.average, watch=False)
        self.distiller = None if teacher is None else Distiller(teacher, self.model, settings)
        if teacher is not None and teacher.compares_states and settings.hidden_weight:
            projection = initial_projection(teacher.config, config, settings.seed)
            self.names.append(PROJECT)
            self.variables.append(tf.Variable(projection))
            self.averages.append(tf.Variable(projection))
        self.begin([self.model.embed.dropout, *(block.dropout for block in self.model.blocks)])
        labels = tf.TensorSpec([None], tf.int32)
        self._step = tf.function(self._train_step, input_signature=[*[_TEXTS] * 4, labels, *[SCALAR] * 4])
        self._observe = tf.function(
            lambda ids, mask: self._run(self.model, self.variables, ids, mask, training=False),
            input_signature=[_TEXTS, _TEXTS],
        )
        self._logits = tf.function(
            lambda ids, mask: self._run(self.average, self.averages, ids, mask, training=False),
            input_signature=[_TEXTS, _TEXTS],
        )

    def step(self, batch: Batch, plan: StepPlan) -> StepResult:
        """Take one training step."""
        scalars = self.scalars(plan)
        texts = (batch.ids, batch.mask, batch.teacher_ids, batch.teacher_mask)
        loss, correct = self._step(*texts, batch.labels, *scalars)
        return StepResult(loss=float(loss), correct=int(correct))

    def _train_step(
        self,
        ids: Any,
        mask: Any,
        teacher_ids: Any,
        teacher_mask: Any,
        labels: Any,
        rate: Any,
        step_size: Any,
        root_correction: Any,
        decay: Any,
    ) -> tuple[Any, Any]:
        with tf.GradientTape() as tape:
            logits = self._run(self.model, self.variables, ids, mask, training=True)
            loss = classification_loss(logits, labels, self.settings.label_smoothing)
            if self.distiller is not None:
                projection = self.variables[self.names.index(PROJECT)] if PROJECT in self.names else None
                loss = self.distiller.loss(loss, logits, mask, (teacher_ids, teacher_mask), projection)
        self.update(tape.gradient(loss, self.variables), rate, step_size, root_correction, decay)
        predictions = tf.argmax(logits, -1, output_type=tf.int32)
        return loss, tf.reduce_sum(tf.cast(predictions == labels, tf.int32))

    def _run(self, model: Encoder, variables: Sequence[Any], ids: Any, mask: Any, *, training: bool) -> Any:
        """Return the logits of `model`, whose variables and n-grams are `variables`."""
        replaced = {TOKENS: self.table.folded(variables)} if self.table is not None else {}
        if self.rounding is not None:
            replaced |= self.rounding.weights({**dict(zip(self.names, variables, strict=True)), **replaced})
        places = dict(zip(self.names, model.trainable_variables, strict=False))  # n-grams are not the model's
        # Within the scope the model reads these where it would read its variables.
        with keras.StatelessScope([(places[name], value) for name, value in replaced.items()]):
            return model((ids, mask), training=training)

    def observe(self, batch: Batch) -> None:
        """Let a batch widen the ranges of activations, without a step."""
        if self.rounding is not None:
            self._observe(batch.ids, batch.mask)
            if self.distiller is not None:
                self.distiller.forget()

    def logits(self, ids: NDArray[np.int32], mask: NDArray[np.int32]) -> NDArray[np.float32]:
        """Return the averaged weights' logits."""
        found: NDArray[np.float32] = self._logits(ids, mask).numpy()
        return found

    def weights(self) -> Weights:
        """Return a copy of the averaged weights."""
        weights = model_weights(self.average)
        if self.table is not None:
            weights[TOKENS] = self.table.folded(self.averages).numpy()
        if self.rounding is not None:
            for name, value in self.rounding.weights(dict(zip(self.names, self.averages, strict=True))).items():
                weights[name] = np.ascontiguousarray(value.numpy() if name == TOKENS else value.numpy().T)
        return weights

    def ranges(self) -> Mapping[str, Any]:
        """Return the ranges of quantized activations, by tap."""
        return self.rounding.ranges if self.rounding is not None else {}


class _NgramTable:
    """The token table with the sums of the n-grams' embeddings folded in; `tokens` and `grams` are their places."""

    def __init__(self, matrix: NgramMatrix, tokens: int, grams: int) -> None:
        self._tokens, self._grams = tokens, grams
        places = np.stack([matrix.rows, matrix.columns], axis=1)
        self._matrix = tf.SparseTensor(places, matrix.values, matrix.shape)

    def folded(self, variables: Sequence[Any]) -> Any:
        """Return the table [vocab, size] of the tokens' rows and the n-grams' embeddings in `variables`."""
        return variables[self._tokens] + tf.sparse.sparse_dense_matmul(self._matrix, variables[self._grams])

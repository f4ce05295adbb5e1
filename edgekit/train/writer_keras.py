"""The trainer of models that write, in TensorFlow; in several processes by tf.distribute's MultiWorkerMirroredStrategy.

The strategy carries the gradients between workers; the variables are each worker's own and change alike, because
every worker begins with the same ones and takes the same steps.
"""

from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from edgekit.model.config import TransformerConfig
from edgekit.model.decoder_keras import CachedSteps, Decoder, EncoderDecoder, build_model, token_loss
from edgekit.model.greedy import Ids, greedy_ids
from edgekit.model.keras import model_weights
from edgekit.model.weights import Weights, keras_variables
from edgekit.text.processor import EOS_ID
from edgekit.train.adamw_keras import SCALAR, AdamWTrainer
from edgekit.train.batches import TextBatch
from edgekit.train.settings import TrainSettings
from edgekit.train.trainer import StepPlan, StepResult, TextScores
from edgekit.train.workers import Worker

_TEXTS = tf.TensorSpec([None, None], tf.int32)


class KerasWriter(AdamWTrainer):
    """Trains a Decoder or EncoderDecoder; `average` is a second one that holds the averaged weights.

    Every worker is given the whole batch and takes its rows of it; the gradient is that of the whole batch.
    """

    def __init__(self, config: TransformerConfig, weights: Weights, settings: TrainSettings, worker: Worker) -> None:
        self.settings, self.worker, self.config = settings, worker, config
        self.strategy = _strategy(worker)
        self.model, self.average = _built(config, weights), _built(config, weights)
        names = {place.path: name for name, place in keras_variables(config).items()}
        self.names = [names[variable.path] for variable in self.model.trainable_variables]
        self.variables = [variable.value for variable in self.model.trainable_variables]
        self.averages = [variable.value for variable in self.average.trainable_variables]
        self.begin(_dropouts(self.model))
        self._writing = CachedSteps(self.average)
        texts = [_TEXTS] * (3 if config.task == "translate" else 1)
        self._step = tf.function(
            lambda *given: self._replica(self._train_step, given),
            input_signature=[texts, _TEXTS, _TEXTS, *[SCALAR] * 5],
        )
        self._sum = tf.function(lambda value: self._replica(self._summed, (value,)), input_signature=[SCALAR])
        self._evaluate = tf.function(self._scores, input_signature=[texts, _TEXTS, _TEXTS])

    def step(self, batch: TextBatch, plan: StepPlan) -> StepResult:
        """Take one training step."""
        mine = batch.share(self.worker.rank, self.worker.count)
        scalars = self.scalars(StepPlan(**{**vars(plan), "seed": plan.seed + self.worker.rank}))
        count = tf.constant(batch.predictions, tf.float32)
        loss, correct = self._step(list(mine.inputs), mine.targets, mine.counted, count, *scalars)
        return StepResult(loss=float(loss), correct=int(correct))

    def _train_step(self, inputs: Any, targets: Any, counted: Any, count: Any, *scalars: Any) -> tuple[Any, Any]:
        with tf.GradientTape() as tape:
            logits = self.model(_only(inputs), training=True)
            loss = token_loss(logits, targets, counted, self.settings.label_smoothing) / count
        gradients = [tf.convert_to_tensor(gradient) for gradient in tape.gradient(loss, self.variables)]
        gradients, loss, correct = self._summed((gradients, loss, _correct(logits, targets, counted)))
        self.update(gradients, *scalars)
        return loss, correct

    def _replica(self, function: Callable[..., Any], given: tuple[Any, ...]) -> Any:
        """Call a function where its tensors can be summed over the workers."""
        return function(*given) if self.strategy is None else self.strategy.run(function, args=given)

    def _summed(self, values: Any) -> Any:
        """Return the sums of all workers' tensors."""
        if self.strategy is None:
            return values
        values = tf.nest.map_structure(tf.identity, values)  # an input of a graph has no device, and a sum needs one
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, values)

    def _scores(self, inputs: Any, targets: Any, counted: Any) -> tuple[Any, Any]:
        logits = self.average(_only(inputs), training=False)
        loss = token_loss(tf.cast(logits, tf.float64), targets, counted)
        return loss, _correct(logits, targets, counted)

    def evaluate(self, batch: TextBatch) -> TextScores:
        """Score the tokens of a batch, each after the real ones before it."""
        loss, correct = self._evaluate(list(batch.inputs), batch.targets, batch.counted)
        return TextScores(loss_sum=float(loss), correct=int(correct))

    def write(self, source: tuple[Ids, Ids] | None, prompts: Ids) -> list[list[int]]:
        """Return the ids that follow each prompt [batch, n], greedily; to translate, `source` is ids and mask."""
        step = self._writing.begin(len(prompts), source)
        return greedy_ids(step, prompts, max_length=self.config.max_length, stop_id=EOS_ID)

    def weights(self) -> Weights:
        """Return a copy of the averaged weights."""
        return model_weights(self.average)

    def agree(self, flag: bool) -> bool:
        """Tell whether the flag is set in any worker; all of them must ask."""
        return bool(self._sum(tf.constant(float(flag))) > 0)


def _strategy(worker: Worker) -> Any:
    """Return what carries gradients between the workers of TF_CONFIG; None where there is one only."""
    return tf.distribute.MultiWorkerMirroredStrategy() if worker.count > 1 else None


def _built(config: TransformerConfig, weights: Weights) -> Decoder | EncoderDecoder:
    model = build_model(config, weights)
    if not isinstance(model, Decoder | EncoderDecoder):
        raise TypeError(f"a model for the task {config.task} does not write")
    return model


def _dropouts(model: Decoder | EncoderDecoder) -> Iterator[Any]:
    stacks = (model,) if isinstance(model, Decoder) else (model.encoder, model.decoder)
    yield model.embed.dropout
    for stack in stacks:
        yield from (block.dropout for block in stack.blocks)


def _only(inputs: Any) -> Any:
    """A model of one input takes it as it is."""
    return inputs[0] if len(inputs) == 1 else tuple(inputs)


def _correct(logits: Any, targets: Any, counted: Any) -> Any:
    right = (tf.argmax(logits, -1, output_type=tf.int32) == targets) & (counted == 1)
    return tf.reduce_sum(tf.cast(right, tf.float32))

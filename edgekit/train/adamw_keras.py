"""The optimiser in TensorFlow, the moving average of the weights, and the state of both: what all trainers share."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from edgekit.model.weights import Weights
from edgekit.train.settings import TrainSettings
from edgekit.train.trainer import BETA1, BETA2, CLIP_EPSILON, EPSILON, StepPlan, decays

SCALAR = tf.TensorSpec([], tf.float32)


class AdamWTrainer:
    """Trains `variables` with AdamW; `averages` follow them. Both are in the order of `names`, set before `begin`.

    AdamW is written out because keras.optimizers.AdamW (3.15) adds epsilon to the uncorrected root, where PyTorch
    adds it to the corrected one: the first steps would differ.
    """

    settings: TrainSettings
    names: list[str]
    variables: list[Any]
    averages: list[Any]

    def begin(self, dropouts: Iterable[Any]) -> None:
        """Make the moments, and remember where the layers `dropouts` keep their seeds."""
        self.step_count = 0
        self.first = [tf.Variable(tf.zeros_like(variable)) for variable in self.variables]
        self.second = [tf.Variable(tf.zeros_like(variable)) for variable in self.variables]
        self.seeds = [dropout.seed_generator.state for dropout in dropouts if dropout.rate > 0]

    def scalars(self, plan: StepPlan) -> tuple[np.float32, ...]:
        """Begin a step: set the seeds, and return what `update` takes behind the gradients."""
        self.step_count += 1
        for index, state in enumerate(self.seeds):
            # (key, counter) of Keras's stateless dropout: each layer counts on from a place of its own.
            state.assign([plan.seed, index << 16])
        corrections = (1 - BETA1**self.step_count, math.sqrt(1 - BETA2**self.step_count))
        scalars = (plan.learning_rate, plan.learning_rate / corrections[0], corrections[1], plan.average_decay)
        return tuple(map(np.float32, scalars))

    def update(self, gradients: Sequence[Any], rate: Any, step_size: Any, root_correction: Any, decay: Any) -> None:
        """Take one step down the gradients, and let the average follow; traced as part of a step."""
        gradients = [tf.convert_to_tensor(gradient) for gradient in gradients]
        clip = tf.minimum(1.0, self.settings.clip_norm / (tf.linalg.global_norm(gradients) + CLIP_EPSILON))
        rows = zip(self.names, self.variables, gradients, self.first, self.second, self.averages, strict=True)
        for name, variable, gradient, first, second, average in rows:
            clipped = gradient * clip
            moment = first.assign_add((1 - BETA1) * (clipped - first))
            root = tf.sqrt(second.assign(BETA2 * second + (1 - BETA2) * tf.square(clipped))) / root_correction
            kept = 1 - rate * self.settings.weight_decay if decays(name) else 1.0
            updated = variable.assign(variable * kept - step_size * moment / (root + EPSILON))
            average.assign_add((1 - decay) * (updated - average))

    def ranges(self) -> Mapping[str, Any]:
        """Return further variables of the state; none unless a trainer has some."""
        return {}

    def state(self) -> Weights:
        """Return a copy of weights, average, both moments, ranges, and the count of steps, in Keras's layout."""
        state = {key: value.numpy().copy() for key, value in self._named()}
        return {**state, "optimizer/step": np.array([self.step_count], np.float32)}

    def load_state(self, state: Weights) -> None:
        """Continue from what `state` returned."""
        for key, variable in self._named():
            variable.assign(state[key])
        self.step_count = int(state["optimizer/step"][0])

    def _named(self) -> Iterable[tuple[str, Any]]:
        groups = {
            "model": self.variables,
            "average": self.averages,
            "first_moment": self.first,
            "second_moment": self.second,
        }
        for prefix, variables in groups.items():
            for name, variable in zip(self.names, variables, strict=True):
                yield f"{prefix}/{name}", variable
        for name, seen in self.ranges().items():
            yield f"range/{name}", seen

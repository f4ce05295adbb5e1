"""The trainer in PyTorch."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgekit.model.config import TransformerConfig
from edgekit.model.pytorch import build_encoder, classification_loss, encoder_weights
from edgekit.model.weights import Weights
from edgekit.train.batches import Batch
from edgekit.train.settings import TrainSettings
from edgekit.train.trainer import BETA1, BETA2, EPSILON, StepPlan, StepResult, decays


class PytorchTrainer:
    """Trains an Encoder with torch.optim.AdamW; `average` is a second Encoder that holds the averaged weights."""

    def __init__(self, config: TransformerConfig, weights: Weights, settings: TrainSettings) -> None:
        self.settings = settings
        self.model = build_encoder(config, weights).train()
        self.average = build_encoder(config, weights)
        self.parameters = dict(self.model.named_parameters())
        groups: list[dict[str, Any]] = [
            {"params": [p for name, p in self.parameters.items() if decays(name)]},
            {"params": [p for name, p in self.parameters.items() if not decays(name)], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(
            groups, betas=(BETA1, BETA2), eps=EPSILON, weight_decay=settings.weight_decay, fused=True
        )

    def step(self, batch: Batch, plan: StepPlan) -> StepResult:
        """Take one training step."""
        labels = torch.from_numpy(batch.labels)
        with torch.random.fork_rng(devices=[]):  # the caller's random numbers stay the caller's
            torch.manual_seed(plan.seed)
            logits = self.model(torch.from_numpy(batch.ids), torch.from_numpy(batch.mask))
        loss = classification_loss(logits, labels, self.settings.label_smoothing)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters.values(), self.settings.clip_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = plan.learning_rate
        self.optimizer.step()
        self._update_average(plan.average_decay)
        return StepResult(loss=loss.item(), correct=int((logits.argmax(-1) == labels).sum()))

    @torch.no_grad()
    def _update_average(self, decay: float) -> None:
        torch._foreach_lerp_(list(self.average.parameters()), list(self.model.parameters()), 1 - decay)

    @torch.no_grad()
    def logits(self, ids: NDArray[np.int32], mask: NDArray[np.int32]) -> NDArray[np.float32]:
        """Return the averaged weights' logits."""
        found: NDArray[np.float32] = self.average(torch.from_numpy(ids), torch.from_numpy(mask)).numpy()
        return found

    def weights(self) -> Weights:
        """Return a copy of the averaged weights."""
        return encoder_weights(self.average)

    def state(self) -> Weights:
        """Return a copy of weights, average, both moments, and the optimiser's count of steps."""
        steps = {int(state["step"]) for state in self.optimizer.state.values()} or {0}
        return {
            **_copied("model", self.model.named_parameters()),
            **_copied("average", self.average.named_parameters()),
            **_copied("first_moment", self._moments("exp_avg")),
            **_copied("second_moment", self._moments("exp_avg_sq")),
            "optimizer/step": np.array([max(steps)], np.float32),
        }

    def _moments(self, key: str) -> Iterable[tuple[str, Tensor]]:
        for name, parameter in self.parameters.items():
            yield name, self.optimizer.state[parameter].get(key, torch.zeros_like(parameter))

    @torch.no_grad()
    def load_state(self, state: Weights) -> None:
        """Continue from what `state` returned."""
        for name, parameter in self.parameters.items():
            parameter.copy_(torch.from_numpy(state[f"model/{name}"]))
            self.optimizer.state[parameter] = {
                "step": torch.tensor(float(state["optimizer/step"][0])),
                "exp_avg": torch.tensor(state[f"first_moment/{name}"]),
                "exp_avg_sq": torch.tensor(state[f"second_moment/{name}"]),
            }
        for name, parameter in self.average.named_parameters():
            parameter.copy_(torch.from_numpy(state[f"average/{name}"]))


def _copied(prefix: str, tensors: Iterable[tuple[str, Tensor]]) -> Weights:
    return {f"{prefix}/{name}": tensor.detach().numpy().copy() for name, tensor in tensors}

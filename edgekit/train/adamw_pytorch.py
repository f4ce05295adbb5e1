"""The optimiser in PyTorch, the moving average of the weights, and the state of both: what all trainers share."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgekit.model.weights import Weights
from edgekit.train.settings import TrainSettings
from edgekit.train.trainer import BETA1, BETA2, EPSILON, StepPlan, decays


class AdamWTrainer:
    """Trains `parameters` with torch.optim.AdamW; `averages` follow them. Both are by name, set before `begin`."""

    settings: TrainSettings
    parameters: dict[str, nn.Parameter]
    averages: dict[str, nn.Parameter]

    def begin(self) -> None:
        """Make the optimiser."""
        groups: list[dict[str, Any]] = [
            {"params": [p for name, p in self.parameters.items() if decays(name)]},
            {"params": [p for name, p in self.parameters.items() if not decays(name)], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(
            groups, betas=(BETA1, BETA2), eps=EPSILON, weight_decay=self.settings.weight_decay, fused=True
        )

    def update(self, loss: Tensor, plan: StepPlan) -> None:
        """Take one step down the gradient of `loss`, and let the average follow."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters.values(), self.settings.clip_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = plan.learning_rate
        self.optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(list(self.averages.values()), list(self.parameters.values()), 1 - plan.average_decay)

    def ranges(self) -> Mapping[str, Tensor]:
        """Return further tensors of the state; none unless a trainer has some."""
        return {}

    def state(self) -> Weights:
        """Return a copy of weights, average, both moments, ranges, and the optimiser's count of steps."""
        steps = {int(state["step"]) for state in self.optimizer.state.values()} or {0}
        return {
            **_copied("model", self.parameters.items()),
            **_copied("average", self.averages.items()),
            **_copied("first_moment", self._moments("exp_avg")),
            **_copied("second_moment", self._moments("exp_avg_sq")),
            **_copied("range", self.ranges().items()),
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
        for name, parameter in self.averages.items():
            parameter.copy_(torch.from_numpy(state[f"average/{name}"]))
        for name, seen in self.ranges().items():
            seen.copy_(torch.from_numpy(state[f"range/{name}"]))


def _copied(prefix: str, tensors: Iterable[tuple[str, Tensor]]) -> Weights:
    return {f"{prefix}/{name}": tensor.detach().numpy().copy() for name, tensor in tensors}

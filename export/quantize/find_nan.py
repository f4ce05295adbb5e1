"""Names the module of a model in which numbers stop being finite."""

from collections.abc import Mapping
from typing import Any

import torch

from edgekit.checkpoint import Checkpoint
from edgekit.model.pytorch import build_encoder


def first_non_finite_module(checkpoint: Checkpoint, inputs: Mapping[str, Any]) -> str:
    """The innermost module, in the order of the computation, whose output for these inputs is NaN or infinite."""
    model = build_encoder(checkpoint.config, checkpoint.weights)
    found: list[str] = []

    def watch(name: str) -> Any:
        def hook(module: torch.nn.Module, given: Any, output: Any) -> None:
            if not found and not bool(torch.isfinite(output).all()):
                found.append(name)

        return hook

    for name, module in model.named_modules():
        if name:
            module.register_forward_hook(watch(name))
    with torch.inference_mode():
        model(**{name: torch.from_numpy(value) for name, value in inputs.items()})
    return found[0] if found else "none in PyTorch"

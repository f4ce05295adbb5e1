"""The models that peers export, as their users hold them: a torch module, a Keras model, and what they are called with.

Imported by peers_export.py in every peer's environment: torch and numpy, and what a model itself needs.
"""

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
#: of the matrix product that a runtime's peak rate is measured with: inputs and outputs of the layer
MATMUL = (768, 3072)


def torch_module(job: dict[str, Any]) -> Any:
    """The job's model in PyTorch, in inference mode; ids and mask in, logits or a normalized embedding out."""
    return {"embedded": _embedded, "minilm": _minilm, "matmul": _matmul}[job["model"]](job["source"]).eval()


def keras_model(job: dict[str, Any]) -> Any:
    """The embedded model in Keras."""
    sys.path.insert(0, str(ROOT))
    from edgekit.checkpoint import load_checkpoint
    from edgekit.model.keras import build_encoder

    checkpoint = load_checkpoint(Path(job["source"]))
    return build_encoder(checkpoint.config, checkpoint.weights)


def example(job: dict[str, Any]) -> tuple[Any, ...]:
    """Inputs of one call, as tensors: the first calibration text at the job's length, or rows of a matrix product."""
    import torch

    if job["model"] == "matmul":
        return (torch.rand(job["rows"], MATMUL[0]),)
    return tuple(torch.tensor(part) for part in padded(calibration_ids(job)[0], job["length"], job["model"]))


def padded(ids: list[int], length: int, model: str) -> tuple[Any, Any]:
    """Ids and mask [1, length] of a text: int32 for the embedded model, int64, as tokenizers give them, for MiniLM."""
    import numpy as np

    kind = np.int32 if model == "embedded" else np.int64
    row, mask = np.zeros((1, length), kind), np.zeros((1, length), kind)
    row[0, : len(ids)], mask[0, : len(ids)] = ids[:length], 1
    return row, mask


def calibration_ids(job: dict[str, Any]) -> list[list[int]]:
    """The token ids of the job's calibration texts, which are none of those that are measured."""
    return json.loads(Path(job["calibration"]).read_text())


def _embedded(source: str) -> Any:
    sys.path.insert(0, str(ROOT))
    from edgekit.checkpoint import load_checkpoint
    from edgekit.model.pytorch import build_encoder

    checkpoint = load_checkpoint(Path(source))
    return build_encoder(checkpoint.config, checkpoint.weights)


def _minilm(source: str) -> Any:
    import torch
    from transformers import AutoModel

    class Embedder(torch.nn.Module):
        """As sentence-transformers computes it: the mean over the tokens present, normalized."""

        def __init__(self) -> None:
            super().__init__()
            self.model = AutoModel.from_pretrained(source)

        def forward(self, ids: Any, mask: Any) -> Any:
            """Ids and mask int64 [1, length] → embedding [1, 384]."""
            hidden = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
            present = mask.unsqueeze(-1).to(hidden.dtype)
            pooled = (hidden * present).sum(1) / present.sum(1).clamp(min=1e-9)
            return torch.nn.functional.normalize(pooled, dim=-1)

    return Embedder()


def _matmul(_: str) -> Any:
    import torch

    torch.manual_seed(0)
    return torch.nn.Linear(*MATMUL)

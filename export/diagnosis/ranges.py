"""Ranges of weights and activations, outlier channels, and what scales by channel are worth."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.checkpoint import Checkpoint
from edgekit.export.quantize.evidence import Floats, is_matrix
from edgekit.export.quantize.modules import SCORES
from edgekit.model.quantization import BLOCK
from edgekit.report.quantization import ActivationRange, WeightRange

FLOAT16_MAX = 65504.0
_BATCH = 64


def weight_range(weight: Floats) -> WeightRange | None:
    """The range of a weight [out, in], and the noise of int8 in it with one scale and with one for each output.

    Also that of int4 in blocks of 32 inputs (where rows are no whole number of them, with one scale for each output).
    """
    if not is_matrix(weight.shape):
        return None
    rows = weight.reshape(len(weight), -1).astype(np.float64)
    widths = np.max(np.abs(rows), axis=1)
    one, each = rounding_noise(rows, np.max(widths), 127), rounding_noise(rows, widths[:, None], 127)
    channel, ratio = outlier(widths)
    blocks = rows if rows.shape[1] % BLOCK else rows.reshape(-1, BLOCK)
    int4 = rounding_noise(blocks, np.max(np.abs(blocks), axis=1)[:, None], 7)
    square = float(np.mean(rows**2))
    return WeightRange(
        low=float(np.min(rows)),
        high=float(np.max(rows)),
        channels=len(rows),
        outlier_channel=channel,
        outlier_ratio=ratio,
        tensor_noise=one,
        channel_noise=each,
        channels_fix=1 - each / one if one else 0.0,
        int8_error=math.sqrt(each / square) if square else 0.0,
        int4_error=math.sqrt(int4 / square) if square else 0.0,
        int4_scales="by channel" if rows.shape[1] % BLOCK else f"in blocks of {BLOCK}",
    )


def rounding_noise(values: NDArray[np.float64], largest: Any, steps: int) -> float:
    """The mean squared error of symmetric integers (-steps to steps) with a scale of largest / steps."""
    scale = np.maximum(largest, 1e-30) / steps
    return float(np.mean((np.clip(np.round(values / scale), -steps, steps) * scale - values) ** 2))


def outlier(widths: NDArray[np.float64]) -> tuple[int, float]:
    """The widest channel, and how many times the median channel it is (1 where the median is 0)."""
    channel, median = int(np.argmax(widths)), float(np.median(widths))
    return channel, float(widths[channel]) / median if median else 1.0


class _Watch:
    """Extremes of what goes into (or, in embeddings, comes out of) a module, over all texts."""

    def __init__(self) -> None:
        self.low, self.high, self.largest = np.inf, -np.inf, 0.0
        self.widths: NDArray[np.float64] = np.zeros(1)

    def see(self, values: NDArray[np.float32], largest: float | None = None) -> None:
        """Take in values [rows, channels] of real tokens."""
        self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))
        self.widths = np.maximum(self.widths, np.max(np.abs(values), axis=0))
        self.largest = max(self.largest, float(np.max(np.abs(values))) if largest is None else largest)

    def range(self) -> ActivationRange:
        """What was seen."""
        channel, ratio = outlier(self.widths)
        return ActivationRange(
            low=self.low,
            high=self.high,
            outlier_channel=channel,
            outlier_ratio=ratio,
            largest=self.largest,
            headroom=FLOAT16_MAX / self.largest if self.largest else None,
        )


def activation_ranges(checkpoint: Checkpoint, texts: Sequence[str]) -> dict[str, ActivationRange]:
    """Run the float32 model in PyTorch on texts and note what each module is given; padding is left out.

    A norm's `largest` is the largest square that it sums, that of `attention.scores` the largest score before the mask.
    """
    import torch

    from edgekit.model.pytorch import build_encoder

    model = build_encoder(checkpoint.config, checkpoint.weights)
    watches: dict[str, _Watch] = {}
    present = np.ones(1, dtype=bool)

    def hook(name: str) -> Any:
        def seen(module: Any, given: Any, output: Any) -> None:
            tensor = output if isinstance(module, torch.nn.Embedding) else given[0]
            rows = tensor.detach().numpy().reshape(-1, tensor.shape[-1])
            if tensor.dim() == 3:  # else pooled, or the table's own positions
                rows = rows[present]
            largest = float(np.max(np.square(rows, dtype=np.float64))) if name.endswith("_norm") else None
            watches.setdefault(name, _Watch()).see(rows, largest)

        return seen

    def watched(name: str, plain: Any) -> Any:
        def masked_scores(query: Any, key: Any, mask: Any) -> Any:
            scores = plain(query, key, mask)
            watches.setdefault(name, _Watch()).see(_real_scores(scores.numpy(), present))
            return scores

        return masked_scores

    for name, module in model.named_modules():
        if name.endswith(".attention"):
            module.masked_scores = watched(name.removesuffix("attention") + SCORES, module.masked_scores)
        elif name and not list(module.children()) and not name.endswith("dropout"):
            module.register_forward_hook(hook(name))
    ids, mask = checkpoint.processor.encode_padded(texts, checkpoint.config.max_length)
    with torch.inference_mode():
        for start in range(0, len(ids), _BATCH):
            part = slice(start, start + _BATCH)
            present = mask[part].reshape(-1).astype(bool)
            model(torch.from_numpy(ids[part]), torch.from_numpy(mask[part]))
    return {name: watch.range() for name, watch in watches.items()}


def _real_scores(scores: NDArray[np.float32], present: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Scores [batch, heads, length, length] as [rows, heads]; 0 where query or key is padding."""
    batch, heads, length = scores.shape[:3]
    tokens = present.reshape(batch, length)
    real = tokens[:, None, :, None] & tokens[:, None, None, :]
    return np.where(real, scores, np.float32(0)).transpose(0, 2, 3, 1).reshape(-1, heads)

"""Quantization-aware training, what both frameworks share: which tensors a scheme quantizes, and how to reach them.

Weights stay float32 and are rounded each time the model runs, as `edgekit.model.quantization` defines it; gradients
pass the rounding as if it were not there (the straight-through estimator, arXiv:1308.3432). Models know nothing of it:
methods of theirs are wrapped. The checkpoint holds the rounded weights, so that its float32 model answers much as the
quantized file will, and quantizing finds the same integers again.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any, Literal

from edgekit.model.config import TransformerConfig
from edgekit.model.quantization import QatScheme

#: of the largest and smallest values: what a range that has become too wide gives up with each batch
RANGE_RATE = 0.01
#: batches that set the first ranges, before any step
FIRST_BATCHES = 8

Kind = Literal["rows", "range", "scores", "probabilities"]


@dataclass(frozen=True, kw_only=True)
class Tap:
    """A tensor that is fake-quantized: what `method` of `module` takes first (`before`) or gives.

    `folded`: the module is a norm whose weight and bias are folded into the products behind it, so that its output is
    quantized as it is without them.

    `method` "" is the module's own call. `rows` have a range each, as they come; a `range` is tracked; `scores` are so
    with masked ones left out; `probabilities` are in [0, 1].
    """

    module: str
    method: str = ""
    before: bool = False
    kind: Kind = "range"
    folded: bool = False

    @property
    def name(self) -> str:
        """What its range is called in a training's state."""
        return f"{self.module}.{self.method or ('input' if self.before else 'output')}"


def taps(config: TransformerConfig, scheme: QatScheme) -> tuple[Tap, ...]:
    """Return the tensors that `scheme` quantizes in TFLite.

    As in files by way of litert-torch, the better route. int4-weight: what goes into products with weights. int8: what
    every module gives, and the steps of attention; not the steps inside norms and activations, which differ between
    converters. Shared layers share their ranges.
    """
    blocks = [f"blocks.{index}." for index in range(config.num_blocks)]
    if scheme == "int4-weight":
        found = [Tap(module="embed.project", before=True)] if config.embedding_size is not None else []
        for block in blocks:
            found += [Tap(module=f"{block}{norm}", folded=True) for norm in ("attention_norm", "ffn_norm")]
            found += [Tap(module=f"{block}{linear}", before=True) for linear in ("attention.output", "ffn.down")]
        found.append(Tap(module="classifier", before=True))
        return tuple(replace(tap, kind="rows") for tap in found)
    found = [Tap(module="embed")]
    for block in blocks:
        found += _int8_taps(block, fused=config.activation == "relu")
    return (*found, Tap(module="final_norm"), Tap(module="classifier", before=True), Tap(module="classifier"))


def _int8_taps(block: str, *, fused: bool) -> list[Tap]:
    """Those of one block; `fused`: the activation is part of the product before it."""
    attention = f"{block}attention"
    return [
        Tap(module=f"{block}attention_norm", folded=True),
        *(Tap(module=f"{attention}.{part}") for part in ("query", "key", "value")),
        Tap(module=attention, method="masked_scores", kind="scores"),
        Tap(module=attention, method="probabilities", kind="probabilities"),
        Tap(module=f"{attention}.output", before=True),
        Tap(module=f"{attention}.output"),
        Tap(module=f"{block}ffn_norm", before=True),
        Tap(module=f"{block}ffn_norm", folded=True),
        *(() if fused else (Tap(module=f"{block}ffn.up"),)),
        Tap(module=f"{block}ffn.down", before=True),
        Tap(module=f"{block}ffn.down"),
        Tap(module=block.removesuffix(".")),
    ]


def attach(model: Any, tap: Tap, change: Callable[[Any], Any]) -> None:
    """Let `change` act on the tensor of a tap whenever `model`, of either framework, runs."""
    owner, method = find_module(model, tap.module), tap.method
    before = tap.before
    if not method:
        method = "call" if hasattr(owner, "call") else "forward"
        if not before and tap.module.endswith("ffn.up") and hasattr(owner, "activation"):
            method, before = "activation", True  # Keras's Dense holds the activation: the product is what goes into it
    wrapped = getattr(owner, method)

    def call(x: Any, *args: Any, **options: Any) -> Any:
        if before:
            return wrapped(change(x), *args, **options)
        return change(wrapped(x, *args, **options))

    setattr(owner, method, call)


def find_module(model: Any, name: str) -> Any:
    """Return the module of a neutral name: in Keras, `output` is a property of layers, the dense layer its own."""

    def step(owner: Any, part: str) -> Any:
        if part.isdigit():
            return owner[int(part)]
        return getattr(owner, f"{part}_dense" if hasattr(owner, f"{part}_dense") else part)

    return reduce(step, name.split("."), model)

"""What a scheme does to one module in a target: what shares a scale of its weights, and whether its input is rounded.

The code behind it is `quantize/for_*.py`; in words people read it in `edgekit schemes`.
"""

from typing import Literal

from edgekit.export.quantize.modules import SCORES

Scales = Literal["tensor", "channel", "block", "palette", "none"]
_TABLES = ("embed.tokens", "embed.positions")
_ROUNDED_INPUTS = {
    "tflite": ("int8-dynamic", "int8", "int4-weight", "int16x8"),
    "onnx": ("int8-dynamic", "int8", "int16x8"),
}


def weight_scales(module: str, scheme: str, target: str) -> Scales:
    """What shares one scale in a weight of this module: all of it, each output, or a block of its inputs."""
    if scheme in ("none", "fp16") or (module == "embed.positions" and target != "coreml"):
        return "none"  # positions are added: where activations are integers, as one of them
    if scheme.startswith("palette"):
        return "palette"
    if scheme == "int4-weight":
        return "block"
    if module == "embed.tokens" and target in ("tflite", "onnx"):
        return "tensor"
    return "block" if (target, scheme) == ("onnx", "int8-weight") else "channel"


def quantizes_input(module: str, scheme: str, target: str) -> bool:
    """Whether integers of one scale (as they come: one for each token) stand for what a module is given.

    Tables are given ids, and scores are two tensors.
    """
    return scheme in _ROUNDED_INPUTS.get(target, ()) and module not in _TABLES and not module.endswith(SCORES)

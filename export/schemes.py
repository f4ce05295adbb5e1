"""Quantization schemes: the vocabulary of `--quantize`, and what each becomes in each target."""

from edgekit.errors import UnknownNameError

#: scheme → target → what it becomes there
SCHEMES: dict[str, dict[str, str]] = {
    "none": {
        "tflite": "float32 weights, float32 arithmetic",
        "onnx": "float32 weights, float32 arithmetic",
        "coreml": "float32 weights, float32 arithmetic (coremltools' own default is float16)",
        "savedmodel": "float32 weights, float32 arithmetic",
        "pt2": "float32 weights, float32 arithmetic",
    },
    "fp16": {
        "tflite": "float16 weights, float32 arithmetic",
        "onnx": "float16 weights and arithmetic, float32 outputs",
        "coreml": "float16 weights and arithmetic",
    },
}

#: scheme → the relative tolerance of parity: |Δ| ≤ tolerance · max(1, max |logit|). float32 is design rule 1; float16
#: keeps 11 significant bits in each weight (and, in ONNX, in each of some 20 successive products and sums).
RELATIVE_TOLERANCE = {"none": 1e-5, "fp16": 1e-2}

BYTES_PER_WEIGHT = {"none": 4, "fp16": 2}


def check_scheme(scheme: str) -> str:
    """Return `scheme`, or raise UnknownNameError, which names the nearest."""
    if scheme not in SCHEMES:
        raise UnknownNameError("scheme", scheme, SCHEMES)
    return scheme


def refusal(scheme: str, target: str) -> str | None:
    """Why `target` does not offer `scheme`; None where it does."""
    if target in SCHEMES[scheme]:
        return None
    return f"{target} is a float32 reference for servers: it does not offer {scheme}"

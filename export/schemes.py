"""Quantization schemes: the vocabulary of `--quantize`, and what each becomes in each target."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from edgekit.errors import UnknownNameError
from edgekit.model.rewrites import added_tolerance
from edgekit.proof.parity import HALF_COSINE, HALF_TOLERANCE

_FLOAT32 = "float32 weights, float32 arithmetic"
_NBITS = "computed in float32 (com.microsoft operators)"

#: scheme → target → what it becomes there
SCHEMES: dict[str, dict[str, str]] = {
    "none": {
        "tflite": _FLOAT32,
        "onnx": _FLOAT32,
        "coreml": f"{_FLOAT32} (coremltools' own default is float16)",
        "savedmodel": _FLOAT32,
        "pt2": _FLOAT32,
    },
    "fp16": {
        "tflite": "float16 weights, float32 arithmetic",
        "onnx": "float16 weights and arithmetic, float32 outputs",
        "coreml": "float16 weights and arithmetic",
    },
    "int8-dynamic": {
        "tflite": "int8 weights by channel, one scale for the token table; int8 matrix products, activations quantized "
        "as they come",
        "onnx": "int8 weights by channel (two neighbours fit 8 bits); int8 matrix products, activations quantized as "
        "they come. Models of others, where calibration texts show outliers: channels balanced, tokens scaled",
    },
    "int8": {
        "tflite": "int8 weights by channel, int8 activations, integer arithmetic but for the mean's division; float32 "
        "logits. Where channels hold outliers: those balanced, int8 inputs and outputs of matrix products, float32 "
        "norms, sums, attention and activation functions",
        "onnx": "int8 weights by channel, int8 inputs of matrix products, their outliers balanced; float32 norms and "
        "softmax",
    },
    "int8-weight": {
        "tflite": "int8 weights by channel, one scale for the token table; float32 arithmetic",
        "onnx": f"int8 weights in blocks of 32 to 128, {_NBITS}",
        "coreml": "int8 weights by channel; float32 arithmetic",
    },
    "int4-weight": {
        "tflite": "int4 weights in blocks of 32 (rows of another width by row); int8 matrix products, activations "
        "quantized as they come",
        "onnx": "int4 weights in blocks of 32; int8 matrix products, activations quantized as they come "
        "(com.microsoft operators)",
        "coreml": "int4 weights in blocks of 32 (rows of another width by channel); float32 arithmetic",
    },
    "int16x8": {
        "tflite": "int8 weights by channel, int16 activations, integer arithmetic but for squares in norms; float32 "
        "logits",
        "onnx": "int8 weights by channel, int16 inputs of matrix products; float32 norms and softmax",
    },
    **{
        f"palette{bits}": {"coreml": f"each weight one of {2**bits} values of its matrix; float32 arithmetic"}
        for bits in (4, 6, 8)
    },
}

#: schemes whose activations are quantized with ranges seen on real text
CALIBRATED = frozenset({"int8", "int16x8"})

#: target and scheme of ranges as they come that balance outliers, where there are texts that show them
BALANCED = frozenset({("onnx", "int8-dynamic")})

#: another name → the scheme; ai-edge-quantizer's are those of its `recipe` module that mean the same
ALIASES = {
    "w8a8": "int8",
    "w8a16": "int16x8",
    "dynamic_wi8_afp32": "int8-dynamic",
    "dynamic_wi8c_afp32": "int8-dynamic",
    "static_wi8_ai8": "int8",
    "static_wi8_ai16": "int16x8",
    "weight_only_wi8_afp32": "int8-weight",
    "dynamic_wi4b32_afp32": "int4-weight",
}

#: names people will try that exist elsewhere → why they are not here
_NOT_HERE = {
    "dynamic_wi4_afp32": "int4 is offered in blocks of 32 only; say int4-weight (dynamic_wi4b32_afp32)",
    "dynamic_wi4c_afp32": "int4 is offered in blocks of 32 only; say int4-weight (dynamic_wi4b32_afp32)",
    "weight_only_wi4_afp32": "int4 is offered in blocks of 32 only; say int4-weight (dynamic_wi4b32_afp32)",
    "dynamic_wi8b32_afp32": "ai-edge-quantizer 0.10 changes nothing with it; say int8-dynamic",
    "dynamic_wi8b64_afp32": "ai-edge-quantizer 0.10 changes nothing with it; say int8-dynamic",
    "dynamic_legacy_wi8_afp32": "it leaves weights of fewer than 1024 elements in float32; say int8-dynamic",
}

_SERVER = "it is a float32 reference for servers"
_NO_ACTIVATIONS = "its quantizer needs Core ML's own runtime to see activations: macOS only"
_REASONS = {
    ("coreml", "int8-dynamic"): "Core ML has no activations quantized as they come",
    ("coreml", "int8"): _NO_ACTIVATIONS,
    ("coreml", "int16x8"): "Core ML has no int16 activations",
}


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """What "within tolerance" means for a scheme.

    `relative` bounds every logit: |Δ| ≤ relative · max(1, max |logit|). `labels_changed` is the largest share of
    answers that may differ from the source model's, in [0, 1]; a file fails where the share is over it with 95 %
    confidence. `cosine` is the least that embeddings, and other outputs that are no scores of labels, may have with the
    source model's, as a mean over texts. With `same_tokens` a model that writes must write the source's tokens;
    `bits_per_byte` is the share by which its bits per byte of held-out texts may be more than the source's.
    """

    relative: float
    labels_changed: float = 1.0
    cosine: float = 0.0
    same_tokens: bool = False
    bits_per_byte: float = 1e-4


#: float32 is design rule 1; float16 keeps 11 significant bits in each weight (and, in ONNX, in each of some 20
#: successive products and sums). The others are lossy on purpose. Their bounds were set by hand, after a look at
#: trained models of 5 and 10 languages in TFLite and ONNX: 2 to 4 times the worst |Δ| seen, 3 to 5 times the worst
#: share of labels. They then held on the embedded model (int16x8 the closest: 0.130). They catch a broken file (a
#: range cut off, wrong scales), and are no promise of quality, for which the accuracy is measured. Those of palettes
#: were set by analogy with integers of as many bits; evaluated on the embedded model, palettes reach 0.17 (4 bits),
#: 0.053 (6) and 0.017 (8). Models of random weights can miss them. Cosines are what embeddings are used for; they were
#: set as goals (0.99999, 0.9999, 0.997 and 0.98 for the first four) before any were measured, the others by analogy.
#: Those of bits per byte, of models that write, are 5 times and more what a trained translator lost (int8 0.0 %, int4
#: 1.9 %).
TOLERANCES = {
    "none": Tolerance(relative=1e-5, cosine=0.99999, same_tokens=True),
    "fp16": Tolerance(relative=HALF_TOLERANCE, cosine=HALF_COSINE, bits_per_byte=0.002),
    "int8-dynamic": Tolerance(relative=0.06, labels_changed=0.02, cosine=0.997, bits_per_byte=0.01),
    "int8": Tolerance(relative=0.4, labels_changed=0.04, cosine=0.98, bits_per_byte=0.1),
    "int8-weight": Tolerance(relative=0.05, labels_changed=0.02, cosine=0.997, bits_per_byte=0.01),
    "int4-weight": Tolerance(relative=0.5, labels_changed=0.06, cosine=0.95, bits_per_byte=0.1),
    "int16x8": Tolerance(relative=0.15, labels_changed=0.02, cosine=0.98, bits_per_byte=0.1),
    "palette4": Tolerance(relative=0.5, labels_changed=0.06, cosine=0.95, bits_per_byte=0.1),
    "palette6": Tolerance(relative=0.25, labels_changed=0.04, cosine=0.98, bits_per_byte=0.1),
    "palette8": Tolerance(relative=0.05, labels_changed=0.02, cosine=0.997, bits_per_byte=0.01),
}

#: bits of one weight as stored, scales included
_BITS = {
    "none": 32.0,
    "fp16": 16.0,
    "int8-dynamic": 8.0,
    "int8": 8.0,
    "int8-weight": 8.25,
    "int4-weight": 5.0,
    "int16x8": 8.0,
    "palette4": 4.0,
    "palette6": 6.0,
    "palette8": 8.0,
}
BYTES_PER_WEIGHT = {scheme: bits / 8 for scheme, bits in _BITS.items()}

#: the first systems that read a Core ML specification of this number
_COREML_SYSTEMS = {6: "iOS 15, macOS 12", 7: "iOS 16, macOS 13", 8: "iOS 17, macOS 14", 9: "iOS 18, macOS 15"}


def check_scheme(name: str) -> str:
    """Return the scheme that `name` or its alias means, or raise UnknownNameError, which names the nearest."""
    scheme = ALIASES.get(name, name)
    if scheme not in SCHEMES:
        error = UnknownNameError("scheme", name, [*SCHEMES, *ALIASES])
        if name in _NOT_HERE:
            error.args = (f"the recipe {name!r} is not offered: {_NOT_HERE[name]}",)
        raise error
    return scheme


def refusal(scheme: str, target: str) -> str | None:
    """Why `target` does not offer `scheme`; None where it does."""
    return None if target in SCHEMES[scheme] else f"{target} does not offer {scheme}: {reason(scheme, target)}"


def reason(scheme: str, target: str) -> str:
    """Why `target` can't do `scheme`, for the table of `edgekit schemes`."""
    if target in ("savedmodel", "pt2"):
        return _SERVER
    if scheme.startswith("palette"):
        return "palettes are a format of Core ML"
    return _REASONS[target, scheme]


def tolerance_of(
    schemes: Sequence[str], rewrites: Sequence[str] = (), *, half_states: bool = False, int8_cache: bool = False
) -> Tolerance:
    """What "within tolerance" means for a file of these schemes and rewrites: the widest of the schemes', and what the
    rewrites add to it. With `half_states`, what it keeps between calls is float16; with `int8_cache`, int8.
    """
    kept = [*(["fp16"] if half_states else []), *(["int8-dynamic"] if int8_cache else [])]
    widest = _widest([*schemes, *kept])
    return replace(widest, relative=widest.relative + added_tolerance(rewrites))


def _widest(schemes: Sequence[str]) -> Tolerance:
    each = [TOLERANCES[scheme] for scheme in schemes]
    if all(tolerance.labels_changed == 1 for tolerance in each):
        return Tolerance(
            relative=max(tolerance.relative for tolerance in each),
            cosine=min(tolerance.cosine for tolerance in each),
            same_tokens=all(tolerance.same_tokens for tolerance in each),
            bits_per_byte=max(tolerance.bits_per_byte for tolerance in each),
        )
    lossy = [tolerance for tolerance in each if tolerance.labels_changed < 1]
    return Tolerance(
        relative=max(tolerance.relative for tolerance in each),
        labels_changed=max(tolerance.labels_changed for tolerance in lossy),
        bits_per_byte=max(tolerance.bits_per_byte for tolerance in each),
        cosine=min(tolerance.cosine for tolerance in each),
    )


def requirements(schemes: Sequence[str], target: str, via: str, version: str) -> dict[str, str]:
    """What a file of these schemes needs to run; `version` is the file's own, as `describe_file` gives it.

    The oldest tflite-runtime is the one that benchmarks/oldest_runtime.py loaded such files in: of several schemes, the
    first that this one did not run decides.
    """
    if target == "onnx":
        return {"onnx": version}
    if target == "coreml":
        number = int(version.split()[0])
        return {"coreml": f"specification {number}: {_COREML_SYSTEMS[number]}"}
    if target == "tflite":
        tried = [oldest_tflite_runtime().get(f"{scheme}-via-{via}", "not tried") for scheme in schemes]
        return {"tflite-runtime": next((found for found in tried if not found[0].isdigit()), tried[0])}
    return {}


@cache
def oldest_tflite_runtime() -> dict[str, str]:
    """Scheme and route → the oldest tflite-runtime that runs such a file, as measured; or why it refuses."""
    content = json.loads(Path(__file__).with_name("oldest_runtime.json").read_text(encoding="utf-8"))
    return {row["file"]: row["result"] for row in content["rows"]}

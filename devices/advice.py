"""Advice from evidence: where an accelerator loses, falls back or is wrong, which scheme or rewrite to try next.

A suggestion is something to be tried and measured, never a promise; each carries the evidence that it follows from.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edgekit.bundle import Manifest
from edgekit.devices.accelerators import fallen_back
from edgekit.measurement import Coverage, LeftBehind, Measurement
from edgekit.model.rewrites import FLOAT_MASK, FP16_MASK, FP16_NORM, FUSED_HEADS, GELU_TANH, REWRITES, SPLIT_HEADS
from edgekit.report.beside_cpu import moving_share, speedup, speedup_text
from edgekit.report.numbers import percent

#: an operator that an accelerator left, in any runtime's spelling → the rewrite without it
_WITHOUT = {
    "CAST": FLOAT_MASK,
    "GELU": GELU_TANH,
    "ERF": GELU_TANH,
    "TRANSPOSE": SPLIT_HEADS,
    "BATCH_MATMUL": SPLIT_HEADS,
    "BATCHMATMUL": SPLIT_HEADS,
}
#: what an accelerator computes best, where its operators do not say otherwise; float32 files come first
_NATURAL = {
    "gpu": ("fp16", "none"),
    "npu": ("int8", "fp16"),
    "nnapi": ("int8", "fp16"),
    "edgetpu": ("int8",),
    "coreml": ("fp16",),
}
_FLOAT = ("none", "fp16")
#: with more of its time spent on moving data, the work is too small for an accelerator
MUCH_MOVING = 0.3
_MOST = 4


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """A variant to try: a scheme, all of its rewrites, and the evidence it follows from."""

    scheme: str
    rewrites: tuple[str, ...]
    because: str


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What is known of one bundle on one accelerator: a measurement or the error instead, and the CPU beside it.

    `float32` is the measurement of the same model's float32 bundle on the same accelerator, where there is one.
    """

    manifest: Manifest
    accelerator: str
    measurement: Measurement | None = None
    error: str = ""
    cpu: Measurement | None = None
    float32: Measurement | None = None


def suggest(evidence: Evidence) -> tuple[Suggestion, ...]:
    """What to try, most promising first, each variant once; empty where the evidence asks for nothing."""
    own = (evidence.manifest.scheme, evidence.manifest.rewrites)
    found: dict[tuple[str, tuple[str, ...]], Suggestion] = {}
    for each in _all(evidence):
        key = (each.scheme, each.rewrites)
        if key != own:
            found.setdefault(key, each)
    return tuple(found.values())[:_MOST]


def remark(evidence: Evidence) -> str:
    """What no variant of the file can change, in a sentence; "" where there is nothing of the kind."""
    made = evidence.measurement
    share = moving_share(made.samples) if made and made.samples.latency_ms else None
    if share is not None and share > MUCH_MOVING and evidence.accelerator != "cpu":
        return f"moving data takes {percent(share)} of its time: the model may be too small for this accelerator"
    return ""


def _all(evidence: Evidence) -> Iterator[Suggestion]:
    made = evidence.measurement
    if made is None or not made.samples.latency_ms:
        yield from _after_failure(evidence, f"it could not be run there ({evidence.error or 'nothing was measured'})")
        return
    if made.parity.verdict == "failed":
        yield from _after_failure(evidence, "its outputs are wrong there")
        return
    if evidence.accelerator == "cpu":
        yield from _on_cpu(evidence, made)
        return
    yield from _for_coverage(evidence, made.coverage)
    if fallback := fallen_back(made.accelerator, made.coverage):
        yield from _after_failure(evidence, fallback)
    if evidence.cpu:
        yield from _for_speed(evidence, made, evidence.cpu)


def _after_failure(evidence: Evidence, why: str) -> Iterator[Suggestion]:
    """Other numbers for what a quantized file does wrong; safer float16 for what a float one does wrong."""
    scheme, name = evidence.manifest.scheme, evidence.accelerator
    if scheme not in _FLOAT:
        for other in _FLOAT if name == "cpu" else dict.fromkeys((*_NATURAL[name], *_FLOAT)):
            yield _variant(evidence, because=f"as {scheme}, {why}", scheme=other)
        return
    half = f"{why}, and {name} may compute in float16"
    if scheme == "none":
        yield _variant(evidence, because=f"{half}, as fp16 allows for", scheme="fp16")
    yield _variant(evidence, FP16_MASK, FP16_NORM, because=half, scheme="fp16")
    for other in _FLOAT if name == "cpu" else _NATURAL[name]:
        yield _variant(evidence, because=f"as {scheme}, {why}", scheme=other)


def _for_coverage(evidence: Evidence, coverage: Coverage) -> Iterator[Suggestion]:
    """Rewrites without the operators that were left behind, all at once; other numbers where it is the numbers."""
    left = {_spelled(each): each for each in coverage.left_behind}
    rewrites = list(dict.fromkeys(_WITHOUT[name] for name in left if name in _WITHOUT))
    if rewrites:
        named = ", ".join(f"{left[name].count} {left[name].operator}" for name in left if name in _WITHOUT)
        yield _variant(evidence, *rewrites, because=f"{coverage.actual} left {named} to the CPU")
    if "DEQUANTIZE" in left and evidence.manifest.scheme != "none":
        count = left["DEQUANTIZE"].count
        told = f"{coverage.actual} left {count} DEQUANTIZE of {evidence.manifest.scheme} weights to the CPU"
        yield _variant(evidence, because=told, scheme="none")


def _for_speed(evidence: Evidence, made: Measurement, cpu: Measurement) -> Iterator[Suggestion]:
    """An accelerator that is surely slower than the CPU: other numbers, fewer operators."""
    ratio = speedup(cpu.samples, made.samples)
    if ratio.high >= 1:
        return
    lost = f"it is {speedup_text(ratio.ratio, ratio.low, ratio.high)} than the CPU"
    for other in _NATURAL[evidence.accelerator]:
        yield _variant(evidence, because=lost, scheme=other)
    yield _variant(evidence, FUSED_HEADS, because=f"{lost}, and each operator costs a start there")


def _on_cpu(evidence: Evidence, made: Measurement) -> Iterator[Suggestion]:
    """A quantized file that float32 beats, or that has no float32 beside it."""
    scheme = evidence.manifest.scheme
    if scheme in _FLOAT:
        return
    if evidence.float32 is None:
        yield _variant(evidence, because=f"whether {scheme} pays shows beside float32 only", scheme="none")
        yield _variant(evidence, because=f"{scheme} may not be what this CPU computes fastest", scheme="int8-dynamic")
        return
    ratio = speedup(evidence.float32.samples, made.samples)
    if ratio.high < 1:
        lost = f"{scheme} is {speedup_text(ratio.ratio, ratio.low, ratio.high)} than float32"
        yield _variant(evidence, because=lost, scheme="int8-dynamic")
        yield _variant(evidence, because=lost, scheme="fp16")


def _variant(evidence: Evidence, *rewrites: str, because: str, scheme: str | None = None) -> Suggestion:
    """The bundle's own scheme and rewrites, with these changes; of two forms of heads the new one."""
    forms = {FUSED_HEADS, SPLIT_HEADS}
    kept = [n for n in evidence.manifest.rewrites if not (n in forms and forms & set(rewrites))]
    return Suggestion(
        scheme=scheme or evidence.manifest.scheme,
        rewrites=_in_order((*kept, *rewrites)),
        because=because,
    )


def _in_order(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in REWRITES if name in names)


def _spelled(left: LeftBehind) -> str:
    return left.operator.upper().removeprefix("TFL_")

"""Why a quantized file is not faster: its time by operator beside the float32 file's, as the runtime profiled it."""

import platform
import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from edgekit.host import CPU_FEATURES, cpu_flags
from edgekit.measurement import OperatorTime
from edgekit.report.numbers import milliseconds, percent
from edgekit.report.quantization import SchemeGroup, SchemeRow, Sentence

_SAME = {
    "batch_matrix_multiply": "batch_matmul",
    "mat_mul": "matmul",
    "clamp": "maximum",
    "divide": "div",
    "multiply": "mul",
    "reciprocal_square_root": "rsqrt",
    "static_reshape": "reshape",
    "subtract": "sub",
}
_CONVERSIONS = re.compile(r"^(de|dynamic_)?quantize|^convert|^cast$")
_PRODUCTS = re.compile(r"fully_connected|matmul|gemm|conv")
#: features of a processor without which int8 products take several instructions each, by machine
_INT8 = {"x86_64": ("AVX-512 VNNI", "AVX-VNNI"), "aarch64": ("dotprod",)}
_NOT_PRODUCTS = ("none", "fp16", "int8-weight")
#: a quantized file that takes at least this share of the float32 file's time needs an explanation
_SLOW = 0.8
_MOST_NAMED = 3


def explain_speed(group: SchemeGroup) -> tuple[Sentence, ...]:
    """A sentence for each quantized file that is hardly faster than the float32 file of its target and route."""
    floats = {(row.target, row.via): row for row in group.rows if row.scheme == "none" and _profiled(row)}
    found = []
    for row in group.rows:
        base = floats.get((row.target, row.via))
        if row.scheme != "none" and _profiled(row) and base and row.latency and base.latency:
            ratio = row.latency.p50_ms / base.latency.p50_ms
            if ratio >= _SLOW:
                found.append(_explain(base, row, ratio))
    return tuple(found)


def _profiled(row: SchemeRow) -> bool:
    return bool(row.measurement and row.measurement.operators)


def _operators(row: SchemeRow) -> Sequence[OperatorTime]:
    return row.measurement.operators if row.measurement else ()


def _explain(base: SchemeRow, row: SchemeRow, ratio: float) -> Sentence:
    before, after = time_by_kind(_operators(base)), time_by_kind(_operators(row))
    kinds = [
        (kind, before.get(kind, 0.0), after.get(kind, 0.0))
        for kind in {**before, **after}
        if before.get(kind) or after.get(kind)
    ]
    kinds.sort(key=lambda each: each[1] - each[2])
    lacking = lacking_features() if row.scheme not in _NOT_PRODUCTS else ()
    evidence = {
        "scheme": row.scheme,
        "float_bundle": base.bundle,
        "ratio_of_p50": ratio,
        "profile_ms": sum(after.values()),
        "float_profile_ms": sum(before.values()),
        "kinds": kinds,
        "conversions_ms": sum(ms for kind, ms in after.items() if _CONVERSIONS.match(kind)),
        "outside_ms": _outside(base, row),
        "float_ms": _left_in_float(row),
        "lacking": lacking,
    }
    return Sentence(subject=row.bundle, text=_sentence(evidence), evidence=evidence)


def time_by_kind(operators: Sequence[OperatorTime]) -> dict[str, float]:
    """ms of each kind of operator in one inference, under one name whatever kernel of the runtime ran it."""
    times: dict[str, float] = defaultdict(float)
    for operator in operators:
        times[family(operator.kind)] += operator.ms
    return dict(times)


def family(kind: str) -> str:
    """A kind's name without its kernel: Delegate/Fully Connected (NC, F32) GEMM and FULLY_CONNECTED are one."""
    name = re.sub(r"\(.*", "", kind.removeprefix("Delegate/")).strip().replace(" ", "_")
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name) if "_" not in name else name
    name = name.lower()
    return _SAME.get(name, name)


def _outside(base: SchemeRow, row: SchemeRow) -> dict[str, float]:
    """ms of operators that the delegate's fast kernels run in the float32 file but not in this one."""
    inside = {family(each.kind) for each in _operators(base) if each.kind.startswith("Delegate/")}
    plain = [each for each in _operators(row) if not each.kind.startswith("Delegate/")]
    return time_by_kind([each for each in plain if family(each.kind) in inside])


def _left_in_float(row: SchemeRow) -> dict[str, float]:
    """ms of products that still compute in float32."""
    quantized = re.compile(r"QS8|QD8|QU8|QC8|QC4|QB4|Q(Linear|Gemm|Attention)|Integer|NBits", re.IGNORECASE)
    products = [each for each in _operators(row) if _PRODUCTS.search(family(each.kind))]
    if row.target == "tflite":
        floats = [each for each in products if "F32" in each.kind and not quantized.search(each.kind)]
    else:
        floats = [each for each in products if not quantized.search(each.kind)]
    return time_by_kind(floats)


def lacking_features() -> tuple[str, ...]:
    """What this processor lacks for fast int8 products; empty where it has one of them, or does not say."""
    machine = {"arm64": "aarch64", "amd64": "x86_64"}.get(platform.machine().lower(), platform.machine())
    flags, wanted = cpu_flags(), _INT8.get(machine, ())
    if not flags or any(CPU_FEATURES[machine][name][0] in flags for name in wanted):
        return ()
    return wanted


def _sentence(evidence: dict[str, Any]) -> str:
    total = evidence["profile_ms"] or 1.0
    parts = []
    if outside := _named(evidence["outside_ms"], total):
        parts.append(f"the fast kernels (XNNPACK) of float32 do not take {outside} in this scheme")
    if left := _named(evidence["float_ms"], total):
        parts.append(f"products left in float32: {left}")
    if evidence["conversions_ms"] >= 0.02 * total:
        share = percent(evidence["conversions_ms"] / total, 0)
        parts.append(
            f"quantizing and dequantizing take {milliseconds(evidence['conversions_ms'])} ({share} of its time)"
        )
    named = {**evidence["outside_ms"], **evidence["float_ms"]}
    grown = [(kind, b - a) for kind, a, b in evidence["kinds"] if b - a > 0.02 * total and kind not in named]
    if grown:
        told = ", ".join(f"{kind} (+{milliseconds(ms)})" for kind, ms in grown[:_MOST_NAMED])
        parts.append(f"more time than in float32 goes to {told}")
    if evidence["lacking"]:
        parts.append(f"this processor has no {' or '.join(evidence['lacking'])}, the fast path of int8 products")
    begun = f"it takes {evidence['ratio_of_p50']:.2f}× the time of {evidence['float_bundle']}"
    return f"{begun}: {'; '.join(parts)}." if parts else f"{begun}; its profile names no single cause."


def _named(times: dict[str, float], total: float) -> str:
    longest = sorted(times.items(), key=lambda each: -each[1])
    return ", ".join(
        f"{kind} ({milliseconds(ms)}, {percent(ms / total, 0)} of its time)"
        for kind, ms in longest[:_MOST_NAMED]
        if ms >= 0.02 * total
    )

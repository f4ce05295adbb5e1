"""A quantization part with rows and modules of every kind, and names that are trouble where they are not escaped."""

from edgekit.bundle import Parity
from edgekit.report.build import build_report
from edgekit.report.document import Report
from edgekit.report.quantization import (
    AccuracyChange,
    ActivationRange,
    ChangedText,
    Module,
    ModuleCost,
    ModulesPart,
    QuantizationPart,
    SchemeGroup,
    SchemeRow,
    Sentence,
    WeightRange,
)
from edgekit.statistics import summarize
from tests.measurements import latencies
from tests.report.reports import HOSTILE

WITHIN = Parity(verdict="within-tolerance", steps=300, max_abs_difference=0.1, tolerance=0.2, labels_changed=3)


def row(name: str, size_bytes: int, median_ms: float, lost: int, **changes: object) -> SchemeRow:
    accuracy = AccuracyChange(
        accuracy=0.9 - lost / 300,
        reference_accuracy=0.9,
        texts=300,
        lost=lost,
        won=0,
        change_points=-lost / 3,
        low_points=-lost / 3 - 0.7,
        high_points=-lost / 3 + 0.7,
    )
    made = {
        "bundle": name,
        "target": "tflite",
        "via": "torch",
        "scheme": name,
        "size_bytes": size_bytes,
        "parity": WITHIN,
        "accuracy": accuracy,
        "latency": summarize(latencies(median_ms)),
    }
    return SchemeRow.model_validate(made | changes)


def hostile_text() -> ChangedText:
    return ChangedText(
        text=HOSTILE, truth=HOSTILE, from_label=HOSTILE, to_label=HOSTILE, from_margin=0.5, to_margin=0.25
    )


def module(name: str, kl: float, **changes: object) -> Module:
    weight = WeightRange(
        low=-0.5,
        high=3.1,
        channels=512,
        outlier_channel=7,
        outlier_ratio=31,
        tensor_noise=1e-4,
        channel_noise=2e-5,
        channels_fix=0.8,
        int8_error=0.006,
        int4_error=0.1,
        int4_scales="in blocks of 32",
    )
    seen = ActivationRange(low=-9, high=12, outlier_channel=3, outlier_ratio=5, largest=144, headroom=455)
    cost = ModuleCost(scheme="int8", kl=kl, snr_db=30.5, drop_points=0.25, labels_changed=2, texts=300, non_finite=0)
    made = {
        "name": name,
        "elements": 4096,
        "share_of_bytes": 0.1,
        "weight": weight,
        "activation": seen,
        "costs": (cost, cost.model_copy(update={"scheme": "int4-weight", "kl": kl * 3})),
    }
    return Module.model_validate(made | changes)


def modules_part(modules: tuple[Module, ...]) -> ModulesPart:
    why = Sentence(subject="blocks.0.ffn.down", text=HOSTILE, evidence={"kl": 1})
    return ModulesPart(
        model=HOSTILE,
        target="tflite",
        texts="300 texts",
        schemes=("int8", "int4-weight"),
        threshold=0.1,
        modules=modules,
        why=(why,),
    )


def quantization_report() -> Report:
    rows = (
        row("none", 3_760_000, 0.24, 0),
        row("int8-dynamic", 1_000_000, 0.13, 1, changed_texts=(hostile_text(),)),
        row("int4-weight", 870_000, 0.15, 4),
        row(HOSTILE, 990_000, 0.84, 2, note=HOSTILE),
        row("changed", 990_000, 0.84, 2, parity=None, accuracy=None, latency=None, note="not measured"),
    )
    group = SchemeGroup(
        model=HOSTILE, model_sha256="ab" * 32, texts=HOSTILE, rows=rows, front=("int8-dynamic", "int4-weight", "none")
    )
    broken = ModuleCost(
        scheme="int8", kl=None, snr_db=None, drop_points=None, labels_changed=9, texts=300, non_finite=5
    )
    modules = (
        module("embed.tokens", 1e-3),
        module("blocks.0.ffn.down", 2e-2),
        module(HOSTILE, 0.0, weight=None, activation=None, costs=(broken,)),
    )
    part = QuantizationPart(groups=(group,), modules=modules_part(modules), remarks=(HOSTILE,))
    return build_report(title="Quantization", quantization=part)


def large_report(count: int = 500) -> Report:
    """A checkpoint of so many layers."""
    modules = tuple(module(f"blocks.{index}.ffn.down", 1e-5 * (index * 7919 % count)) for index in range(count))
    return build_report(title="Large", quantization=QuantizationPart(modules=modules_part(modules)))

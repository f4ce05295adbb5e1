"""A checkpoint by module: what quantizing each costs, and why, from its weights and what flows through it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from edgekit import extras
from edgekit.checkpoint import Checkpoint
from edgekit.errors import DataError, MissingExtraError
from edgekit.export.diagnosis.ranges import activation_ranges, weight_range
from edgekit.export.quantize.modules import SCORES, source_modules
from edgekit.export.quantize.scores import Score
from edgekit.export.quantize.sensitivity import Sensitivity
from edgekit.model.weights import parameter_shapes
from edgekit.proof.samples import held_out, stratified_sample
from edgekit.proof.texts import SAMPLE_TEXTS
from edgekit.report.numbers import percent, significant
from edgekit.report.quantization import ActivationRange, Module, ModuleCost, ModulesPart, Sentence

#: a module with this share of the divergence of all modules of its scheme, each quantized alone, is explained
THRESHOLD = 0.1
#: a channel this many times as wide as the median one is an outlier
OUTLIER = 4.0
#: below this headroom float16 is too near to its largest number to be safe on other texts
LOW_HEADROOM = 8.0
TEXTS = 500


def diagnose_modules(
    checkpoint: Checkpoint, target: str, measured: Sequence[Sensitivity], remarks: Sequence[str] = ()
) -> ModulesPart:
    """Join the sensitivity of a checkpoint's modules with the ranges of their weights and activations on real text."""
    texts, origin = _texts(checkpoint)
    told = list(remarks)
    activations: dict[str, ActivationRange] = {}
    if extras.is_installed("torch"):
        activations = activation_ranges(checkpoint, texts)
    else:
        told.append("ranges of activations were not measured: they need PyTorch (pip install 'edgekit-toolkit[torch]')")
    modules = _modules(checkpoint, measured, activations)
    schemes = tuple(each.scheme for each in measured)
    return ModulesPart(
        model=checkpoint.name,
        target=target,
        texts=measured[0].texts if measured else f"{len(texts)} {origin}",
        schemes=schemes,
        threshold=THRESHOLD,
        modules=modules,
        why=tuple(line for scheme in schemes for line in explain_modules(modules, scheme, target)),
        headroom=explain_headroom(modules),
        remarks=tuple(told),
    )


def _texts(checkpoint: Checkpoint) -> tuple[list[str], str]:
    """Validation texts where the data is there, else edgekit's own samples."""
    try:
        chosen = stratified_sample(held_out(checkpoint, "validation"), TEXTS)
    except (DataError, MissingExtraError):
        return list(SAMPLE_TEXTS), "of edgekit's own samples"
    return [example.text for example in chosen], "validation texts"


def _modules(
    checkpoint: Checkpoint, measured: Sequence[Sensitivity], activations: Mapping[str, ActivationRange]
) -> tuple[Module, ...]:
    elements: dict[str, int] = {}
    for name, shape in parameter_shapes(checkpoint.config).items():
        module = name.rsplit(".", 1)[0]
        elements[module] = elements.get(module, 0) + math.prod(shape)
    whole = sum(elements.values())
    costs: dict[str, list[ModuleCost]] = {}
    for each in measured:
        for found in each.modules:
            costs.setdefault(found.module, []).append(_cost(each.scheme, found.alone))
    weights = checkpoint.weights
    return tuple(
        Module(
            name=name,
            elements=elements.get(name, 0),
            share_of_bytes=elements.get(name, 0) / whole,
            weight=weight_range(weights[f"{name}.weight"]) if f"{name}.weight" in weights else None,
            activation=activations.get(name),
            costs=tuple(costs.get(name, ())),
        )
        for name in source_modules(checkpoint.config)
    )


def _cost(scheme: str, score: Score) -> ModuleCost:
    return ModuleCost(
        scheme=scheme,
        kl=score.kl,
        snr_db=score.snr_db,
        drop_points=score.drop,
        labels_changed=score.labels_changed,
        texts=score.texts,
        non_finite=score.non_finite,
        error=score.error,
    )


def explain_modules(modules: Sequence[Module], scheme: str, target: str) -> list[Sentence]:
    """A sentence for each module that has over THRESHOLD of the scheme's divergence, or breaks; costliest first."""
    costs = {module.name: cost for module in modules for cost in module.costs if cost.scheme == scheme}
    total = sum(cost.kl or 0.0 for cost in costs.values())
    found = []
    for module in modules:
        cost = costs.get(module.name)
        if cost is None:
            continue
        share = (cost.kl or 0.0) / total if total else 0.0
        if share >= THRESHOLD or cost.non_finite or cost.error:
            found.append((share, _explain(module, cost, share, target)))
    return [sentence for _, sentence in sorted(found, key=lambda each: -each[0])]


def _explain(module: Module, cost: ModuleCost, share: float, target: str) -> Sentence:
    evidence: dict[str, Any] = {
        "scheme": cost.scheme,
        "kl": cost.kl,
        "share_of_kl": share,
        "labels_changed": cost.labels_changed,
    }
    if cost.error:
        return Sentence(subject=module.name, text=f"{cost.scheme} failed here: {cost.error}", evidence=evidence)
    if cost.non_finite:
        return Sentence(subject=module.name, text=f"{cost.scheme} makes NaN or infinity here.", evidence=evidence)
    begun = f"{cost.scheme} here makes {percent(share, 0)} of what all modules lose, each quantized alone"
    reasons = [
        *_weight_reasons(module, _has_one_scale(module.name, cost.scheme, target)),
        *_activation_reasons(module, cost.scheme),
    ]
    if module.weight:
        evidence |= {"weight": module.weight.model_dump(mode="json")}
    if module.activation:
        evidence |= {"activation": module.activation.model_dump(mode="json")}
    if not reasons:
        known = "its ranges are even" if module.weight or module.activation else "its ranges were not measured"
        place = f"{known}, and it holds {percent(module.share_of_bytes, 0)} of the weights"
        reasons.append(f"no outlier explains it: {place}")
    return Sentence(subject=module.name, text=f"{begun}; {'; '.join(reasons)}.", evidence=evidence)


def _has_one_scale(module: str, scheme: str, target: str) -> bool:
    """Whether a scheme has one scale for a whole weight: the token table in int8 schemes of TFLite, as SCHEMES says."""
    return target == "tflite" and module == "embed.tokens" and scheme in ("int8", "int8-dynamic", "int8-weight")


def _weight_reasons(module: Module, one_scale: bool) -> list[str]:
    weight = module.weight
    if weight is None:
        return []
    reasons = []
    if weight.outlier_ratio >= OUTLIER:
        reasons.append(
            f"weight channel {weight.outlier_channel} of {weight.channels} has "
            f"{significant(weight.outlier_ratio)}× the median range"
        )
    if weight.channels_fix >= 0.2:
        share = f"{percent(weight.channels_fix, 0)} of its int8 weights' squared error"
        one = "the scheme has one scale for all its rows, and scales by channel would fix"
        reasons.append(f"{one if one_scale else 'its scales by channel fix'} {share}")
    return reasons


def _activation_reasons(module: Module, scheme: str) -> list[str]:
    seen = module.activation
    if seen is None or scheme == "int8-weight":
        return []
    if seen.outlier_ratio >= OUTLIER and not module.name.endswith(SCORES):
        low, high = significant(seen.low), significant(seen.high)
        return [
            f"channel {seen.outlier_channel} of its activations has {significant(seen.outlier_ratio)}× the median "
            f"range ({low} to {high}), and all of them share one scale"
        ]
    return []


def explain_headroom(modules: Sequence[Module]) -> tuple[Sentence, ...]:
    """How far norms and softmax are from float16's largest number: the nearest of each, and all that are too near."""
    found = []
    kinds = {"norms": ("_norm", "the largest square"), "softmax": (SCORES, "the largest score")}
    for kind, (suffix, what) in kinds.items():
        seen = [(m.name, m.activation) for m in modules if m.name.endswith(suffix) and m.activation]
        known = sorted(((a.headroom, n, a) for n, a in seen if a.headroom is not None), key=lambda each: each[:2])
        if known:
            headroom, name, activation = known[0]
            near = [n for h, n, _ in known if h < LOW_HEADROOM]
            verdict = (
                f"float16 overflows there: keep {', '.join(near)} in float32"
                if headroom < 1
                else f"too near for float16 to be safe on other texts in {', '.join(near)}"
                if near
                else "float16 is safe there"
            )
            place = f"{what} is {significant(activation.largest)} in {name}"
            text = f"{place}, {significant(headroom)}× below 65504: {verdict}."
            evidence = {"module": name, "largest": activation.largest, "headroom": headroom, "near": near}
            found.append(Sentence(subject=f"fp16 headroom of {kind}", text=text, evidence=evidence))
    return tuple(found)

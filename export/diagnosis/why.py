"""Why quantizing a module costs what it costs, in sentences made of the numbers that stand beside them."""

from collections.abc import Sequence
from typing import Any

from edgekit.export.diagnosis.storage import quantizes_input, weight_scales
from edgekit.export.quantize.modules import SCORES
from edgekit.report.numbers import percent, significant
from edgekit.report.quantization import Module, ModuleCost, Sentence

#: a module with this share of the divergence of all modules of its scheme, each quantized alone, is explained
THRESHOLD = 0.1
#: a channel this many times as wide as the median one is an outlier
OUTLIER = 4.0
#: below this headroom float16 is too near to its largest number to be safe on other texts
LOW_HEADROOM = 8.0
#: the share of an error that scales by channel must fix to be worth a word
WORTH = 0.2


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
    known = _weight_facts(module, cost.scheme, target)
    causes = [*_weight_causes(module, cost.scheme, target), *_activation_causes(module, cost.scheme, target)]
    if module.weight:
        evidence |= {"weight": module.weight.model_dump(mode="json")}
    if module.activation:
        evidence |= {"activation": module.activation.model_dump(mode="json")}
    if not causes:
        ranges = "its ranges are even" if module.weight or module.activation else "its ranges were not measured"
        share_of_bytes = percent(module.share_of_bytes, 0) if module.share_of_bytes >= 0.01 else "under 1 %"
        place = f"it holds {share_of_bytes} of the weights" if module.elements else "it has no weights"
        causes = [f"nothing else explains it: {place}" if known else f"no outlier explains it: {ranges}, and {place}"]
        evidence |= {"share_of_bytes": module.share_of_bytes}
    return Sentence(subject=module.name, text=f"{begun}; {'; '.join([*known, *causes])}.", evidence=evidence)


def _weight_facts(module: Module, scheme: str, target: str) -> list[str]:
    """The widest channel, and what the scheme already does about it."""
    weight = module.weight
    if weight is None or weight.outlier_ratio < OUTLIER:
        return []
    ratio = significant(weight.outlier_ratio)
    found = f"weight channel {weight.outlier_channel} of {weight.channels} has {ratio}× the median range"
    if weight_scales(module.name, scheme, target) == "channel" and weight.channels_fix >= WORTH:
        share = percent(weight.channels_fix, 0)
        found += f", and the scheme's scales by channel fix {share} of the squared error of int8 with one scale"
    return [found]


def _weight_causes(module: Module, scheme: str, target: str) -> list[str]:
    weight, scales = module.weight, weight_scales(module.name, scheme, target)
    if weight is None:
        return []
    if scales == "tensor" and weight.channels_fix >= WORTH:
        share = percent(weight.channels_fix, 0)
        return [f"the scheme has one scale for all its rows: scales by channel would fix {share} of its squared error"]
    if scheme == "int4-weight":
        int4, int8 = (percent(error) for error in (weight.int4_error, weight.int8_error))
        return [f"its weights rounded to int4 {weight.int4_scales} are off by {int4} of their size, to int8 by {int8}"]
    return []


def _activation_causes(module: Module, scheme: str, target: str) -> list[str]:
    seen = module.activation
    if seen is None or seen.outlier_ratio < OUTLIER or not quantizes_input(module.name, scheme, target):
        return []
    low, high = significant(seen.low), significant(seen.high)
    return [
        f"channel {seen.outlier_channel} of its activations has {significant(seen.outlier_ratio)}× the median "
        f"range ({low} to {high}), and all of them share one scale"
    ]


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

"""A checkpoint by module: what quantizing each costs, what flows through it, and its share of bytes and of time."""

import math
from collections.abc import Mapping, Sequence

from edgekit import extras
from edgekit.checkpoint import Checkpoint
from edgekit.errors import DataError, MissingExtraError
from edgekit.export.diagnosis.ranges import activation_ranges, weight_range
from edgekit.export.diagnosis.times import ModuleTimes
from edgekit.export.diagnosis.why import THRESHOLD, explain_headroom, explain_modules
from edgekit.export.quantize.modules import source_modules
from edgekit.export.quantize.scores import Score
from edgekit.export.quantize.sensitivity import Sensitivity
from edgekit.model.weights import parameter_shapes
from edgekit.proof.samples import held_out, stratified_sample
from edgekit.proof.texts import SAMPLE_TEXTS
from edgekit.report.quantization import ActivationRange, Module, ModuleCost, ModulesPart

TEXTS = 500


def diagnose_modules(
    checkpoint: Checkpoint,
    target: str,
    measured: Sequence[Sensitivity],
    times: ModuleTimes,
    remarks: Sequence[str] = (),
) -> ModulesPart:
    """Join the sensitivity of a checkpoint's modules with their shares and the ranges of what flows on real text."""
    texts, origin = _texts(checkpoint)
    told = list(remarks)
    activations: dict[str, ActivationRange] = {}
    if extras.is_installed("torch"):
        activations = activation_ranges(checkpoint, texts)
    else:
        told.append("ranges of activations were not measured: they need PyTorch (pip install 'edgekit-toolkit[torch]')")
    modules = _modules(checkpoint, measured, activations, times.shares)
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
        times=times.origin,
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
    checkpoint: Checkpoint,
    measured: Sequence[Sensitivity],
    activations: Mapping[str, ActivationRange],
    times: Mapping[str, float],
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
            share_of_time=times.get(name),
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

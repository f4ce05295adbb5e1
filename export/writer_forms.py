"""What a target makes of the signatures of a model that writes, and of their golden steps."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from edgekit.export.plan import PlannedExport
from edgekit.program import PAST, Signature, TensorSpec
from edgekit.proof.golden import Arrays, Step
from edgekit.sources.checkpoint import SIGNATURE
from edgekit.sources.writers import DECODE, PREFILL, WriterShape, without_shorter
from edgekit.sources.writers_coreml import coreml_name, passed_signatures, stateful_signatures
from edgekit.sources.writers_onnx import fixed_signatures, growing_signatures

#: inputs of a cache of fixed size, by the names that they have with one that grows
_GROWING = {"ids": "input_ids", "source_ids": "input_ids"}
_PAST, _PRESENT, _SOURCE = "past_key_values", "present", ".encoder."


def target_signatures(plan: PlannedExport, config: WriterShape, own: Sequence[Signature]) -> tuple[Signature, ...]:
    """The signatures of a plan's file; `own` are those of the program with a cache of fixed size."""
    if plan.target.name != "tflite":
        own = without_shorter(own)
    if plan.target.name == "onnx":
        return growing_signatures(config) if plan.kv_cache == "dynamic" else fixed_signatures(own, plan.route)
    if plan.cache_dtype == "int8":
        return tuple(_with_int8_cache(signature) for signature in own)
    if plan.coreml is None:
        return tuple(own)
    return stateful_signatures(own) if plan.stateful else passed_signatures(own)


def _with_int8_cache(signature: Signature) -> Signature:
    """A signature whose caches go in and out as int8."""

    def changed(specs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
        return tuple(
            spec.model_copy(update={"dtype": "int8"}) if spec.name.startswith((_PAST, _PRESENT)) else spec
            for spec in specs
        )

    return signature.model_copy(update={"inputs": changed(signature.inputs), "outputs": changed(signature.outputs)})


def fit_writer_steps(steps: Sequence[Step], signatures: Sequence[Signature]) -> tuple[Step, ...]:
    """Steps of a program with a cache of fixed size, as a file of these signatures takes and answers them.

    What the file has no signature for is left out.
    """
    known = {signature.name: signature for signature in signatures}
    grows = any(PAST in spec.axes.values() for each in signatures for spec in each.inputs)
    fitted = []
    for step in steps:
        name = SIGNATURE if step.signature not in known and SIGNATURE in known else step.signature
        changed = _grown(step) if grows else step
        if name in known and _takes(known[name], changed):
            fitted.append(_named(replace(changed, signature=name), known[name]))
    return tuple(fitted)


def _takes(signature: Signature, step: Step) -> bool:
    """Whether a signature takes as many ids at once as a step has."""
    shapes = {coreml_name(name): value.shape for name, value in step.inputs.items()}
    ids = signature.inputs[0]
    return bool(ids.axes) or shapes.get(ids.name, ids.shape) == ids.shape


def _named(step: Step, signature: Signature) -> Step:
    """The step by the names and types of the signature."""
    inputs = {spec.name: spec for spec in signature.inputs}
    outputs = {spec.name for spec in signature.outputs}

    def name_in(names: Any, name: str) -> str:
        return name if name in names else coreml_name(name)

    given = {name_in(inputs, name): value for name, value in step.inputs.items()}
    found = {name_in(outputs, name): value for name, value in step.outputs.items()}
    return replace(
        step,
        inputs={name: value.astype(inputs[name].dtype) for name, value in given.items() if name in inputs},
        outputs={name: value for name, value in found.items() if name in outputs},
    )


def _grown(step: Step) -> Step:
    """The step with a cache of its text so far, and no longer."""
    if not step.signature.startswith((PREFILL, DECODE)):
        mask = {"attention_mask": step.inputs["source_mask"]}
        return replace(step, inputs=mask | {_GROWING.get(name, name): v for name, v in step.inputs.items()})
    position, count = int(step.inputs["position"][0]), step.inputs["ids"].shape[1]
    inputs = {_GROWING.get(name, name): _cut(name, value, position) for name, value in step.inputs.items()}
    total = position + count
    inputs["attention_mask"] = np.ones((1, total), np.int64)
    inputs["position_ids"] = np.arange(position, total)[None]
    if "source_mask" in inputs:
        inputs["encoder_attention_mask"] = inputs["source_mask"]
    outputs: Arrays = {name: _cut(name, value, total) for name, value in step.outputs.items()}
    return replace(step, inputs=inputs, outputs=outputs)


def _cut(name: str, value: Any, length: int) -> Any:
    """The first tokens of a cache; what is none, or the source's, stays."""
    return value[:, :, :length] if name.startswith((_PAST, _PRESENT)) and _SOURCE not in name else value

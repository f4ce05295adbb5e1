"""Signatures of models that write as Core ML has them: names without dots, and states that the package keeps itself.

Core ML keeps states from iOS 18 on, in float16, and has several functions over one copy of the weights. Before it a
package has one function, which takes the cache and gives it back, one token in each call; a model that translates is
two packages.
"""

from collections.abc import Sequence

from edgekit.program import NEXT_POSITION, Signature, TensorSpec
from edgekit.sources.checkpoint import SIGNATURE
from edgekit.sources.writers import DECODE


def stateful_signatures(signatures: Sequence[Signature]) -> tuple[Signature, ...]:
    """The same with states that the package keeps; `decode` is the default, and first."""
    ordered = sorted(signatures, key=lambda each: each.name != DECODE)
    return tuple(_stateful(_without_dots(signature)) for signature in ordered)


def passed_signatures(signatures: Sequence[Signature]) -> tuple[Signature, ...]:
    """`decode` alone, a function with the cache as inputs and outputs; to translate, `encode` as well."""
    if any(signature.given for signature in signatures):
        return tuple(map(_without_dots, signatures))
    decode = next(signature for signature in signatures if signature.name == DECODE)
    return (_without_dots(decode).model_copy(update={"name": SIGNATURE}),)


def coreml_name(name: str) -> str:
    """A tensor's name as Core ML takes it."""
    return name.replace(".", "_")


def _without_dots(signature: Signature) -> Signature:
    def renamed(specs: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
        return tuple(spec.model_copy(update={"name": coreml_name(spec.name)}) for spec in specs)

    def pairs(names: dict[str, str]) -> dict[str, str]:
        return {coreml_name(key): coreml_name(value) for key, value in names.items()}

    update = {"inputs": renamed(signature.inputs), "outputs": renamed(signature.outputs)}
    return signature.model_copy(update={**update, "states": pairs(signature.states), "given": pairs(signature.given)})


def _stateful(signature: Signature) -> Signature:
    if not signature.states:
        return signature
    kept = {*signature.states, *signature.states.values()}

    def halved(specs: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
        return tuple(s.model_copy(update={"dtype": "float16"}) if s.name in kept else s for s in specs)

    inputs, outputs = halved(signature.inputs), halved(signature.outputs)
    if all(spec.name in kept for spec in outputs):  # Core ML has no function without outputs
        outputs = (TensorSpec(name=NEXT_POSITION, dtype="int32", shape=(1,)), *outputs)
    return signature.model_copy(update={"inputs": inputs, "outputs": outputs, "stateful": True})

"""A TensorFlow program as converters take it: a function per signature, and a SavedModel with its weights inside."""

import uuid
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf import fingerprint_pb2
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from edgekit.program import Program, Signature


def input_specs(signature: Signature, flexible: Collection[str] = ()) -> list[Any]:
    """The signature's inputs as `tf.TensorSpec`s; those named in `flexible` take any length (axis 1)."""
    return [
        tf.TensorSpec((spec.shape[0], None) if spec.name in flexible else spec.shape, spec.dtype, name=spec.name)
        for spec in signature.inputs
    ]


def flexible_inputs(signature: Signature) -> tuple[str, ...]:
    """The inputs that take any length."""
    return tuple(spec.name for spec in signature.inputs) if signature.dynamic_length else ()


def caller(program: Program, signature: Signature) -> Callable[..., dict[str, Any]]:
    """A Python function of the signature's positional inputs that answers {output name: tensor}."""
    module = program.module
    method = module if signature.method == "call" else getattr(module, signature.method)
    names = tuple(spec.name for spec in signature.outputs)

    def run(*tensors: Any) -> dict[str, Any]:
        outputs = method(tuple(tensors), training=False)
        values = outputs if isinstance(outputs, (tuple, list)) else (outputs,)
        return dict(zip(names, values, strict=True))

    return run


def signature_function(program: Program, signature: Signature, flexible: Collection[str] = ()) -> Any:
    """The signature as a `tf.function` with its input signature set, `flexible` as in `input_specs`."""
    return tf.function(caller(program, signature), input_signature=input_specs(signature, flexible))


def save_frozen(program: Program, folder: Path) -> None:
    """Write a SavedModel that holds every signature with its weights as constants.

    A Keras 3 model that is saved or converted as it stands (TensorFlow 2.21: `tf.saved_model.save(model)`,
    `from_concrete_functions([...], model)`) loses its variables: the file loads and answers NaN.
    """
    module = tf.Module()
    functions = {}
    for signature in program.signatures:
        functions[signature.name] = _frozen_function(program, signature)
    module.functions = functions
    # Gradients are not for devices, and TensorFlow 2.21 fails to save those of a frozen silu ("invalid capture").
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    tf.saved_model.save(module, str(folder), signatures=functions, options=options)
    _fix_fingerprint(folder)


def _frozen_function(program: Program, signature: Signature) -> Any:
    flexible = flexible_inputs(signature)
    concrete = signature_function(program, signature, flexible).get_concrete_function()
    frozen = convert_variables_to_constants_v2(concrete)
    # Freezing drops the outputs' names and keeps their order, which is that of the sorted names.
    specs = sorted(signature.outputs, key=lambda spec: spec.name)

    def run(*tensors: Any) -> dict[str, Any]:
        values = frozen(*tensors)
        for spec, value in zip(specs, values, strict=True):
            value.set_shape(spec.shape)  # lost where the length is free
        return dict(zip([spec.name for spec in specs], values, strict=True))

    return tf.function(run, input_signature=input_specs(signature, flexible))


def _fix_fingerprint(folder: Path) -> None:
    """Replace the random id that TensorFlow 2.21 gives each SavedModel by one that follows from its content."""
    path = folder / "fingerprint.pb"
    fingerprint = fingerprint_pb2.FingerprintDef.FromString(path.read_bytes())
    fingerprint.uuid = ""
    content = fingerprint.SerializeToString(deterministic=True)
    fingerprint.uuid = str(uuid.uuid5(uuid.NAMESPACE_OID, content.hex()))
    path.write_bytes(fingerprint.SerializeToString(deterministic=True))

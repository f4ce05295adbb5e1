"""A live Keras model → Program: plain inputs of 32 bits by position, outputs by name."""

from collections.abc import Iterator, Mapping
from typing import Any

from edgekit.errors import CheckpointError, RefusedError
from edgekit.extras import require
from edgekit.program import Program, TensorSpec
from edgekit.sources.factory import signature_of


class NamedModel:
    """Calls a Keras model with its inputs in their order and gives its tensors, in order."""

    def __init__(self, model: Any) -> None:
        self.model = model

    @property
    def trainable_weights(self) -> list[Any]:
        """The model's weights, to be counted."""
        return list(self.model.weights)

    def _flatten_layers(self) -> Iterator[Any]:
        yield from self.model._flatten_layers()

    def __call__(self, inputs: tuple[Any, ...], training: bool = False) -> tuple[Any, ...]:
        """The outputs of a tuple of inputs."""
        return tuple(self.call(inputs, training=training).values())

    def call(self, inputs: tuple[Any, ...], training: bool = False) -> dict[str, Any]:
        """The outputs by name."""
        given: Any = inputs[0] if len(inputs) == 1 else list(inputs)
        wanted = getattr(self.model, "input", None)
        if isinstance(wanted, Mapping):
            given = dict(zip(wanted, inputs, strict=True))
        return dict(_named(self.model(given, training=training), "output"))


def keras_program(model: Any, specs: tuple[TensorSpec, ...], name: str) -> Program:
    """The model in inference mode.

    Raises RefusedError for what is no Keras model or gives no tensors, CheckpointError where it can't be called so.
    """
    require("tensorflow", f"building {name}")
    import keras
    import tensorflow as tf

    if not isinstance(model, keras.Model):
        raise RefusedError(f"{name} gives a {type(model).__name__}: it must give a torch.nn.Module or a Keras model")
    named = NamedModel(model)
    try:
        outputs = named.call(tuple(tf.zeros(spec.shape, spec.dtype) for spec in specs))
    except Exception as error:  # the user's code raises anything
        first = (str(error).strip() or "no word").splitlines()[0]
        shapes = ", ".join(f"{spec.name}:{spec.dtype}{list(spec.shape)}" for spec in specs)
        raise CheckpointError(f"{name} can't be called with {shapes}: {type(error).__name__}: {first}") from error
    signature = signature_of(specs, {key: value.numpy() for key, value in outputs.items()}, "call", name)
    return Program(framework="tensorflow", module=named, signatures=(signature,))


def _named(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from _named(each, str(key))
    elif isinstance(value, (tuple, list)):
        for index, each in enumerate(value):
            yield from _named(each, f"{name}_{index}")
    elif value is not None:
        yield name, value

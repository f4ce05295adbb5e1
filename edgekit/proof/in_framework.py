"""A checkpoint that writes, run by its framework through the loop of `devices/runner`: the source beside its files."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.checkpoint import Checkpoint
from edgekit.devices.runner.backend import Backend, Port
from edgekit.devices.runner.backend import Signature as LoadedSignature
from edgekit.devices.runner.failures import RunError
from edgekit.devices.runner.generation_job import generate, parse_generation
from edgekit.errors import RunnerError
from edgekit.program import Program, TensorSpec
from edgekit.proof.replay import OnEvent
from edgekit.proof.runner_events import SCHEMA, Event
from edgekit.proof.writing import RunWriter
from edgekit.sources.checkpoint import usable_framework
from edgekit.sources.writers import build_writer_program

#: calls a signature by name
Call = Callable[[str, dict[str, NDArray[Any]]], dict[str, NDArray[Any]]]


class ProgramBackend(Backend):
    """A live program as the runner sees a loaded file; `call` runs a signature of it, where that is traced."""

    def __init__(self, program: Program, call: Call | None = None) -> None:
        self._program, self._call = program, call
        self._known = {signature.name: signature for signature in program.signatures}
        self.version = program.framework
        self.signatures = {
            name: LoadedSignature(_ports(signature.inputs), _ports(signature.outputs))
            for name, signature in self._known.items()
        }

    def run(self, signature: str, inputs: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        """Call the method of a signature in the framework."""
        if self._call is not None:
            return self._call(signature, {name: np.asarray(value) for name, value in inputs.items()})
        known = self._known[signature]
        given = [np.asarray(inputs[spec.name]) for spec in known.inputs]
        method = getattr(self._program.module, known.method)
        if self._program.framework == "torch":
            import torch

            with torch.inference_mode():
                outputs = method(*map(torch.from_numpy, given))
        else:
            outputs = method(tuple(given), training=False)
        return {spec.name: np.asarray(value) for spec, value in zip(known.outputs, outputs, strict=True)}


def run_checkpoint(checkpoint: Checkpoint) -> RunWriter:
    """Return what runs jobs of the operation `generate` with the checkpoint's model, in this process."""
    program = build_writer_program(checkpoint, usable_framework(checkpoint))
    return run_backend(ProgramBackend(program), checkpoint.name)


def run_backend(backend: Backend, name: str) -> RunWriter:
    """Return what runs jobs of the operation `generate` on a backend, in this process; errors begin with `name`."""

    def run(fields: dict[str, Any], on_event: OnEvent) -> list[Event]:
        events = _Events(on_event)
        try:
            generate(backend, parse_generation(fields), events)
        except RunError as error:
            raise RunnerError(f"{name}: {error}") from error
        return events.told

    return run


class _Events:
    """What the runner says, in this process."""

    def __init__(self, on_event: OnEvent) -> None:
        self.told: list[Event] = []
        self._on_event = on_event

    def emit(self, event: str, **fields: Any) -> None:
        """Hand an event on."""
        self.told.append({"schema": SCHEMA, "event": event, **fields})
        self._on_event(self.told[-1])


def _ports(specs: tuple[TensorSpec, ...]) -> dict[str, Port]:
    return {spec.name: Port(spec.dtype, spec.shape) for spec in specs}

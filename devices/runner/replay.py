"""Replays steps on a loaded file: checks the inputs against what the file declares, and counts NaN and infinity."""

from typing import Any, NamedTuple

import numpy as np

from .backend import Backend, Port
from .failures import RunError, first_line
from .steps import Arrays, Step

_INTEGERS = ("int32", "int64")


class Replayed(NamedTuple):
    """Outputs of all steps, and how many of their values are NaN or infinite, by output name (none: empty)."""

    outputs: list[tuple[Step, Arrays]]
    non_finite: dict[str, int]


def replay(backend: Backend, steps: list[Step]) -> Replayed:
    """Run every step in order.

    Raises RunError: "bad-input" for inputs that do not fit, "run-failed" where the runtime raises.
    """
    outputs = []
    non_finite: dict[str, int] = {}
    for step in steps:
        produced = run_step(backend, step)
        outputs.append((step, produced))
        for name, value in produced.items():
            if value.dtype.kind == "f":
                broken = int(np.size(value) - np.count_nonzero(np.isfinite(value)))
                if broken:
                    non_finite[name] = non_finite.get(name, 0) + broken
    return Replayed(outputs, non_finite)


def run_step(backend: Backend, step: Step) -> Arrays:
    """Run one step, its inputs checked and, where only the width of integers differs, converted."""
    signature = backend.resolve(step.signature)
    inputs = fit_inputs(backend.signatures[signature].inputs, step)
    try:
        return backend.run(signature, inputs)
    except Exception as error:
        raise RunError("run-failed", f"step {step.number} failed: {first_line(error)}") from error


def fit_inputs(ports: dict[str, Port], step: Step) -> Arrays:
    """The step's inputs as the file takes them; raises RunError("bad-input") naming the one that does not fit."""
    for name in step.inputs:
        if name not in ports:
            raise RunError("bad-input", f"step {step.number}: the file has no input {name!r}: {_known(ports)}")
    for name in ports:
        if name not in step.inputs:
            raise RunError("bad-input", f"step {step.number} lacks the input {name!r}")
    return {name: _fit(name, port, step) for name, port in ports.items()}


def _fit(name: str, port: Port, step: Step) -> Any:
    value = step.inputs[name]
    where = f"step {step.number}: the input {name!r}"
    if len(value.shape) != len(port.shape) or any(d not in (None, s) for s, d in zip(value.shape, port.shape)):
        declared = [("any" if size is None else size) for size in port.shape]
        raise RunError("bad-input", f"{where} has the shape {list(value.shape)}, the file takes {declared}")
    given = value.dtype.name
    if given == port.dtype:
        return value
    if given not in _INTEGERS or port.dtype not in _INTEGERS:
        raise RunError("bad-input", f"{where} is {given}, the file takes {port.dtype}")
    limits = np.iinfo(port.dtype)
    if value.size and (value.min() < limits.min or value.max() > limits.max):
        raise RunError("bad-input", f"{where} has values beyond {port.dtype}")
    return value.astype(port.dtype)


def _known(ports: dict[str, Port]) -> str:
    return "it takes " + ", ".join(sorted(ports))

"""Stands in for libcoremlpython, the native part of coremltools that only macOS has; all of its Python stays real.

`predict` evaluates the package in numpy. The plan puts what computes on the Neural Engine, where the compute units
allow it, and what moves or compares integers on the CPU: not what Apple's would say, but in its form.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import coremltools
import numpy as np
from coremltools.models import compute_device, compute_plan
from coremltools.models import model as models

from edgekit.mil.evaluator import load_evaluator

ON_CPU = ("gather", "cast")


class Proxy:
    """A loaded model, constructed and called as coremltools 9.0 does it."""

    newest = 9

    def __init__(self, filename: str, units: str, function: str, hints: dict[str, str], asset: None) -> None:
        if (Path(filename) / "refused").exists():
            raise RuntimeError("Error compiling model: as the test wants it")
        self.path, self.units, self.function = filename, units, function
        self.evaluator = load_evaluator(Path(filename))

    @classmethod
    def maximum_supported_specification_version(cls) -> int:
        return cls.newest

    def predict(self, data: dict[str, Any], state: "StateProxy | None" = None) -> dict[str, Any]:
        names = self.evaluator.states.get(self.function, {})
        if names and (state is None or state.function != self.function):
            raise RuntimeError("the state is not of this function, which Apple does not promise to take")
        for name in names:
            self.evaluator.write_state(name, state.values[name])
        outputs = self.evaluator.run(data, self.function)
        for name in names:
            state.values[name] = self.evaluator.read_state(name)
        return outputs

    def newState(self) -> "StateProxy":
        return StateProxy(self.function, self.evaluator.states[self.function])

    def get_compiled_model_path(self) -> str:
        return self.path

    @staticmethod
    def get_compute_plan(path: str, units: str) -> compute_plan.MLComputePlan:
        return compute_plan.MLComputePlan(PlanProxy(path, units))


class StateProxy:
    """The states of a function, zeros first, copied when they are read or written."""

    def __init__(self, function: str, ports: dict[str, Any]) -> None:
        self.function = function
        self.values = {name: np.zeros(port.shape, port.dtype) for name, port in ports.items()}

    def read_state(self, name: str) -> Any:
        return self.values[name].copy()

    def write_state(self, name: str, value: Any) -> None:
        if value.shape != self.values[name].shape or value.dtype != self.values[name].dtype:
            raise RuntimeError(f"{name} is {value.dtype} {value.shape}")
        self.values[name] = value.copy()


class PlanProxy:
    """A compute plan over coremltools' own classes."""

    def __init__(self, path: str, units: str) -> None:
        functions = coremltools.utils.load_spec(path).mlProgram.functions
        self.units = units
        self.model_structure = compute_plan.MLModelStructure(
            neuralnetwork=None,
            program=compute_plan.MLModelStructureProgram(
                {name: _function(function) for name, function in functions.items()}
            ),
            pipeline=None,
        )

    def get_compute_device_usage_for_mlprogram_operation(self, operation: Any) -> Any:
        if operation.operator_name == "const":
            return None
        both = ["MLCPUComputeDevice"]
        if self.units in ("ALL", "CPU_AND_NE") and operation.operator_name not in ON_CPU:
            both.append("MLNeuralEngineComputeDevice")
        if self.units in ("ALL", "CPU_AND_GPU"):
            both.append("MLGPUComputeDevice")
        devices = [object.__new__(getattr(compute_device, name)) for name in both]
        preferred = 0 if operation.operator_name in ON_CPU else min(1, len(devices) - 1)
        return compute_plan.MLComputePlanDeviceUsage(devices[preferred], devices)

    def get_estimated_cost_for_mlprogram_operation(self, operation: Any) -> Any:
        return compute_plan.MLComputePlanCost(0.5) if operation.operator_name == "linear" else None


def _function(function: Any) -> compute_plan.MLModelStructureProgramFunction:
    operations = [
        compute_plan.MLModelStructureProgramOperation(
            inputs={},
            operator_name=operation.type,
            outputs=[compute_plan.MLModelStructureProgramNamedValueType(each.name, None) for each in operation.outputs],
            blocks=[],
            __proxy__=None,
        )
        for operation in function.block_specializations[function.opset].operations
    ]
    block = compute_plan.MLModelStructureProgramBlock(inputs=[], operations=operations, output_names=[])
    return compute_plan.MLModelStructureProgramFunction(inputs=[], block=block)


@contextmanager
def macos() -> Iterator[None]:
    """coremltools with the stand-in for its native part, and a system that says that it is macOS."""
    with (
        patch.object(models, "_MLModelProxy", Proxy),
        patch.object(models, "_is_macos", lambda: True),
        patch.object(models, "_macos_version", lambda: (15, 0)),
        patch.object(compute_plan, "_MLModelProxy", Proxy),
        patch.object(compute_plan, "_MLComputePlanProxy", PlanProxy),
        patch("edgekit.devices.runner.backend_coreml.sys") as system,
    ):
        system.platform = "darwin"
        yield

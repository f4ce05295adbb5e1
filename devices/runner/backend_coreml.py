"""Core ML packages in Core ML itself, through coremltools' predict; on macOS only, where Core ML is."""

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Optional

import numpy as np

from .backend import UNNAMED, Backend, Call, Port, Signature, nothing
from .failures import RunError, first_line
from .job import RunnerJob
from .session import kept_name
from .session_coreml import CoremlSession
from .steps import Arrays

#: a job's compute units → coremltools' name of them: what Core ML may use, not what it will
COMPUTE_UNITS = {"cpu": "CPU_ONLY", "cpu+gpu": "CPU_AND_GPU", "cpu+ane": "CPU_AND_NE", "all": "ALL"}
ACCELERATORS = {"coreml": ("cpu", "coreml")}

_DTYPES = {"FLOAT16": "float16", "FLOAT32": "float32", "DOUBLE": "float64", "INT32": "int32", "INT8": "int8"}
_DEVICES = {"MLCPUComputeDevice": "CPU", "MLGPUComputeDevice": "GPU", "MLNeuralEngineComputeDevice": "ANE"}


def import_runtime(runtime: str) -> Any:
    """Import coremltools; raises ImportError without it, or where there is no Core ML."""
    if sys.platform != "darwin":
        raise ImportError("Core ML is part of macOS, and this is another system")
    import coremltools

    return coremltools


def load(runtime: Any, job: RunnerJob) -> Backend:
    """Load a package; raises RunError for unknown compute units, or with what Core ML refuses it for."""
    if job.compute_units not in COMPUTE_UNITS:
        known = ", ".join(COMPUTE_UNITS)
        raise RunError("bad-job", f"unknown compute units {job.compute_units!r}: known are {known}")
    return CoremlBackend(runtime, job)


class CoremlBackend(Backend):
    """A loaded model for each function of a package; one without named functions has a single unnamed entry.

    Of a folder of packages each is a function, by its own name.
    """

    def __init__(self, runtime: Any, job: RunnerJob) -> None:
        self.version = str(runtime.__version__)
        self._coremltools = runtime
        self._units = runtime.ComputeUnit[COMPUTE_UNITS[job.compute_units]]
        self._port_name = runtime.proto.FeatureTypes_pb2.ArrayFeatureType.ArrayDataType.Name
        self.signatures: dict[str, Signature] = {}
        self._models: dict[str, Any] = {}
        self._states: dict[str, tuple[str, ...]] = {}
        for only, path in _packages(Path(job.model)).items():
            description = runtime.utils.load_spec(path).description
            for function in description.functions:
                self._add(function.name, function, self._load(path, function.name))
            if not description.functions:
                self._add(only, description, self._load(path, UNNAMED))

    def _add(self, name: str, described: Any, model: Any) -> None:
        inputs, outputs, states = (
            _ports(features, self._port_name) for features in (described.input, described.output, described.state)
        )
        kept = {kept_name(state): port for state, port in states.items()}
        self.signatures[name] = Signature({**inputs, **states}, {**outputs, **kept})
        self._models[name], self._states[name] = model, tuple(states)

    def _load(self, path: str, function: str) -> Any:
        """One function as a model; coremltools only warns where Core ML refuses it, and fails when it is first run."""
        model = self._coremltools.models.MLModel(path, compute_units=self._units, function_name=function or None)
        if model.__proxy__ is None:
            refused = getattr(model, "_framework_error", None)
            why = first_line(refused) if refused else "its specification is newer than this macOS knows"
            raise RunError("load-failed", f"Core ML can't load {path}: {why}")
        return model

    def prepare(self, signature: str, inputs: Arrays) -> Call:
        """Predict with the signature's model, which takes the inputs and gives the outputs.

        What is given for a state is written to a new one first, and what it holds then is an output, as in files that
        take their states as inputs.
        """
        model, names = self._models[signature], self._states[signature]
        given = {name: value for name, value in inputs.items() if name not in names}
        if not names:
            return Call(nothing, partial(model.predict, given), _read)
        state = model.make_state()

        def write() -> None:
            for name in names:
                state.write_state(name, inputs[name])

        def read(outputs: Any) -> Arrays:
            return {**_read(outputs), **{kept_name(name): np.array(state.read_state(name)) for name in names}}

        return Call(write, partial(model.predict, given, state=state), read)

    def session(self) -> CoremlSession:
        """Calls whose states stay in Core ML."""
        return CoremlSession(self, self._models, self._states)

    def assignment(self) -> dict[str, Any]:
        """Core ML's own plan: for each operation its kind, the device preferred, the others that could, its cost.

        Costs are estimated shares of the work of its function, in [0, 1]. The plan is made before anything runs.
        """
        operations = []
        for name, model in self._models.items():
            plan = self._coremltools.models.compute_plan.MLComputePlan.load_from_path(
                model.get_compiled_model_path(), compute_units=self._units
            )
            program = plan.model_structure.program
            function = program.functions[name if name in program.functions else "main"]
            operations += [_planned(plan, operation, name) for operation in _operations(function.block)]
        return {"format": "coreml", "operations": [operation for operation in operations if operation]}


def _read(outputs: Any) -> Arrays:
    """Copies: Core ML answers with arrays that it may use again."""
    return {name: np.array(value) for name, value in outputs.items()}


def _operations(block: Any) -> Iterator[Any]:
    """The operations of a block and of the blocks inside them."""
    for operation in block.operations:
        yield operation
        for inner in operation.blocks:
            yield from _operations(inner)


def _planned(plan: Any, operation: Any, function: str) -> Optional[dict[str, Any]]:
    """One operation of the plan; None for constants, which run nowhere."""
    usage = plan.get_compute_device_usage_for_mlprogram_operation(operation)
    if usage is None:
        return None
    cost = plan.get_estimated_cost_for_mlprogram_operation(operation)
    return {
        "function": function,
        "operator": operation.operator_name,
        "output": operation.outputs[0].name if operation.outputs else "",
        "device": _device(usage.preferred_compute_device),
        "supported": [_device(device) for device in usage.supported_compute_devices],
        "cost": None if cost is None else cost.weight,
    }


def _device(device: Any) -> str:
    name = type(device).__name__
    return _DEVICES.get(name, name)


def _packages(path: Path) -> dict[str, str]:
    """The package by no name; of a folder of packages, each by its own."""
    found = {} if (path / "Manifest.json").exists() else {each.stem: str(each) for each in path.glob("*.mlpackage")}
    return dict(sorted(found.items())) or {UNNAMED: str(path)}


def _ports(features: Any, dtype_name: Any) -> dict[str, Port]:
    return {feature.name: _port(_array(feature.type), dtype_name) for feature in features}


def _array(kind: Any) -> Any:
    """What an input, an output or a state is: a state wraps its array."""
    return kind.stateType.arrayType if kind.WhichOneof("Type") == "stateType" else kind.multiArrayType


def _port(array: Any, dtype_name: Any) -> Port:
    """Axes that differ between enumerated shapes, or have a range, are not fixed."""
    name = dtype_name(array.dataType)
    sizes = [tuple(each.shape) for each in array.enumeratedShapes.shapes] or [tuple(array.shape)]
    ranges = [(each.lowerBound, each.upperBound) for each in array.shapeRange.sizeRanges]
    fixed = [len(set(axis)) == 1 for axis in zip(*sizes)]
    if ranges:
        fixed = [low == high for low, high in ranges]
    return Port(_DTYPES.get(name, name.lower()), tuple(s if f else None for s, f in zip(array.shape, fixed)))

"""States as ONNX Runtime's own values: what one call gives is handed to the next, never copied to numpy."""

from typing import Any

import numpy as np

from .backend import Backend
from .session import Session, State
from .steps import Arrays


class OnnxSession(Session):
    """Calls inference sessions with vectors of OrtValues.

    Not by `run_with_ort_values`, which wraps and checks each value in Python: 0.1 ms a call with 19 of them
    (onnxruntime 1.31.1), beside 0.1 ms of work in a small model.
    """

    def __init__(self, backend: Backend, runtime: Any, sessions: dict[str, Any]) -> None:
        super().__init__(backend)
        self._runtime, self._sessions = runtime, sessions
        self._vector, self._options = runtime.capi._pybind_state.OrtValueVector, runtime.RunOptions()
        signatures = backend.signatures
        self._given = {name: list(each.outputs) for name, each in signatures.items()}
        most = max(map(len, self._given.values()))
        self._devices = [runtime.capi.onnxruntime_inference_collection.OrtDevice.make("cpu", 0)._get_c_device()] * most
        self._kept = {
            name: {output: key for key, output in present.items()} for name, (_, present) in self.names.items()
        }

    def call(self, signature: str, inputs: Arrays, state: State) -> tuple[Arrays, State]:
        """Run on the states' values; the runtime makes those of the outputs."""
        given, kept = self._given[signature], self._kept[signature]
        names, values, produced = list(inputs), self._vector(), self._vector()
        arrays = [np.ascontiguousarray(value) for value in inputs.values()]  # there until the call is over
        for value in arrays:
            values.push_back(self._runtime.OrtValue.ortvalue_from_numpy(value)._get_c_value())
        for key, name in self.names[signature][0].items():
            names.append(name)
            values.push_back(state[key])
        run = self._sessions[signature].run_with_ortvaluevector
        run(self._options, names, values, given, produced, self._devices[: len(given)])
        after, others = dict(state), {}
        for name, value in zip(given, produced):
            if name in kept:
                after[kept[name]] = value
            else:
                others[name] = value.numpy()
        return others, after

    def from_numpy(self, name: str, value: Any) -> Any:
        """An OrtValue with a copy of this value.

        `ortvalue_from_numpy` of onnxruntime 1.31.1 makes one over the array's own memory, which the array frees when it
        goes: a cache would begin with whatever was written there since.
        """
        made = self._runtime.OrtValue.ortvalue_from_shape_and_type(list(value.shape), value.dtype)
        if value.size:
            made.update_inplace(np.ascontiguousarray(value))
        return made._get_c_value()

    def size_bytes(self, state: State) -> int:
        """What the states take, of one text."""
        return sum(int(value.tensor_size_in_bytes()) for value in state.values())

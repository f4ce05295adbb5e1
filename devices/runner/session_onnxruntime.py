"""States as ONNX Runtime's own values: what one call gives is handed to the next, never copied to numpy."""

from typing import Any

import numpy as np

from .backend import Backend
from .session import Session, State, past_names, present_names
from .steps import Arrays


class OnnxSession(Session):
    """Calls inference sessions with OrtValues."""

    def __init__(self, backend: Backend, runtime: Any, sessions: dict[str, Any]) -> None:
        super().__init__(backend)
        self._runtime, self._sessions = runtime, sessions

    def call(self, signature: str, inputs: Arrays, state: State) -> tuple[Arrays, State]:
        """Run on the states' values; the runtime makes those of the outputs."""
        known = self.backend.signatures[signature]
        present = {name: key for key, name in present_names(known).items()}
        make = self._runtime.OrtValue.ortvalue_from_numpy
        taken = {name: make(np.ascontiguousarray(value)) for name, value in inputs.items()}
        taken.update({name: state[key] for key, name in past_names(known).items()})
        names = list(known.outputs)
        produced = dict(zip(names, self._sessions[signature].run_with_ort_values(names, taken)))
        after = {**state, **{key: produced[name] for name, key in present.items()}}
        return {name: value.numpy() for name, value in produced.items() if name not in present}, after

    def from_numpy(self, name: str, value: Any) -> Any:
        """An OrtValue with this value."""
        return self._runtime.OrtValue.ortvalue_from_numpy(value)

    def size_bytes(self, state: State) -> int:
        """What the states take, of one text."""
        return sum(int(value.tensor_size_in_bytes()) for value in state.values())

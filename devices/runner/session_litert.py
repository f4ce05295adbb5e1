"""States in LiteRT's own buffers: what one call gives is what the next one takes, by exchanging the two."""

from typing import Any, Callable

import numpy as np

from .backend import Backend
from .backend_litert_compiled import count_values
from .session import Session, State
from .steps import Arrays

#: a call that is ready: the buffers of what is written, what is read, and the run
_Ready = tuple[Arrays, Arrays, Callable[[], None]]


class LitertSession(Session):
    """Calls a compiled model. Buffers of states that were released are written to again: a text takes two of each."""

    def __init__(self, backend: Backend, model: Any) -> None:
        super().__init__(backend)
        self._model = model
        self._free: dict[str, list[Any]] = {}
        self._own: dict[str, tuple[Arrays, Arrays]] = {}
        self._ready: dict[tuple[Any, ...], _Ready] = {}

    def call(self, signature: str, inputs: Arrays, state: State) -> tuple[Arrays, State]:
        """Write the inputs, run on the states' buffers, read the other outputs."""
        known = self.backend.signatures[signature]
        after = {**state, **{key: self._buffer(signature, key, name) for key, name in self.names[signature][1].items()}}
        taken, given, run = self._prepare(signature, state, after)
        for name, value in inputs.items():
            taken[name].write(value)
        run()
        read = {}
        for name, buffer in given.items():
            port = known.outputs[name]
            read[name] = buffer.read(count_values(port), np.dtype(port.dtype)).reshape(port.shape)
        return read, after

    def release(self, state: State) -> None:
        """Let the buffers be written to again."""
        for key, buffer in state.items():
            free = self._free.setdefault(key, [])
            if all(other is not buffer for other in free):
                free.append(buffer)

    def from_numpy(self, name: str, value: Any) -> Any:
        """A buffer with this value."""
        signature, port = next((each, past[name]) for each, (past, _) in self.names.items() if name in past)
        free = self._free.get(name)
        buffer = free.pop() if free else self._model.create_input_buffer_by_name(signature, port)
        buffer.write(value)
        return buffer

    def size_bytes(self, state: State) -> int:
        """What the states take, of one text: two buffers of each that is taken and given."""
        return 2 * sum(count_values(port) * np.dtype(port.dtype).itemsize for port in self.states.values())

    def _buffer(self, signature: str, key: str, name: str) -> Any:
        free = self._free.get(key)
        return free.pop() if free else self._model.create_output_buffer_by_name(signature, name)

    def _prepare(self, signature: str, before: State, after: State) -> _Ready:
        """The call on these buffers, which are few: made once for each two of them."""
        past, present = self.names[signature]
        mark = (signature, *(id(before[key]) for key in past), *(id(after[key]) for key in present))
        if mark not in self._ready:
            taken, given = self._own_buffers(signature)
            inputs = {**taken, **{name: before[key] for key, name in past.items()}}
            outputs = {**given, **{name: after[key] for key, name in present.items()}}
            model = self._model

            def run() -> None:
                model.run_by_name(signature, inputs, outputs)

            self._ready[mark] = taken, given, run
        return self._ready[mark]

    def _own_buffers(self, signature: str) -> tuple[Arrays, Arrays]:
        """The buffers of what is no state."""
        if signature not in self._own:
            known, model = self.backend.signatures[signature], self._model
            past, present = (names.values() for names in self.names[signature])
            self._own[signature] = (
                {n: model.create_input_buffer_by_name(signature, n) for n in known.inputs if n not in past},
                {n: model.create_output_buffer_by_name(signature, n) for n in known.outputs if n not in present},
            )
        return self._own[signature]

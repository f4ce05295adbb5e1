"""States in LiteRT's own buffers: what one call gives is what the next one takes.

A file that only writes new rows into its caches is given one buffer for a cache before and after, and copies nothing;
of others, and where several texts go on from one state, the two are exchanged.
"""

from typing import Any, Callable, Collection, Optional

import numpy as np

from .backend import Backend, Port
from .backend_litert_compiled import count_values
from .session import Session, State
from .steps import Arrays

#: a call that is ready: the buffers of what is written, what is read, and the run
_Ready = tuple[Arrays, Arrays, Callable[[], None]]


class LitertSession(Session):
    """Calls a compiled model. Buffers of states that were released are written to again.

    `in_place` are the signatures that can write to the states they are given.
    """

    def __init__(self, backend: Backend, model: Any, in_place: Collection[str] = ()) -> None:
        super().__init__(backend)
        self._model, self._in_place = model, in_place
        self._free: dict[str, list[Any]] = {}
        self._own: dict[str, tuple[Arrays, Arrays]] = {}
        self._ready: dict[tuple[Any, ...], _Ready] = {}
        self._newest: Optional[tuple[str, State, State, _Ready]] = None

    def call(self, signature: str, inputs: Arrays, state: State) -> tuple[Arrays, State]:
        """Write the inputs, run on the states' buffers, read the other outputs."""
        after = {**state, **{key: self._buffer(signature, key, name) for key, name in self.names[signature][1].items()}}
        return self._run(signature, inputs, state, after), after

    def advance(self, signature: str, inputs: Arrays, state: State) -> tuple[Arrays, State]:
        """Run on the states' buffers as they are, where the file can, and give them back."""
        past, present = self.names[signature]
        if signature not in self._in_place or not present.keys() <= past.keys():
            return super().advance(signature, inputs, state)
        return self._run(signature, inputs, state, state), state

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
        """What the states take, of one text: two buffers of each that is taken and given, or one that is written to."""
        others = (ports for name, ports in self.names.items() if name not in self._in_place)
        buffers = 2 if any(past.keys() & present.keys() for past, present in others) else 1
        return buffers * sum(count_values(port) * np.dtype(port.dtype).itemsize for port in self.states.values())

    def _buffer(self, signature: str, key: str, name: str) -> Any:
        free = self._free.get(key)
        return free.pop() if free else self._model.create_output_buffer_by_name(signature, name)

    def _run(self, signature: str, inputs: Arrays, before: State, after: State) -> Arrays:
        """Write the inputs, run, read the outputs that are no states."""
        newest = self._newest
        if newest is None or newest[0] != signature or newest[1] is not before or newest[2] is not after:
            newest = self._newest = signature, before, after, self._prepare(signature, before, after)
        taken, given, run = newest[3]
        for name, value in inputs.items():
            taken[name].write(value)
        run()
        return {name: buffer.read(size, dtype).reshape(shape) for name, (buffer, size, dtype, shape) in given.items()}

    def _prepare(self, signature: str, before: State, after: State) -> _Ready:
        """The call on these buffers, which are few: made once for each two of them."""
        past, present = self.names[signature]
        mark = (signature, *(id(before[key]) for key in past), *(id(after[key]) for key in present))
        if mark not in self._ready:
            taken, given = self._own_buffers(signature)
            inputs = {**taken, **{name: before[key] for key, name in past.items()}}
            outputs = {name: buffer for name, (buffer, *_) in given.items()}
            outputs.update({name: after[key] for key, name in present.items()})
            model = self._model
            index, known = model.get_signature_index(signature), model.get_signature_list()[signature]
            into, out = [inputs[name] for name in known["inputs"]], [outputs[name] for name in known["outputs"]]

            def run() -> None:  # by number: no names to look up in each call
                model.run_by_index(index, into, out)

            self._ready[mark] = taken, given, run
        return self._ready[mark]

    def _own_buffers(self, signature: str) -> tuple[Arrays, Arrays]:
        """The buffers of what is no state."""
        if signature not in self._own:
            known, model = self.backend.signatures[signature], self._model
            past, present = (names.values() for names in self.names[signature])
            self._own[signature] = (
                {n: model.create_input_buffer_by_name(signature, n) for n in known.inputs if n not in past},
                {n: self._output(signature, n, port) for n, port in known.outputs.items() if n not in present},
            )
        return self._own[signature]

    def _output(self, signature: str, name: str, port: Port) -> tuple[Any, int, Any, tuple[Optional[int], ...]]:
        """A buffer of an output, and how it is read."""
        buffer = self._model.create_output_buffer_by_name(signature, name)
        return buffer, count_values(port), np.dtype(port.dtype), port.shape

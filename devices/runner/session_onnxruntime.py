"""States as ONNX Runtime's own values: what one call gives is handed to the next, never copied to numpy.

A file that says so in its metadata keeps its cache where it is: the same buffers go in and come out, with room for
tokens to come.
"""

from typing import Any

import numpy as np

from .backend import Backend
from .session import IDS, LENGTH_AXIS, Session, State, first_shape, longest_text
from .steps import Arrays

#: in the metadata of a file whose cache may be one buffer before and after a call; export writes it
IN_PLACE = "edgekit.cache-in-place"
#: a buffer that grows has room for at least so many tokens more
_SPARE = 32


def make_session(backend: Backend, runtime: Any, sessions: dict[str, Any]) -> Session:
    """The session that keeps the cache in place where the one graph of a file can, else one that hands values on."""
    (first, *others) = sessions.values()
    if not others and IN_PLACE in first.get_modelmeta().custom_metadata_map:
        return InPlaceSession(backend, runtime, first)
    return OnnxSession(backend, runtime, sessions)


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


class _Buffers:
    """The cache of a text with room for `room` tokens, of which `filled` were read; and a session that is bound to it.

    The session reads and writes the arrays' own memory.
    """

    def __init__(self, binding: Any, room: int) -> None:
        self.binding, self.room, self.filled = binding, room, 0
        self.arrays: Arrays = {}
        self.inputs: Arrays = {}  # what the session is bound to, beside the cache
        self.count = 0  # of tokens in the outputs
        self.outputs: Arrays = {}


class InPlaceSession(Session):
    """Calls the one graph of a file on buffers that it reads and writes: no cache is copied from token to token.

    The states of a text share their buffers: what one has read stays there when another goes on from it. A second one
    that does gets buffers of its own.
    """

    def __init__(self, backend: Backend, runtime: Any, session: Any) -> None:
        super().__init__(backend)
        self._session, self._value_of = session, runtime.OrtValue.ortvalue_from_numpy
        ((signature, known),) = backend.signatures.items()
        self._past, self._present = self.names[signature]
        self._ids = next(name for name in IDS if name in known.inputs)
        self._outputs = {name: port for name, port in known.outputs.items() if name not in self._present.values()}
        self._longest = longest_text(self.states)

    def begin(self) -> State:
        """The states of no text yet."""
        return dict.fromkeys(self.states, self._buffers(self._longest or 0))

    def call(self, signature: str, inputs: Arrays, state: State) -> tuple[Arrays, State]:
        """Run on the states' buffers."""
        outputs, state = self.advance(signature, inputs, state)
        return {name: np.array(value) for name, value in outputs.items()}, state

    def advance(self, signature: str, inputs: Arrays, state: State) -> tuple[Arrays, State]:
        """Run on the states' buffers; the outputs are those of the next call as well."""
        buffers: _Buffers = next(iter(state.values()))
        count = inputs[self._ids].shape[1]
        past = int(inputs["position"][0]) if "position" in inputs else inputs["attention_mask"].shape[1] - count
        if buffers.filled != past or buffers.room < past + count:
            buffers = self._copied(buffers, past, past + count)
            state = dict.fromkeys(state, buffers)
        self._make_outputs(buffers, count)
        for name, value in inputs.items():
            if value is not buffers.inputs.get(name):  # else the session reads what is in it now
                buffers.inputs[name] = np.ascontiguousarray(value)
                buffers.binding.bind_cpu_input(name, buffers.inputs[name])
        self._session.run_with_iobinding(buffers.binding)
        buffers.filled = past + count
        return buffers.outputs, state

    def size_bytes(self, state: State) -> int:
        """What the buffers take, of one text."""
        return sum(array.nbytes for array in next(iter(state.values())).arrays.values())

    def _copied(self, buffers: _Buffers, past: int, needed: int) -> _Buffers:
        """Other buffers with room for `needed` tokens, that hold the first `past`."""
        made = self._buffers(self._longest or 1 << (needed + _SPARE - 1).bit_length())
        for key, array in made.arrays.items():
            array[:, :, :past] = buffers.arrays[key][:, :, :past]
        return made

    def _buffers(self, room: int) -> _Buffers:
        made = _Buffers(self._session.io_binding(), room)
        for key, port in self.states.items():
            shape = list(first_shape(port))
            shape[LENGTH_AXIS] = room
            made.arrays[key] = np.zeros(shape, port.dtype)
            value = self._value_of(made.arrays[key])
            made.binding.bind_ortvalue_input(self._past[key], value)
            made.binding.bind_ortvalue_output(self._present[key], value)
        return made

    def _make_outputs(self, buffers: _Buffers, count: int) -> None:
        """Bind arrays for what is no state; those of the call before where they fit."""
        if count == buffers.count:
            return
        buffers.count = count
        for name, port in self._outputs.items():
            shape = [(1 if axis == 0 else count) if size is None else size for axis, size in enumerate(port.shape)]
            buffers.outputs[name] = np.empty(shape, port.dtype)
            buffers.binding.bind_ortvalue_output(name, self._value_of(buffers.outputs[name]))

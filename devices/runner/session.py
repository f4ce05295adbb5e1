"""Calls of a loaded file whose states (the cache of keys and values) stay where the runtime has them.

An input `past_key_values…` is a state: the output `present…` of the same name, of any signature, replaces it in the
next call. A State is never changed by a call: several texts may go on from the same one, as beams do. Where nothing
else does, `advance` may write to its buffers.
"""

from typing import Any, Optional

import numpy as np

from .backend import Backend, Port, Signature
from .failures import RunError
from .steps import Arrays

_PAST, _PRESENT = "past_key_values", "present"
#: the inputs of a signature that are ids of tokens, by the form of its cache: of fixed length, or growing
IDS = ("ids", "input_ids")
#: the axis of a cache that grows with the text, or is as long as the longest text: [batch, heads, length, head size]
LENGTH_AXIS = 2

#: the name of a state, which is what follows `past_key_values` and `present` → the runtime's own buffer
State = dict[str, Any]


def past_names(signature: Signature) -> dict[str, str]:
    """The inputs of a signature that are states, by the state's name."""
    return {name[len(_PAST) :]: name for name in signature.inputs if name.startswith(_PAST)}


def present_names(signature: Signature) -> dict[str, str]:
    """The outputs of a signature that are states, by the state's name."""
    return {name[len(_PRESENT) :]: name for name in signature.outputs if name.startswith(_PRESENT)}


def kept_name(state: str) -> str:
    """The output that goes on with a state which the runtime itself keeps, by the state's name."""
    return state.replace(_PAST, _PRESENT, 1)


class Session:
    """Calls a backend with its states as numpy arrays; backends whose runtimes have buffers of their own do better.

    Raises RunError("load-failed") for a file whose states do not fit together.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.states = check_states(backend.signatures)
        #: of each signature, the inputs and the outputs that are states, by the state's name
        self.names = {name: (past_names(each), present_names(each)) for name, each in backend.signatures.items()}

    def begin(self) -> State:
        """The states of no text yet: zeros, or of the length 0 where the cache grows."""
        return {name: self.from_numpy(name, np.zeros(first_shape(p), p.dtype)) for name, p in self.states.items()}

    def call(self, signature: str, inputs: Arrays, state: State) -> tuple[Arrays, State]:
        """Call a signature; returns the outputs that are no states, as arrays, and the states after it."""
        past, present = self.names[signature]
        produced = self.backend.run(signature, {**inputs, **{name: state[key] for key, name in past.items()}})
        after = {**state, **{key: produced[name] for key, name in present.items()}}
        return {name: value for name, value in produced.items() if name not in present.values()}, after

    def advance(self, signature: str, inputs: Arrays, state: State) -> tuple[Arrays, State]:
        """Do what `call` does, for a state that nothing else goes on from: its buffers may be used again."""
        outputs, after = self.call(signature, inputs, state)
        self.release({name: state[name] for name in self.states})
        return outputs, after

    def release(self, state: State) -> None:
        """Say that nothing will go on from a state any more: its buffers may be used again."""

    def from_numpy(self, name: str, value: Any) -> Any:
        """A state's first value as the runtime keeps it."""
        return value

    def size_bytes(self, state: State) -> int:
        """What the states take, of one text."""
        return sum(int(value.nbytes) for value in state.values())


def open_session(backend: Backend) -> Session:
    """The backend's own session, or that of numpy arrays where it has none."""
    made = backend.session()
    return Session(backend) if made is None else made


def check_states(signatures: dict[str, Signature]) -> dict[str, Port]:
    """The states that a text begins with, by name: those that a signature both takes and gives.

    Raises RunError("load-failed") where an input has no output that goes on with it, or not the same type and shape.
    """
    taken: dict[str, Port] = {}
    given: dict[str, Port] = {}
    both: set[str] = set()
    for name, signature in signatures.items():
        past, present = past_names(signature), present_names(signature)
        both |= set(past) & set(present)
        for key, port in past.items():
            _check_same(name, port, signature.inputs[port], taken.setdefault(key, signature.inputs[port]))
        for key, port in present.items():
            given.setdefault(key, signature.outputs[port])
            _check_same(name, port, signature.outputs[port], taken.get(key, signature.outputs[port]))
    for key, wanted in taken.items():
        if key not in given:
            raise RunError("load-failed", f"no output {_PRESENT}{key} goes on with the input {_PAST}{key}")
        _check_same("", f"{_PRESENT}{key}", given[key], wanted)
    return {key: port for key, port in taken.items() if key in both}


def _check_same(signature: str, name: str, found: Port, wanted: Port) -> None:
    sizes = zip(found.shape, wanted.shape)
    alike = all((axis == LENGTH_AXIS and None in pair) or pair[0] == pair[1] for axis, pair in enumerate(sizes))
    if found.dtype == wanted.dtype and len(found.shape) == len(wanted.shape) and alike:
        return
    where = f" of the signature {signature}" if signature else ""
    raise RunError(
        "load-failed",
        f"the cache of this file does not fit together: {name}{where} is {_shown(found)}, elsewhere it is "
        f"{_shown(wanted)}; export it again",
    )


def _shown(port: Port) -> str:
    return f"{port.dtype} {[('any' if size is None else size) for size in port.shape]}"


def first_shape(port: Port) -> tuple[int, ...]:
    """The shape of a state of no text yet: one text; what grows is empty."""
    return tuple((1 if axis == 0 else 0) if size is None else size for axis, size in enumerate(port.shape))


def longest_text(states: dict[str, Port]) -> Optional[int]:
    """How many tokens the states hold; None where they grow."""
    lengths = {port.shape[LENGTH_AXIS] for port in states.values() if len(port.shape) > LENGTH_AXIS}
    found = {length for length in lengths if length is not None}
    return min(found) if found else None

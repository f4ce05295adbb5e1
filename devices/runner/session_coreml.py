"""States as Core ML keeps them, in an MLState, which each call changes in place (macOS 15 on).

An MLState belongs to the function that made it: nothing says that another takes it, so going from prefill to decode
copies what it holds, once a text. A second call that goes on from the same reading, as beams do, gets a copy as well.
What a later call wrote there lies behind the reading's position, where it is written over before it is read.
"""

from typing import Any, NamedTuple

import numpy as np

from .backend import Backend
from .session import Session, State, first_shape
from .steps import Arrays


class _Kept:
    """An MLState of a function, and how many calls have changed it."""

    def __init__(self, function: str, state: Any) -> None:
        self.function, self.state, self.calls = function, state, 0


class _Moment(NamedTuple):
    """A state as it was after so many calls; zeros where nothing keeps it yet."""

    kept: Any
    calls: int


_ZEROS = _Moment(None, 0)


class CoremlSession(Session):
    """Calls the models of a package, one for each function, with states of Core ML's own."""

    def __init__(self, backend: Backend, models: dict[str, Any], kept: dict[str, tuple[str, ...]]) -> None:
        super().__init__(backend)
        self._models = models
        #: of each function, the states by what the session calls them: (its name, the package's)
        self._kept = {
            function: [(key, name) for key, name in self.names[function][0].items() if name in names]
            for function, names in kept.items()
        }

    def begin(self) -> State:
        """Zeros, which a new MLState holds; arrays of them for what a package is given and gives back."""
        kept = {key for names in self._kept.values() for key, _ in names}
        return {name: _ZEROS if name in kept else value for name, value in super().begin().items()}

    def call(self, signature: str, inputs: Arrays, state: State) -> tuple[Arrays, State]:
        """Predict; the MLState is made, or copied, where the last call was not this function's on the same."""
        past, present = self.names[signature]
        names = self._kept[signature]
        plain = {name: state[key] for key, name in past.items() if (key, name) not in names}
        kept = self._own(signature, state) if names else None
        produced = self._models[signature].predict({**inputs, **plain}, state=kept.state if kept else None)
        after = {**state, **{key: np.array(produced[name]) for key, name in present.items() if name in produced}}
        if kept:
            kept.calls += 1
            after.update({key: _Moment(kept, kept.calls) for key, _ in names})
        return {name: np.array(value) for name, value in produced.items() if name not in present.values()}, after

    def size_bytes(self, state: State) -> int:
        """What the states take, of one text."""
        return sum(self._bytes(name, value) for name, value in state.items())

    def _bytes(self, name: str, value: Any) -> int:
        if not isinstance(value, _Moment):
            return int(value.nbytes)
        port = self.states[name]
        return int(np.prod(first_shape(port))) * np.dtype(port.dtype).itemsize

    def _own(self, signature: str, state: State) -> _Kept:
        """An MLState of this function that holds what `state` does."""
        names = self._kept[signature]
        last = state[names[0][0]]
        if last.kept and last.kept.function == signature and last.kept.calls == last.calls:
            return last.kept
        made = _Kept(signature, self._models[signature].make_state())
        for key, name in names:
            if state[key].kept:
                made.state.write_state(name, state[key].kept.state.read_state(name))
        return made

"""Reads a prompt and goes on from it, by the signatures of a file: what kind of cache it has, their inputs tell.

`position` among them is a cache of fixed length: the first n-1 tokens of a prompt go through signatures for several at
once, the last through that which gives logits. `attention_mask` or `position_ids` is a cache that grows: the prompt
goes through in one call. A signature that gives states and takes none is an encoder, which runs once for a text.
"""

from functools import lru_cache
from typing import Any, NamedTuple, Optional, Sequence

import numpy as np

from .backend import Backend, Signature
from .failures import RunError, first_line
from .session import IDS, Session, State, longest_text, open_session, past_names, present_names
from .steps import Arrays

#: ids and mask of an encoder, and what a decoder calls the latter
_SOURCE = (("source_ids", "source_mask"), ("input_ids", "attention_mask"))
_SOURCE_MASKS = ("source_mask", "encoder_attention_mask")
#: what a call costs beside its tokens, in tokens: the weights are read once whatever their number
_CALL_COST = 12


class Reading(NamedTuple):
    """A text that was read: the scores of what comes next, float32 [vocab], and what to go on from.

    `length` is how many tokens were read, `given` what every call takes besides.
    """

    logits: Any
    state: State
    length: int
    given: Arrays


class Writer:
    """A loaded file that writes.

    `longest` is how many tokens it reads at most, `source_length` how many of a text to translate: what the file says,
    or `context` where it takes any.

    Raises RunError("load-failed") for a file that does not write, or whose cache does not fit together.
    """

    def __init__(self, backend: Backend, context: Optional[int] = None) -> None:
        self.session: Session = open_session(backend)
        self._signatures = backend.signatures
        self._inputs = {name: _Inputs(known) for name, known in self._signatures.items()}
        self._decode = self._find_decode()
        self._ids = next(name for name in IDS if name in self._signatures[self._decode].inputs)
        self._prefill = self._find_prefill()
        self._encoders = _encoders(self._signatures)
        self.longest = longest_text(self.session.states) or context
        self.vocab_size = self._signatures[self._decode].outputs["logits"].shape[-1]
        self.source_length = max((length for length in self._encoders if length), default=None) or context

    @property
    def translates(self) -> bool:
        """Whether the file reads a source text first."""
        return bool(self._encoders)

    def read(self, ids: Sequence[int], source: Sequence[int] = ()) -> Reading:
        """Read a prompt of one token or more from the start, after the source text where the file translates.

        Raises RunError: "bad-input" for one that is empty, too long or not of the vocabulary, "run-failed".
        """
        self._check(ids, source)
        given, state = self._begin(source)
        return self._read(list(ids), Reading(None, state, 0, given), owned=True)

    def step(self, token: int, before: Reading) -> Reading:
        """Read one more token; what was read `before` can still be gone on from until it is released."""
        return self._read_last([token], before, owned=False)

    def go_on(self, token: int, before: Reading) -> Reading:
        """Read one more token where nothing else goes on from `before`, which is thereby released, logits too."""
        return self._read_last([token], before, owned=True)

    def release(self, reading: Reading) -> None:
        """Say that nothing goes on from a reading any more, but perhaps from others of the same text."""
        self.session.release({name: reading.state[name] for name in self.session.states})

    def finish(self, reading: Reading) -> None:
        """Say that nothing goes on from any reading of this text any more."""
        self.session.release(reading.state)

    def cache_bytes(self, reading: Reading) -> int:
        """What the states of a text take."""
        return self.session.size_bytes(reading.state)

    def _read(self, ids: list[int], before: Reading, *, owned: bool) -> Reading:
        """Read `ids`; the states of `before` are released where they are `owned`."""
        whole = self._signatures[self._decode].inputs[self._ids].shape[1] or len(ids)
        first, last = ids[: len(ids) - whole], ids[len(ids) - whole :]
        count = before.length
        for size in self._plan(len(first), count) if first else ():
            part, first = first[:size], first[size:]
            padded = part + [0] * (size - len(part))
            _, state = self._call(self._prefill[size], padded, before, owned=owned)
            count, owned = count + len(part), True
            before = before._replace(state=state, length=count)
        return self._read_last(last, before, owned=owned)

    def _read_last(self, ids: list[int], before: Reading, *, owned: bool) -> Reading:
        """Read what the signature that gives logits takes in one call."""
        outputs, state = self._call(self._decode, ids, before, owned=owned)
        logits = outputs["logits"]
        return Reading(logits.reshape(-1, logits.shape[-1])[-1], state, before.length + len(ids), before.given)

    def _plan(self, count: int, length: int) -> list[int]:
        """The sizes of the calls that read `count` tokens behind `length` others."""
        return plan_chunks(count, tuple(sorted(self._prefill)), (self.longest or length + count + 1) - length)

    def _call(self, name: str, ids: list[int], before: Reading, *, owned: bool) -> tuple[Arrays, State]:
        """Call a signature with the inputs that it has."""
        inputs = self._inputs[name].fill(ids, before.length, before.given)
        try:
            return (self.session.advance if owned else self.session.call)(name, inputs, before.state)
        except RunError:
            raise
        except Exception as error:
            raise RunError("run-failed", f"reading token {before.length + 1} failed: {first_line(error)}") from error

    def _begin(self, source: Sequence[int]) -> tuple[Arrays, State]:
        """What every call takes, and the first states; the encoder has run."""
        state = self.session.begin()
        if not self._encoders:
            return {}, state
        length = min((known for known in self._encoders if known and known >= len(source)), default=None)
        encode = self._encoders[length]
        ports = self._signatures[encode].inputs
        named = next(names for names in _SOURCE if names[0] in ports)
        rows = ([*source], [1] * len(source))
        taken = {name: _padded(row, length, ports[name].dtype) for name, row in zip(named, rows)}
        try:
            _, state = self.session.call(encode, taken, state)
        except RunError:
            raise
        except Exception as error:
            raise RunError("run-failed", f"reading the source text failed: {first_line(error)}") from error
        ports = self._signatures[self._decode].inputs
        masks = {name: ports[name] for name in _SOURCE_MASKS if name in ports}
        return {name: _padded(rows[1], port.shape[1], port.dtype) for name, port in masks.items()}, state

    def _check(self, ids: Sequence[int], source: Sequence[int]) -> None:
        if not ids:
            raise RunError("bad-input", "the prompt is empty: a text begins with one token at least")
        if self.translates and not source:
            raise RunError("bad-input", "there is no text to translate")
        if source and not self.translates:
            raise RunError("bad-input", "the file takes no source text: it does not translate")
        for what, found, longest in (("prompt", ids, self.longest), ("source text", source, self.source_length)):
            if longest is not None and len(found) > longest:
                way = (
                    "; --on-long-prompt slide forgets the oldest"
                    if what == "prompt"
                    else ": shorten it, or cut it in two"
                )
                message = f"the {what} has {len(found)} tokens, the model reads {longest} at most{way}"
                raise RunError("bad-input", message)
            outside = [token for token in found if not 0 <= token < (self.vocab_size or 1 << 31)]
            if outside:
                raise RunError(
                    "bad-input",
                    f"the {what} has the token {outside[0]}, which the file does not know: it has {self.vocab_size}",
                )

    def _find_decode(self) -> str:
        for name, known in self._signatures.items():
            if "logits" in known.outputs and any(ids in known.inputs for ids in IDS) and past_names(known):
                return name
        known_names = ", ".join(sorted(filter(None, self._signatures))) or "an unnamed one"
        raise RunError(
            "load-failed",
            "the file does not write: no signature takes ids and a cache and gives logits (it has "
            f"{known_names}); export a model that was trained with --task generate or translate",
        )

    def _find_prefill(self) -> dict[int, str]:
        """Signatures that read a number of tokens at once, by that number; that which gives logits is one."""
        found = {1: self._decode}
        for name, known in self._signatures.items():
            if self._ids in known.inputs and past_names(known) and "logits" not in known.outputs:
                size = known.inputs[self._ids].shape[1]
                if size is not None:
                    found[size] = name
        return found


def _padded(row: list[int], length: Optional[int], dtype: str) -> Any:
    """A batch of one row, with zeros behind it up to `length`."""
    made = np.zeros((1, length or len(row)), dtype)
    made[0, : len(row)] = row
    return made


def _encoders(signatures: dict[str, Signature]) -> dict[Optional[int], str]:
    """The signatures that read a source text, by the length that they take: None is any."""
    found: dict[Optional[int], str] = {}
    for name, known in signatures.items():
        if is_encoder(known):
            ids = next(ids for ids, _ in _SOURCE if ids in known.inputs)
            found[known.inputs[ids].shape[1]] = name
    return found


def is_encoder(signature: Signature) -> bool:
    """Whether a signature reads a source text: it gives states, and takes none."""
    takes = any(ids in signature.inputs for ids, _ in _SOURCE)
    return takes and not past_names(signature) and bool(present_names(signature)) and "logits" not in signature.outputs


class _Inputs:
    """What a signature is given beside its states, in arrays that are used again for each call with as many ids."""

    def __init__(self, signature: Signature) -> None:
        past = past_names(signature).values()
        self._dtypes = {name: np.dtype(port.dtype) for name, port in signature.inputs.items() if name not in past}
        self._arrays: dict[tuple[str, int], Any] = {}

    def fill(self, ids: list[int], count: int, given: Arrays) -> Arrays:
        """The inputs for ids that follow `count` tokens; those that are `given` as they are.

        Raises RunError for an input that the loop does not know.
        """
        made, total = {}, count + len(ids)
        for name, dtype in self._dtypes.items():
            if name in given:
                made[name] = given[name]
            elif name == "attention_mask":
                made[name] = self._array(name, 1 << (total - 1).bit_length(), dtype)[:, :total]
            else:
                made[name] = array = self._array(name, 1 if name == "position" else len(ids), dtype)
                array[0] = _value(name, ids, count)
        return made

    def _array(self, name: str, size: int, dtype: Any) -> Any:
        """An array of ones [1, size], or [1] for a position, as it was left by the call before."""
        made = self._arrays.get((name, size))
        if made is None:
            shape = (1,) if name == "position" else (1, size)
            made = self._arrays[name, size] = np.ones(shape, dtype)
        return made


def _value(name: str, ids: list[int], count: int) -> Any:
    """What an input holds; of one id a number, which numpy takes at once."""
    if name in IDS:
        return ids if len(ids) > 1 else ids[0]
    if name == "position":
        return count
    if name == "position_ids":
        return range(count, count + len(ids)) if len(ids) > 1 else count
    raise RunError("load-failed", f"the file has an input {name!r}, which no part of a text is for")


def plan_chunks(count: int, sizes: tuple[int, ...], room: int) -> list[int]:
    """The sizes of the calls that read `count` tokens at the least cost; the last may be longer than what is left.

    None of them goes beyond the `room` in the cache, where writing more would move what is there.
    """
    chosen = []
    largest = max(sizes)
    while count > 2 * largest and largest > 1:  # the rest is chosen with care
        chosen.append(largest)
        count, room = count - largest, room - largest
    return sorted([*chosen, *_cheapest(count, sizes, room)[1]], reverse=True)


@lru_cache(maxsize=4096)
def _cheapest(count: int, sizes: tuple[int, ...], room: int) -> tuple[int, tuple[int, ...]]:
    """Cost and sizes of the calls for `count` tokens; a size of 1 is always there."""
    best: tuple[int, tuple[int, ...]] = (0, ())
    for size in sizes if count > 0 else ():
        if size <= room:
            rest, others = _cheapest(count - size, sizes, room - size)
            cost = size + _CALL_COST + rest
            if not best[1] or cost < best[0]:
                best = (cost, (size, *others))
    return best

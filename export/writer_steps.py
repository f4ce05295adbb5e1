"""Golden steps of a model that writes: each signature called on real text, with the caches of the calls before it."""

from collections.abc import Callable, Sequence

import numpy as np

from edgekit.program import Signature
from edgekit.proof.golden import Arrays, Step
from edgekit.proof.writing import Prompt
from edgekit.sources.writers import DECODE, ENCODE, PREFILL

#: texts that are gone through, and tokens that each is then decoded by
TEXTS, DECODED = 3, 2

Run = Callable[[str, Arrays], Arrays]


def writer_steps(signatures: Sequence[Signature], texts: Sequence[Prompt], run: Run) -> tuple[Step, ...]:
    """Steps of a cache of fixed size: for the longest texts, `encode` or each `prefill_N`, and `decode` after it.

    `run` calls a signature of the source model.
    """
    chain = _Chain(signatures, run)
    longest = sorted(texts, key=lambda text: -len(text.ids) - len(text.source))[:TEXTS]
    if ENCODE in chain.known:
        for text in longest:
            chain.translate(text, ENCODE)
        for place, name in enumerate(name for name in chain.known if name.startswith(f"{ENCODE}_")):
            chain.translate(longest[place % len(longest)], name)
        return tuple(chain.steps)
    for place, name in enumerate(name for name in chain.known if name.startswith(PREFILL)):
        chain.generate(longest[place % len(longest)], name)
    return tuple(chain.steps)


class _Chain:
    """Calls one signature after the other, and notes each call."""

    def __init__(self, signatures: Sequence[Signature], run: Run) -> None:
        self.known = {signature.name: signature for signature in signatures}
        self._run = run
        self.steps: list[Step] = []

    def generate(self, text: Prompt, prefill: str) -> None:
        """Read a chunk of the text by a `prefill_N`, padded where it is shorter, and what follows by `decode`."""
        length = self.known[prefill].inputs[0].shape[1]
        count = max(1, min(len(text.ids) - DECODED, length))
        ids = np.zeros((1, length), np.int32)
        ids[0, : len(text.ids[:count])] = text.ids[:count]
        values = self._call(prefill, self._empty(prefill) | {"ids": ids})
        self._decode(text.ids, count, values)

    def translate(self, text: Prompt, encode: str) -> None:
        """Encode the source text by an `encode` or `encode_N`, cut where it is longer, and decode the first tokens."""
        source, decode = self._empty(encode), self._empty(DECODE)
        ids = text.source[: source["source_ids"].shape[1]]
        source["source_ids"][0, : len(ids)] = ids
        for mask in (source["source_mask"], decode["source_mask"]):
            mask[0, : len(ids)] = 1
        encoded = self._call(encode, source)
        self._decode(text.ids, 0, decode | {into: encoded[out] for into, out in self.known[DECODE].given.items()})

    def _decode(self, ids: Sequence[int], position: int, values: Arrays) -> None:
        for place in range(position, min(len(ids), position + DECODED)):
            values |= {"ids": np.array([[ids[place]]], np.int32), "position": np.array([place], np.int32)}
            values = self._call(DECODE, values)

    def _empty(self, name: str) -> Arrays:
        return {spec.name: np.zeros(spec.shape, spec.dtype) for spec in self.known[name].inputs}

    def _call(self, name: str, inputs: Arrays) -> Arrays:
        """Note a call; its outputs, and the inputs of the next one."""
        taken = {spec.name: inputs[spec.name] for spec in self.known[name].inputs}
        outputs = self._run(name, taken)
        self.steps.append(Step(signature=name, inputs=taken, outputs=outputs))
        return inputs | outputs | {into: outputs[out] for into, out in self.known[name].states.items()}

"""TFLite files of several signatures, one graph at several lengths: what quantizers make of each apart is shared.

Their subgraphs have the same operators in the same order; tensors are told apart by name, weights are one buffer.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.tools import flatbuffer_utils

from edgekit.errors import ExportError
from edgekit.export.lengths import cut_step
from edgekit.export.tflite_writer import serialize
from edgekit.proof.golden import Step


def fit_signatures(path: Path, steps: Sequence[Step]) -> list[Step]:
    """Each step by the shortest signature that holds its text; as it is where the file has one signature."""
    lengths = _lengths(flatbuffer_utils.read_model(str(path)))
    if len(lengths) < 2:
        return list(steps)
    fitted = []
    for step in steps:
        tokens = int(np.asarray(step.inputs["mask"]).sum())
        length = next(length for length in lengths if length >= tokens)
        fitted.append(cut_step(step, length, lengths[length]))
    return fitted


def share_ranges(path: Path, ranges: dict[str, Any]) -> dict[str, Any]:
    """Give tensors at the same place of each signature one range: the union of those that were seen.

    So every length computes with the same numbers, biases stay one copy, and a length that few texts fit is no worse.
    Raises ExportError where the signatures differ in their operators.
    """
    model = flatbuffer_utils.read_model(str(path))
    if len(model.subgraphs) < 2:
        return ranges
    shared = dict(ranges)
    for names in _same_places(model):
        seen = [ranges[name] for name in names if ranges.get(name)]
        if seen and all(np.shape(each["min"]) == np.shape(seen[0]["min"]) for each in seen):
            lowest, highest = (reduce.reduce([each[key] for each in seen]) for reduce, key in _BOUNDS)
            shared.update({name: {**seen[0], "min": lowest, "max": highest} for name in names})
    return shared


def share_scales(content: bytes) -> bytes:
    """Write equal quantization parameters once: ai-edge-quantizer 0.10 gives each signature a copy.

    Those of a token table with a scale for each of its rows were half of a file of four lengths.
    """
    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    if len(model.subgraphs) < 2:
        return content
    known: dict[Any, _Shared] = {}
    for tensor in (tensor for subgraph in model.subgraphs for tensor in subgraph.tensors):
        found = tensor.quantization
        if found is not None and found.scale is not None and found.details is None:
            key = (bytes(np.asarray(found.scale)), bytes(np.asarray(found.zeroPoint)), found.quantizedDimension)
            tensor.quantization = known.setdefault(key, _Shared(found))
    return serialize(model)


class _Shared:
    """A part of a model that is packed once and then pointed to."""

    def __init__(self, part: Any) -> None:
        self._part, self._offset = part, None

    def Pack(self, builder: Any) -> Any:  # noqa: N802  (as flatbuffers' generated classes call it)
        if self._offset is None:
            self._offset = self._part.Pack(builder)
        return self._offset


_BOUNDS = ((np.minimum, "min"), (np.maximum, "max"))


def _lengths(model: Any) -> dict[int, str]:
    """The length of each signature's inputs, ascending, and its name."""
    found = {}
    for definition in model.signatureDefs:
        tensors = model.subgraphs[definition.subgraphIndex].tensors
        found[int(tensors[definition.inputs[0].tensorIndex].shape[1])] = definition.signatureKey.decode()
    return dict(sorted(found.items()))


def _same_places(model: Any) -> Iterator[tuple[str, ...]]:
    """The names of tensors that stand at the same place of every subgraph: operator by operator, port by port."""
    kinds = [[operator.opcodeIndex for operator in subgraph.operators] for subgraph in model.subgraphs]
    if any(each != kinds[0] for each in kinds):
        raise ExportError(
            "the file's sequence lengths became graphs of different operators, which can't share ranges of "
            "activations: leave out the shortest --sequence-length"
        )
    for operators in zip(*(subgraph.operators for subgraph in model.subgraphs), strict=True):
        for side in ("inputs", "outputs"):
            yield from _ports(model, [getattr(operator, side) for operator in operators])


def _ports(model: Any, places: Sequence[Iterable[int]]) -> Iterator[tuple[str, ...]]:
    for indices in zip(*places, strict=True):
        if all(index >= 0 for index in indices):
            pairs = zip(model.subgraphs, indices, strict=True)
            yield tuple(subgraph.tensors[index].name.decode() for subgraph, index in pairs)

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
from edgekit.export.quantize.tflite_prefixes import share_prefixes
from edgekit.export.quantize.tflite_rows import scale_rows_apart
from edgekit.export.tflite_edit import drop_unread_buffers, drop_unread_codes
from edgekit.export.tflite_writer import write_model
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


def share_parts(path: Path) -> None:
    """Write a quantized file anew, what signatures have in common once: ai-edge-quantizer 0.10 gives each its own.

    Constants that all share get one name, which quantizers, but no runtimes, want to be another in each signature.
    """
    model = flatbuffer_utils.read_model(str(path))
    scale_rows_apart(model)
    share_prefixes(model)
    drop_unread_buffers(model)
    drop_unread_codes(model)
    first, *others = model.subgraphs
    for subgraph in others:
        for own, tensor in zip(first.tensors, subgraph.tensors, strict=False):
            if tensor.buffer == own.buffer and model.buffers[own.buffer].data is not None:
                tensor.name = own.name
    write_model(path, model)


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

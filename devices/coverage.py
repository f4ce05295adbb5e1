"""What really ran where: read from what a runtime tells of its nodes, never from what was asked for."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from edgekit.devices.coverage_coreml import read_coreml_coverage
from edgekit.devices.coverage_litert import find_reason, note_signatures, read_litert_coverage
from edgekit.measurement import Accelerator, Coverage, LeftBehind, OperatorTime

DELEGATE = "DELEGATE"
_CPU_PROVIDER = "CPUExecutionProvider"
#: a delegate's own name → the accelerator's, as it is shown
_XNNPACK = "TfLiteXNNPackDelegate"
_DELEGATES = {
    _XNNPACK: "XNNPACK",
    "TfLiteGpuDelegateV2": "GPU",
    "TfLiteNnapiDelegate": "NNAPI",
    "EdgeTpuDelegateForCustomOp": "Edge TPU",
}
_REPLACING = re.compile(
    r"Replacing (\d+) out of (\d+) node\(s\) with delegate \(([^)]*)\) node, yielding (\d+) partitions"
)

Node = tuple[str, Sequence[int], Sequence[int]]  # operator, inputs, outputs as numbers of tensors


def read_coverage(assignment: Mapping[str, Any], accelerator: Accelerator = "cpu", log: str = "") -> Coverage:
    """Coverage from the runner's `assignment` event of a run for this accelerator.

    `log` is what the runtime wrote to standard error: LiteRT tells there only what its GPU and NPU parts took.
    """
    kind = assignment.get("format")
    if fallback := assignment.get("fallback"):
        reason = find_reason(accelerator, log)
        note = fallback if not reason or reason in fallback else f"{fallback}: {reason}"
        return Coverage(actual="CPU", nodes_on_accelerator=0, note=note)
    if kind == "litert-compiled":
        return read_litert_coverage(assignment, accelerator, log)
    if kind == "tflite":
        nodes = [(str(op), i, o) for op, i, o in assignment["nodes"]]
        delegate = PurePosixPath(assignment.get("delegate", "")).name
        return note_signatures(_tflite(nodes, delegate or "XNNPACK"), assignment)
    if kind == "onnxruntime":
        return _onnxruntime(assignment, accelerator)
    if kind == "coreml":
        return read_coreml_coverage(assignment)
    return Coverage(actual="unknown", note="this runtime does not tell which node ran where")


def slice_delegated(nodes: Sequence[Node]) -> list[list[int]]:
    """For each DELEGATE node the original nodes that it took over, as places among the original ones.

    The interpreter keeps the original nodes and appends one DELEGATE node for each partition: what lies on the way back
    from its outputs to its inputs is what it swallowed.
    """
    original = [node for node in nodes if node[0] != DELEGATE]
    producer = {tensor: place for place, node in enumerate(original) for tensor in node[2]}
    partitions = []
    for _, inputs, outputs in (node for node in nodes if node[0] == DELEGATE):
        taken: set[int] = set()
        ends, open_ = set(inputs), list(outputs)
        while open_:
            tensor = open_.pop()
            place = producer.get(tensor)
            if tensor in ends or place is None or place in taken:
                continue
            taken.add(place)
            open_ += [before for before in original[place][1] if before >= 0]
        partitions.append(sorted(taken))
    return partitions


def read_delegate_lines(text: str, accelerator: Accelerator = "cpu") -> Coverage:
    """Coverage from the lines in which a TFLite runtime tells what delegates took, as benchmark_model prints them.

    An accelerator's line goes before XNNPACK's, which takes what is left over and is never an accelerator's.
    """
    found = [(int(took), int(of), name, int(parts)) for took, of, name, parts in _REPLACING.findall(text)]
    wanted = [line for line in found if line[2] != _XNNPACK] or (found if accelerator == "cpu" else [])
    if not wanted:
        nodes = found[0][1] if found else None
        note = "no delegate took a node, as far as the tool tells" if accelerator == "cpu" else ""
        return Coverage(actual="CPU", nodes=nodes, nodes_on_accelerator=None if accelerator == "cpu" else 0, note=note)
    took, of, name, parts = wanted[0]
    left = (LeftBehind(operator="(not named)", count=of - took),) if of > took else ()
    return Coverage(
        actual=_DELEGATES.get(name, name), nodes=of, nodes_on_accelerator=took, partitions=parts, left_behind=left
    )


def add_time(coverage: Coverage, operators: Sequence[OperatorTime]) -> Coverage:
    """The coverage with the share of time that the accelerator's operators took, where a profile tells them apart."""
    whole = sum(operator.ms for operator in operators)
    delegated = [operator for operator in operators if operator.kind.startswith("Delegate/")]
    if not whole or not delegated:
        return coverage
    return coverage.model_copy(update={"share_of_time": sum(operator.ms for operator in delegated) / whole})


def _tflite(nodes: Sequence[Node], accelerator: str) -> Coverage:
    original = [node for node in nodes if node[0] != DELEGATE]
    partitions = slice_delegated(nodes)
    taken = {place for partition in partitions for place in partition}
    left = Counter(node[0] for place, node in enumerate(original) if place not in taken)
    return Coverage(
        actual=accelerator if taken else "CPU",
        nodes=len(original),
        nodes_on_accelerator=len(taken),
        partitions=len(partitions),
        left_behind=_left(left),
    )


def _onnxruntime(assignment: Mapping[str, Any], accelerator: Accelerator) -> Coverage:
    """Parts are (provider, its operators); the CPU provider is the accelerator only where the CPU was asked for.

    `partitions` tells whether there is a part for each partition, `device` which device the provider compiled for.
    """
    parts: Sequence[tuple[str, Sequence[str]]] = assignment["parts"]
    counts: Counter[str] = Counter()
    for provider, operators in parts:
        counts[provider] += len(operators)
    if not counts:
        return Coverage(actual="unknown", note="ONNX Runtime told of no node")
    others = [provider for provider in counts if provider != _CPU_PROVIDER]
    provider = max(others, key=counts.__getitem__) if others else _CPU_PROVIDER
    left = Counter(operator or "(not named)" for other, them in parts if other != provider for operator in them)
    partitions = sum(1 for each, _ in parts if each == provider) if others else 1
    names = (provider.removesuffix("ExecutionProvider"), assignment.get("device", "") if others else "")
    return Coverage(
        actual=" ".join(filter(None, names)),
        nodes=counts.total(),
        nodes_on_accelerator=counts[provider] if others or accelerator == "cpu" else 0,
        partitions=partitions if assignment.get("partitions", True) else None,
        left_behind=_left(left),
        note=assignment.get("note", "") if others else "",
    )


def _left(counts: Counter[str]) -> tuple[LeftBehind, ...]:
    return tuple(LeftBehind(operator=name, count=count) for name, count in counts.most_common())

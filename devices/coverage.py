"""What really ran where: read from what a runtime tells of its nodes, never from what was asked for."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from edgekit.devices.coverage_coreml import read_coreml_coverage
from edgekit.measurement import Coverage, LeftBehind, OperatorTime

DELEGATE = "DELEGATE"
_CPU_PROVIDER = "CPUExecutionProvider"
#: a delegate's own name → the accelerator's, as it is shown
_DELEGATES = {
    "TfLiteXNNPackDelegate": "XNNPACK",
    "TfLiteGpuDelegateV2": "GPU",
    "TfLiteNnapiDelegate": "NNAPI",
    "EdgeTpuDelegateForCustomOp": "Edge TPU",
}
_REPLACING = re.compile(
    r"Replacing (\d+) out of (\d+) node\(s\) with delegate \(([^)]*)\) node, yielding (\d+) partitions"
)

Node = tuple[str, Sequence[int], Sequence[int]]  # operator, inputs, outputs as numbers of tensors


def read_coverage(assignment: Mapping[str, Any], accelerator: str = "XNNPACK") -> Coverage:
    """Coverage from the runner's `assignment` event; `accelerator` is whose DELEGATE nodes those of TFLite are."""
    if assignment.get("format") == "tflite":
        found = _tflite([(str(op), i, o) for op, i, o in assignment["nodes"]], accelerator)
        several = assignment.get("signatures", 1) > 1
        return found.model_copy(update={"note": "nodes of the first of its signatures"}) if several else found
    if assignment.get("format") == "onnxruntime":
        return _onnxruntime(assignment["parts"])
    if assignment.get("format") == "coreml":
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


def read_delegate_lines(text: str) -> Coverage:
    """Coverage from the lines in which a TFLite runtime tells what delegates took, as benchmark_model prints them.

    The accelerator's line goes before XNNPACK's, which takes what is left over.
    """
    found = [(int(took), int(of), name, int(parts)) for took, of, name, parts in _REPLACING.findall(text)]
    if not found:
        return Coverage(actual="CPU", note="no delegate took a node, as far as the tool tells")
    took, of, name, parts = next((line for line in found if line[2] != "TfLiteXNNPackDelegate"), found[0])
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


def _onnxruntime(parts: Sequence[tuple[str, Sequence[str]]]) -> Coverage:
    """Parts are (provider, its operators); the CPU provider is the accelerator only where it is the only one."""
    counts: Counter[str] = Counter()
    for provider, operators in parts:
        counts[provider] += len(operators)
    if not counts:
        return Coverage(actual="unknown", note="ONNX Runtime told of no node")
    others = [provider for provider in counts if provider != _CPU_PROVIDER]
    provider = max(others, key=counts.__getitem__) if others else _CPU_PROVIDER
    left = Counter(operator for other, operators in parts if other != provider for operator in operators)
    return Coverage(
        actual=provider.removesuffix("ExecutionProvider"),
        nodes=counts.total(),
        nodes_on_accelerator=counts[provider],
        partitions=sum(1 for each, _ in parts if each == provider) if others else 1,
        left_behind=_left(left),
    )


def _left(counts: Counter[str]) -> tuple[LeftBehind, ...]:
    return tuple(LeftBehind(operator=name, count=count) for name, count in counts.most_common())

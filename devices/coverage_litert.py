"""What LiteRT's GPU and NPU parts took, from the log that it writes to standard error (ai-edge-litert 2.3.0).

Its interface says "fully accelerated" of what ran on the CPU; the log and one function of its C interface do not.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from edgekit.measurement import Accelerator, Coverage, LeftBehind

_SPLIT = re.compile(r"(\d+) operations will run on the GPU, and the remaining (\d+) operations will run on the CPU")
_UNSUPPORTED = re.compile(r"operations are not supported by GPU delegate:\n(.*?)\n\d+ operations will run", re.DOTALL)
_ADAPTER = re.compile(r"Selected adapter: (.*?), arch=.*adapterType=(.*)")
_SELECTED = re.compile(
    r"Partitioned subgraph<0>, selected (\d+) ops, from a total of (\d+) ops\. resulted in (\d+) partitions"
)
_DISPATCH = "DISPATCH_OP"
_APPLIED = re.compile(r"(\d+) compiler plugins were applied successfully")
_OPENVINO = re.compile(r"Using Intel OpenVINO device: (\w+)")
#: the operator of what was compiled for an NPU
_COMPILED = "DISPATCH_OP"
_ADVICE = {
    "VCL compiler loading failed": "OpenVINO can't load its NPU compiler: there is no driver of an Intel NPU",
    "No adapters found": "no Vulkan adapter was found: install the driver of the GPU, or name one in VK_ICD_FILENAMES",
}
#: why an accelerator was not used, the most telling line first
_REASONS = {
    "gpu": (
        r"Failed to initialize WebGPU environment: (?:\w+: )?(.*)",
        r"Failed to create litert::ml_drift::DelegateKernelLiteRt: (?:\w+: )?([^;\n]*)",
        r"Failed to get or create delegate WebGPU environment: (.*)",
    ),
    "npu": (
        r"Could not load shared library \S*?[^/\s]+\.so: (.*)",
        r"(VCL compiler loading failed)",
        r"Exception in compilation: (.*)",
        r"Failed to apply compiler plugins: (.*)",
    ),
}


def read_litert_coverage(assignment: Mapping[str, Any], accelerator: Accelerator, log: str) -> Coverage:
    """Coverage from the runner's `assignment` (format "litert-compiled") and the log of the same process."""
    operators = assignment["operators"]
    if accelerator == "gpu":
        found = _gpu(operators, assignment.get("all_accelerated"), log)
    elif accelerator == "npu":
        found = _npu(operators, log)
    else:
        return Coverage(actual="CPU", nodes=len(operators), note="CompiledModel does not tell what XNNPACK took")
    return note_signatures(found, assignment)


def note_signatures(coverage: Coverage, assignment: Mapping[str, Any]) -> Coverage:
    """The coverage with a note where a file has several signatures: it is that of the first."""
    if assignment.get("signatures", 1) < 2:
        return coverage
    notes = (coverage.note, "nodes of the first of its signatures")
    return coverage.model_copy(update={"note": "; ".join(filter(None, notes))})


def find_reason(accelerator: Accelerator, log: str) -> str:
    """Why LiteRT did not use an accelerator, in the words of its log; "" where that says nothing known."""
    for pattern in _REASONS.get(accelerator, ()):
        if found := re.search(pattern, log):
            reason = found[1].strip().rstrip(".")
            return _ADVICE.get(reason, reason)
    return ""


def _gpu(operators: Sequence[str], all_accelerated: bool | None, log: str) -> Coverage:
    """The C interface and the log have to agree that something ran on the GPU; the lesser of what they say counts."""
    adapter = _ADAPTER.search(log)
    note = f"adapter {adapter[1]} ({adapter[2].strip()})" if adapter else ""
    note += ": its times say nothing of a GPU" if "Software" in note else ""
    if split := _SPLIT.search(log):
        taken, left = int(split[1]), int(split[2])
        return Coverage(
            actual="WebGPU" if taken else "CPU",
            nodes=taken + left,
            nodes_on_accelerator=taken,
            left_behind=_left_behind(operators, left, log),
            note=note,
        )
    if all_accelerated:
        nodes = len(operators)
        return Coverage(actual="WebGPU", nodes=nodes, nodes_on_accelerator=nodes, partitions=1, note=note)
    if all_accelerated is None:
        return Coverage(actual="unknown", nodes=len(operators), note="LiteRT told nothing of what the GPU took")
    return Coverage(actual="CPU", nodes=len(operators), nodes_on_accelerator=0, note=find_reason("gpu", log))


def _npu(operators: Sequence[str], log: str) -> Coverage:
    """What the compiler plugin selected counts only where the log says that the plugin was applied.

    In a file that was compiled before, what was compiled are DISPATCH_OP nodes: those run nowhere else, or fail.
    """
    if compiled := operators.count(_DISPATCH):
        left = tuple(LeftBehind(operator=name, count=n) for name, n in Counter(operators).items() if name != _DISPATCH)
        return Coverage(
            actual="OpenVINO, compiled before",
            nodes=len(operators),
            nodes_on_accelerator=compiled,
            partitions=compiled,
            left_behind=left,
        )
    applied, selected = _APPLIED.search(log), _SELECTED.search(log)
    device = _OPENVINO.findall(log)
    if device and _COMPILED in operators:  # before this run: a node is a partition of it
        taken = operators.count(_COMPILED)
        return _covered(f"OpenVINO {device[-1]}", taken, len(operators), taken, "a compiled file: nodes are partitions")
    if not applied or not int(applied[1]) or not selected or not device:
        reason = find_reason("npu", log) or "LiteRT told of no compiler plugin that was applied"
        return Coverage(actual="CPU", nodes=len(operators), nodes_on_accelerator=0, note=reason)
    taken, nodes, partitions = map(int, selected.groups())
    return _covered(f"OpenVINO {device[-1]}", taken, nodes, partitions)


def _covered(actual: str, taken: int, nodes: int, partitions: int, note: str = "") -> Coverage:
    left = (LeftBehind(operator="(not named)", count=nodes - taken),) if nodes > taken else ()
    return Coverage(
        actual=actual,
        nodes=nodes,
        nodes_on_accelerator=taken,
        partitions=partitions,
        left_behind=left,
        note=note,
    )


def _left_behind(operators: Sequence[str], left: int, log: str) -> tuple[LeftBehind, ...]:
    """The operators that the log names as unsupported, with its reasons; each counted in the file."""
    block = _UNSUPPORTED.search(log)
    counts = Counter(operators)
    found = []
    for line in block[1].splitlines() if block else ():
        name, _, reason = line.partition(":")
        count = min(counts[name.strip()], left)
        if count:
            found.append(LeftBehind(operator=name.strip(), count=count, reason=reason.strip()))
            left -= count
    return (*found, LeftBehind(operator="(not named)", count=left)) if left else tuple(found)

"""Which unit takes each operation of a Core ML package, read from Core ML's own plan."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from edgekit.measurement import Coverage, LeftBehind

#: the units that a device may prefer, the one that counts as the accelerator first
_UNITS = ("ANE", "GPU")


def read_coreml_coverage(assignment: Mapping[str, Any]) -> Coverage:
    """Coverage from the runner's `assignment` (format "coreml"): what the Neural Engine, else the GPU, is to take.

    Operations of all functions are counted. It is a plan, made before the run: Core ML tells nothing of the run itself.
    """
    operations = assignment["operations"]
    counts = Counter(operation["device"] for operation in operations)
    actual = next((unit for unit in _UNITS if counts[unit]), "CPU")
    taken = [operation["device"] == actual for operation in operations]
    left: Counter[tuple[str, str]] = Counter(
        (operation["operator"], _reason(operation, actual))
        for operation, took in zip(operations, taken, strict=True)
        if not took
    )
    return Coverage(
        actual=actual,
        nodes=len(operations),
        nodes_on_accelerator=sum(taken),
        partitions=sum(1 for before, now in zip([False, *taken], taken, strict=False) if now and not before),
        left_behind=tuple(
            LeftBehind(operator=name, count=count, reason=reason) for (name, reason), count in left.most_common()
        ),
        note=f"Core ML's plan before the run{_costs(operations)}",
    )


def _reason(operation: Mapping[str, Any], unit: str) -> str:
    if unit in operation["supported"]:
        return f"{unit} could, Core ML prefers {operation['device']}"
    return f"{unit} can't"


def _costs(operations: Sequence[Mapping[str, Any]]) -> str:
    """The estimated share of the work by device, where the plan has it for every function."""
    costs: dict[str, float] = {}
    for operation in operations:
        costs[operation["device"]] = costs.get(operation["device"], 0.0) + (operation["cost"] or 0.0)
    whole = sum(costs.values())
    if not whole:
        return ""
    ordered = sorted(costs.items(), key=lambda item: -item[1])
    shares = (f"{device} {100 * cost / whole:.0f} %" for device, cost in ordered if cost)
    return f"; estimated work: {', '.join(shares)}"

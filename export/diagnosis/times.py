"""The share of time of each module of the source model in a float32 file, from the runtime's profile.

Profiles name operators as the runtime has them after its own rewriting. ONNX Runtime keeps the names of the file's
nodes, or begins with them; XNNPACK numbers its operators in the order of the nodes that it took. What is in neither is
of no module here, and so are the mask, residual sums and pooling.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from pathlib import Path

from edgekit.bundle import Bundle
from edgekit.checkpoint import Checkpoint
from edgekit.errors import BundleError
from edgekit.export.diagnosis.slow import family
from edgekit.export.quantize.modules import Node, assign_nodes, match_weights, source_modules
from edgekit.measurement import OperatorTime
from edgekit.model.config import TransformerConfig
from edgekit.model.weights import Weights
from edgekit.report.numbers import milliseconds, percent

#: kinds that must all be found again for the rest of the order to be believed
_PRODUCTS = ("fully_connected", "batch_matmul")
_DELEGATED = "Delegate/"


@dataclass(frozen=True, kw_only=True)
class ModuleTimes:
    """Shares of one inference by module, in [0, 1], and what they are of, or why there are none."""

    shares: Mapping[str, float] = field(default_factory=dict)
    origin: str = ""


def module_times(bundle: Bundle, operators: Sequence[OperatorTime], checkpoint: Checkpoint) -> ModuleTimes:
    """The share of each module in a profile of the float32 bundle of a checkpoint."""
    try:
        times = _times(bundle, operators, checkpoint)
    except BundleError as error:
        return ModuleTimes(origin=f"Time by module is not told: {error}.")
    whole = sum(each.ms for each in operators)
    name, told = bundle.manifest.name, percent(sum(times.values()) / whole)
    origin = (
        f"Of time: one inference of {name} in float32, {milliseconds(whole)} by the runtime's profile; {told} is of "
        "modules, the rest of the mask, residual sums, pooling and what has no name."
    )
    return ModuleTimes(shares={module: ms / whole for module, ms in times.items()}, origin=origin)


def _times(bundle: Bundle, operators: Sequence[OperatorTime], checkpoint: Checkpoint) -> dict[str, float]:
    """ms of each module; raises BundleError, with the reason, where they can't be told."""
    name, target = bundle.manifest.name, bundle.manifest.target
    if not any(each.ms for each in operators):
        raise BundleError(f"the runtime's profile of {name} has no times")
    if target == "tflite" and len(bundle.manifest.signatures) > 1:  # numbers of nodes are of one, and not told of which
        raise BundleError(f"{name} has several signatures")
    nodes, modules = _read(bundle.model_path, target, checkpoint.weights)
    found = _by_order(nodes, operators) if target == "tflite" else _by_name(nodes, operators)
    if not found:
        raise BundleError(f"the runtime's operators of {name} could not be put to those of the file")
    times: dict[str, float] = defaultdict(float)
    for place, node in found.items():
        if node in modules:
            times[modules[node]] += operators[place].ms
    if target == "onnx":
        _add_norms(times, operators, found, checkpoint.config)
    return times


def _read(model: Path, target: str, weights: Weights) -> tuple[list[Node], dict[str, str]]:
    """The operators of a file, and the module of each that has one."""
    if target == "tflite":
        from edgekit.export.quantize.nodes import tflite_nodes
        from edgekit.export.quantize.tflite_weights import float_weights

        nodes = tflite_nodes(model)
        return nodes, assign_nodes(nodes, match_weights(weights, float_weights(model)))
    if target == "onnx":
        import onnx

        from edgekit.export.quantize.nodes import onnx_nodes
        from edgekit.export.quantize.onnx_weights import float_weights as onnx_weights

        nodes = onnx_nodes(onnx.load(model))
        return nodes, assign_nodes(nodes, match_weights(weights, onnx_weights(model)))
    raise BundleError(f"{target} files have no profile here")


def _by_order(nodes: Sequence[Node], operators: Sequence[OperatorTime]) -> dict[int, str]:
    """Places of TFLite operators → names of nodes; empty where a product is missing.

    "[Builtin]:5" is the file's node 5; those of the delegate are what is left, in order, with kinds of its own names.
    """
    found: dict[int, str] = {}
    taken = set()
    for place, each in enumerate(operators):
        number = each.name.rpartition(":")[2]
        if not each.kind.startswith(_DELEGATED) and number.isdigit() and int(number) < len(nodes):
            if family(each.kind) != family(nodes[int(number)].kind):
                return {}
            found[place] = nodes[int(number)].name
            taken.add(int(number))
    left = [node for index, node in enumerate(nodes) if index not in taken]
    inside = [place for place, each in enumerate(operators) if each.kind.startswith(_DELEGATED)]
    ours, theirs = [family(node.kind) for node in left], [family(operators[place].kind) for place in inside]
    for block in SequenceMatcher(None, ours, theirs, autojunk=False).get_matching_blocks():
        for step in range(block.size):
            found[inside[block.b + step]] = left[block.a + step].name
    known = set(found.values())
    return found if all(node.name in known for node in left if family(node.kind) in _PRODUCTS) else {}


def _by_name(nodes: Sequence[Node], operators: Sequence[OperatorTime]) -> dict[int, str]:
    """Places of ONNX Runtime's operators → names of nodes: "node_MatMul_3/MatMulAddFusion" is node_MatMul_3."""
    names = {node.name for node in nodes}
    begun = {
        place: each.name if each.name in names else each.name.split("/")[0] for place, each in enumerate(operators)
    }
    return {place: name for place, name in begun.items() if name in names}


def _add_norms(
    times: dict[str, float], operators: Sequence[OperatorTime], found: Mapping[int, str], config: TransformerConfig
) -> None:
    """Norms that ONNX Runtime merged with the sum before them and named anew: in the order of the computation."""
    left = [each.ms for place, each in enumerate(operators) if place not in found and "LayerNormalization" in each.kind]
    norms = [module for module in source_modules(config) if module.endswith("_norm") and module not in times]
    if len(left) == len(norms):
        times.update(dict(zip(norms, left, strict=True)))

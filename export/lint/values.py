"""Rules about values that hold for accelerators of one kind: types, ranges, ranks, shapes. Each names its source."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from edgekit.export.lint.findings import Effect, Finding
from edgekit.export.lint.graph import Node, Tensor

_SHOWN = 3
_HALF_LARGEST = 65504.0  # IEEE 754 binary16
_HIGHEST_RANK = 4

GPU_DOCS = "https://ai.google.dev/edge/litert/performance/gpu"
NNAPI_DELEGATE = (
    "https://github.com/tensorflow/tensorflow/blob/master/tensorflow/lite/delegates/nnapi/nnapi_delegate.cc (Validate)"
)
NNAPI_TYPES = "https://developer.android.com/ndk/reference/group/neural-networks (OperandCode has no 64-bit integers)"
HALF = "IEEE 754: float16 ends at 65504; GPU delegates and Qualcomm's HTP compute float32 in float16 by default"


@dataclass(frozen=True, kw_only=True)
class ValueRule:
    """`applies` tells why a value of an operator is a problem, or nothing; `accelerators` are those it holds for."""

    name: str
    effect: Effect
    applies: Callable[[Node, Tensor], str | None]
    advice: str
    sources: dict[str, str]


def _int64(node: Node, tensor: Tensor) -> str | None:
    wide = tensor.dtype in ("int64", "uint64") and not tensor.constant
    return "a 64-bit integer: these accelerators have 32-bit ones" if wide else None


def _half(node: Node, tensor: Tensor) -> str | None:
    beyond = tensor.largest is not None and tensor.largest > _HALF_LARGEST and tensor.dtype != "float16"
    if not beyond or tensor.largest is None:
        return None
    return f"a constant of magnitude {tensor.largest:.3g} is infinite in float16: a row of such masks gives NaN"


def _rank(node: Node, tensor: Tensor) -> str | None:
    rank = len(tensor.shape)
    return f"a tensor of rank {rank}; up to {_HIGHEST_RANK} are taken" if rank > _HIGHEST_RANK else None


def _dynamic(node: Node, tensor: Tensor) -> str | None:
    return "a shape that is not fixed" if None in tensor.shape else None


RULES = (
    ValueRule(
        name="int64",
        effect="falls back",
        applies=_int64,
        advice="make ids and positions int32: edgekit's own signatures are, and TFLite files stay so all the way",
        sources={"gpu": GPU_DOCS, "nnapi": NNAPI_TYPES},
    ),
    ValueRule(
        name="float16-range",
        effect="wrong",
        applies=_half,
        advice="mask with -10000 (within float16) instead of -inf or the lowest float32",
        sources={"gpu": HALF, "qnn": HALF, "nnapi": HALF},
    ),
    ValueRule(
        name="rank",
        effect="falls back",
        applies=_rank,
        advice="merge axes of size 1, or split heads by reshaping to rank 4",
        sources={"gpu": GPU_DOCS, "nnapi": NNAPI_DELEGATE},
    ),
    ValueRule(
        name="dynamic-shape",
        effect="falls back",
        applies=_dynamic,
        advice="fix every length when exporting (edgekit export does); several lengths as several signatures",
        sources={"gpu": GPU_DOCS, "nnapi": NNAPI_DELEGATE, "qnn": "QNN contexts have fixed shapes", "ethos-u": "Vela"},
    ),
)


def value_findings(nodes: Sequence[Node], accelerator: str) -> Iterator[Finding]:
    """One finding for each rule, kind of operator and reason, of the rules that hold for an accelerator."""
    for rule in RULES:
        if accelerator not in rule.sources:
            continue
        found: dict[tuple[str, str], dict[str, None]] = {}
        for node in nodes:
            for tensor in (*node.inputs, *node.outputs):
                if why := rule.applies(node, tensor):
                    found.setdefault((node.kind, why), {})[tensor.name] = None
        for (kind, why), names in found.items():
            yield Finding(
                rule=rule.name,
                effect=rule.effect,
                function="main",
                operation=kind,
                count=len(names),
                where=tuple(names)[:_SHOWN],
                why=why,
                advice=rule.advice,
                source=rule.sources[accelerator],
            )

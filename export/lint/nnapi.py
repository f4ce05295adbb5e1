"""NNAPI: ONNX files by onnxruntime's own usability checker, TFLite files by what TFLite's NNAPI delegate takes.

NNAPI is deprecated since Android 15. Which of the operators that it takes a phone's driver really runs, no one tells
before the phone does.
"""

from collections.abc import Sequence
from pathlib import Path

from edgekit.bundle import LeftOperator
from edgekit.export.compilers.compiled import LeftNode, group_left
from edgekit.export.lint.findings import Finding, LintReport, left_findings
from edgekit.export.lint.graph import Node, load_onnx, read_graph
from edgekit.export.lint.values import NNAPI_DELEGATE, value_findings
from edgekit.extras import require

_FLOAT, _QUANT8, _INT32, _BOOL = ("float32",), ("uint8", "int8"), ("int32",), ("bool",)
_ANY = (*_FLOAT, "float16", *_QUANT8, *_INT32, *_BOOL)
#: TFLite operator → types of its first input that the delegate takes, at Android's last level of NNAPI (1.3, API 30)
_TAKEN: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("ADD", "MUL", "SUB", "MAXIMUM", "MINIMUM", "TILE", "SLICE"), (*_FLOAT, *_QUANT8, *_INT32)),
    **dict.fromkeys(
        (
            "AVERAGE_POOL_2D",
            "MAX_POOL_2D",
            "L2_POOL_2D",
            "CONV_2D",
            "DEPTHWISE_CONV_2D",
            "FULLY_CONNECTED",
            "TRANSPOSE_CONV",
            "HARD_SWISH",
            "SOFTMAX",
            "RESHAPE",
            "RESIZE_BILINEAR",
            "RESIZE_NEAREST_NEIGHBOR",
            "RELU",
            "RELU_N1_TO_1",
            "RELU6",
            "LOGISTIC",
            "TANH",
            "PAD",
            "PADV2",
            "MEAN",
            "QUANTIZE",
            "PRELU",
            "LEAKY_RELU",
            "REDUCE_MIN",
            "REDUCE_MAX",
            "SPACE_TO_DEPTH",
            "DEPTH_TO_SPACE",
        ),
        (*_FLOAT, *_QUANT8),
    ),
    **dict.fromkeys(
        ("DIV", "ABS", "EXP", "LOG", "RSQRT", "POW", "SIN", "SQRT", "SUM", "REDUCE_PROD", "ELU", "LOG_SOFTMAX"), _FLOAT
    ),
    **dict.fromkeys(("CONCATENATION", "GATHER", "EXPAND_DIMS"), (*_FLOAT, "float16", *_QUANT8, *_INT32)),
    **dict.fromkeys(("TRANSPOSE", "STRIDED_SLICE", "SQUEEZE", "FLOOR", "L2_NORMALIZATION", "ARG_MAX", "ARG_MIN"), _ANY),
    **dict.fromkeys(("SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND", "SELECT", "FILL", "PACK", "SPLIT", "TOPK_V2"), _ANY),
    **dict.fromkeys(("LESS", "LESS_EQUAL", "GREATER", "GREATER_EQUAL", "EQUAL", "NOT_EQUAL"), _ANY),
    **dict.fromkeys(("LOGICAL_OR", "LOGICAL_AND", "LOGICAL_NOT", "REDUCE_ANY"), _BOOL),
    "CAST": (*_FLOAT, *_INT32, *_QUANT8),
    "NEG": (*_FLOAT, *_INT32),
    "DEQUANTIZE": (*_QUANT8, "float16"),
}
_SOURCE_ONNX = "onnxruntime.tools.mobile_helpers.usability_checker and its list nnapi_supported_ops.md"


def lint_nnapi(path: Path) -> LintReport:
    """What NNAPI would take of a TFLite or ONNX file."""
    nodes = read_graph(path)
    return _onnx(path, nodes) if path.suffix == ".onnx" else _tflite(path, nodes)


def _tflite(path: Path, nodes: Sequence[Node]) -> LintReport:
    refused = [(node, why) for node in nodes if (why := _refusal(node))]
    left = group_left(LeftNode(operator=node.kind, output=node.output, reason=why) for node, why in refused)
    taken = [all(node is not other for other, _ in refused) for node in nodes]
    return LintReport(
        file=str(path),
        accelerator="nnapi",
        judge="what TFLite's NNAPI delegate takes, by its published source; the phone's driver decides",
        findings=(*value_findings(nodes, "nnapi"), *left_findings(left, "nnapi", NNAPI_DELEGATE)),
        operators=len(nodes),
        operators_taken=sum(taken),
        partitions=sum(here and not before for before, here in zip([False, *taken], taken, strict=False)),
    )


def _refusal(node: Node) -> str:
    """Why the delegate leaves an operator; "" where it takes it."""
    if node.kind == "EMBEDDING_LOOKUP":
        table = node.inputs[1].dtype if len(node.inputs) > 1 else ""
        return "" if table == "float32" else f"the delegate looks up float32 tables only, this one is {table}"
    types = _TAKEN.get(node.kind)
    if types is None:
        return "the delegate does not map this operator"
    dtype = node.inputs[0].dtype if node.inputs else "float32"
    if node.kind == "DEQUANTIZE" and dtype == "float16" and node.inputs[0].constant:
        return "the delegate does not unpack float16 constants"
    if dtype not in types:
        return f"the delegate takes {node.kind} of {', '.join(types)}, not of {dtype}"
    if node.kind == "FULLY_CONNECTED" and node.outputs[0].dtype == "int16":
        return "the delegate takes no int16 outputs of FULLY_CONNECTED"
    return ""


def _onnx(path: Path, nodes: Sequence[Node]) -> LintReport:
    require("onnxruntime", f"lint of {path.name}")
    from onnxruntime.tools.mobile_helpers import usability_checker

    info = usability_checker.check_nnapi_partitions(load_onnx(path), True)
    caveats = dict(each.removeprefix("ai.onnx:").split(":", 1) for each in info.supported_ops_checker.get_caveats())
    lost = {name.split(":")[-1] for name in info.unsupported_ops}
    left = group_left(
        LeftNode(operator=node.kind, output=node.output, reason="onnxruntime's NNAPI provider has no such operator")
        for node in nodes
        if node.kind in lost
    )
    return LintReport(
        file=str(path),
        accelerator="nnapi",
        judge="onnxruntime's usability checker: by kind of operator; the phone's driver decides",
        findings=(
            *value_findings(nodes, "nnapi"),
            *left_findings(left, "nnapi", _SOURCE_ONNX),
            *_wide_lookups(nodes, caveats),
        ),
        operators=info.num_nodes,
        operators_taken=info.num_supported_nodes,
        partitions=info.num_partitions,
    )


def _wide_lookups(nodes: Sequence[Node], caveats: dict[str, str]) -> list[Finding]:
    """The checker goes by kinds alone; what its list says of indices can be seen in the file."""
    wide = [n for n in nodes if n.kind == "Gather" and len(n.inputs) > 1 and not n.inputs[1].constant]
    places = tuple(node.output for node in wide if node.inputs[1].dtype != "int32")
    if not places or "Gather" not in caveats:
        return []
    left = LeftOperator(operator="Gather", count=len(places), where=places[:3], reason=caveats["Gather"])
    return left_findings([left], "nnapi", _SOURCE_ONNX)

"""GPU: LiteRT's own accelerator compiles the file where there is a Vulkan driver; else the delegate's published list.

Never by TFLite's Analyzer, whose "GPU compatible" is said of every file.
"""

import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from edgekit.bundle import LeftOperator
from edgekit.errors import EdgekitError, ExportError
from edgekit.export.compilers.compiled import LeftNode, group_left
from edgekit.export.lint.findings import Finding, LintReport, left_findings, whole_file
from edgekit.export.lint.graph import Node, read_graph
from edgekit.export.lint.ort import lint_webgpu_onnx
from edgekit.export.lint.values import GPU_DOCS, value_findings
from edgekit.extras import check_installed, installed_version
from edgekit.processes import CompletedRun, run_process

_PROBE = Path(__file__).parent.parent / "compilers" / "webgpu_probe.py"
_ADAPTER = re.compile(r"Selected adapter: ([^,\n]*)")
_SPLIT = re.compile(r"(\d+) operations will run on the GPU, and the remaining (\d+) operations will run on the CPU")
_UNSUPPORTED = re.compile(r"operations are not supported by GPU delegate:\n(.*?)\n\d+ operations", re.DOTALL)
_CAUSE = re.compile(r"(?:INVALID_ARGUMENT|UNIMPLEMENTED|INTERNAL|NOT_FOUND|OUT_OF_RANGE): ([^\n;]*)")
_GARBAGE = "measured by edgekit with ai-edge-litert 2.3.0 on a Vulkan of software; bench compares outputs on yours"
#: operators of the page GPU_DOCS
_PUBLISHED = {
    *("ADD", "AVERAGE_POOL_2D", "CONCATENATION", "CONV_2D", "DEPTHWISE_CONV_2D", "EXP", "FULLY_CONNECTED"),
    *("LOGICAL_AND", "LOGISTIC", "LSTM", "MAX_POOL_2D", "MAXIMUM", "MINIMUM", "MUL", "PAD", "PRELU", "RELU", "RELU6"),
    *("RESHAPE", "RESIZE_BILINEAR", "SOFTMAX", "STRIDED_SLICE", "SUB", "TRANSPOSE_CONV"),
}


def lint_gpu(path: Path, *, timeout_s: float) -> LintReport:
    """What a GPU takes of a TFLite or ONNX file."""
    if path.suffix == ".onnx":
        return lint_webgpu_onnx(path, timeout_s=timeout_s)
    check_installed(("ai_edge_litert",), f"lint of {path.name}")
    nodes = read_graph(path)
    findings = [*value_findings(nodes, "gpu"), *_integers(nodes)]
    try:
        run = run_process([sys.executable, "-P", str(_PROBE), str(path.absolute())], timeout_s=timeout_s)
    except EdgekitError as error:
        raise ExportError(f"{path.name}: {error}") from error
    adapter = _ADAPTER.search(run.stderr)
    if adapter is None:
        return _by_the_list(path, nodes, findings)
    judge = f"LiteRT's WebGPU accelerator (ai-edge-litert {installed_version('ai_edge_litert')}) on {adapter[1]}"
    if run.returncode:
        findings.append(_whole(run, judge))
        return LintReport(file=str(path), accelerator="gpu", judge=judge, findings=tuple(findings), operators_taken=0)
    left = _left(run.stderr, nodes)
    split = _SPLIT.search(run.stderr)
    return LintReport(
        file=str(path),
        accelerator="gpu",
        judge=judge,
        findings=(*findings, *left_findings(left, "gpu", judge)),
        operators=sum(map(int, split.groups())) if split else len(nodes),
        operators_taken=int(split[1]) if split else len(nodes),
    )


def _left(text: str, nodes: Sequence[Node]) -> list[LeftOperator]:
    """It names kinds, not single operators: all of a kind are counted, the first ones shown."""
    named = _UNSUPPORTED.search(text)
    left = []
    for line in named[1].splitlines() if named else []:
        kind, _, reason = line.partition(":")
        places = [node.output for node in nodes if node.kind == kind]
        reason = reason.strip().removeprefix(f"{kind}: ") or "the accelerator has no such operator for these types"
        left.append(LeftOperator(operator=kind, count=len(places), where=tuple(places[:3]), reason=reason))
    return left


def _whole(run: CompletedRun, judge: str) -> Finding:
    causes = _CAUSE.findall(run.stderr)
    died = f"it died of signal {-run.returncode}" if run.returncode < 0 else "it refuses the file"
    why = f"{died}: {causes[-1]}" if causes else died
    advice = "export with --quantize none or fp16: this accelerator computes in float"
    return whole_file("accelerator-failed", why, advice, judge)


def _integers(nodes: Sequence[Node]) -> list[Finding]:
    """Integer arithmetic runs, and may be wrong: nothing that compiles tells."""
    counts = Counter(node.kind for node in nodes if any(t.dtype == "int8" and not t.constant for t in node.outputs))
    if not counts:
        return []
    kind, _ = counts.most_common(1)[0]
    places = [node.output for node in nodes if any(t.dtype == "int8" and not t.constant for t in node.outputs)]
    return [
        Finding(
            rule="integer-activations",
            effect="wrong",
            function="main",
            operation=", ".join(counts),
            count=len(places),
            where=tuple(places[:3]),
            why=f"int8 activations ({kind} above all): such a file answered garbage and was called fully accelerated",
            advice="export with --quantize none or fp16 for GPUs, and compare outputs: edgekit bench --accelerator gpu",
            source=_GARBAGE,
        )
    ]


def _by_the_list(path: Path, nodes: Sequence[Node], findings: Sequence[Finding]) -> LintReport:
    left = group_left(
        LeftNode(operator=node.kind, output=node.output, reason="not on the published list of the GPU delegate")
        for node in nodes
        if node.kind not in _PUBLISHED
    )
    count = sum(each.count for each in left)
    return LintReport(
        file=str(path),
        accelerator="gpu",
        judge="the GPU delegate's published list, which is older than the delegate: LiteRT found no Vulkan driver here",
        findings=(*findings, *left_findings(left, "gpu", GPU_DOCS)),
        operators=len(nodes),
        operators_taken=len(nodes) - count,
    )

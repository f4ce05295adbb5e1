"""What ONNX Runtime's providers take of an ONNX file: asked in the environment of each, with the reasons they log."""

import json
import re
from pathlib import Path
from typing import Any

from edgekit.errors import DeviceError, EdgekitError, ExportError
from edgekit.export.compilers.compiled import LeftNode, group_left
from edgekit.export.compilers.environment import compiler_python
from edgekit.export.compilers.targets import QUALCOMM_SOCS
from edgekit.export.lint.findings import Finding, LintReport, left_findings, whole_file
from edgekit.export.lint.graph import read_graph
from edgekit.export.lint.values import value_findings
from edgekit.processes import run_process

_PROBE = Path(__file__).parent.parent / "compilers" / "ort_probe.py"
_REASON = re.compile(
    r"Validation FAILED for \d+ nodes in OrtNodeUnit \((\w+)\) :\s+"
    r"Operator type: \w+ Node name: (\S+) [^\n]*\n(?:\s+Operator type:[^\n]*\n)*\s+REASON : ([^\n]*)"
)
_REFUSED = re.compile(r"backendValidateOpConfig\(\) failed for node `([^`]+)` of type `(\w+)` with error code (\d+)")
_SILENT = "the provider left it and gave no reason"


def lint_qnn_onnx(path: Path, soc: str, *, timeout_s: float) -> LintReport:
    """What ONNX Runtime's QNN provider takes of an ONNX file for one SoC."""
    return _lint(path, "qnn", "onnxruntime-qnn", f"qnn:{QUALCOMM_SOCS[soc]}", "QNN", timeout_s=timeout_s, device=soc)


def lint_webgpu_onnx(path: Path, *, timeout_s: float) -> LintReport:
    """What ONNX Runtime's WebGPU provider takes of an ONNX file; it needs a Vulkan driver."""
    return _lint(path, "gpu", "onnxruntime-webgpu", "webgpu", "WebGpu", timeout_s=timeout_s, device="a GPU")


def _lint(
    path: Path, accelerator: str, runtime: str, provider: str, name: str, *, timeout_s: float, device: str
) -> LintReport:
    findings: list[Finding] = list(value_findings(read_graph(path), accelerator))
    python = compiler_python(runtime, f"lint --for {accelerator} of an ONNX file")
    argv = [str(python), str(_PROBE), str(path.absolute()), provider]
    try:
        run = run_process(argv, timeout_s=timeout_s)
    except EdgekitError as error:
        raise ExportError(f"{path.name}: {error}") from error
    said = next((line for line in reversed(run.stdout.splitlines()) if line.startswith('{"parts"')), None)
    judge = f"{runtime}'s provider for {device}"
    if run.returncode or said is None:
        lines = [line.strip() for line in run.stderr.splitlines() if line.strip()]
        why = f"the session could not be made: {lines[-1][:200] if lines else f'exit code {run.returncode}'}"
        findings.append(whole_file("session-failed", why, "another scheme; or the TFLite file of this model", judge))
        return LintReport(file=str(path), accelerator=accelerator, judge=judge, findings=tuple(findings))
    answer = json.loads(said)
    if accelerator == "gpu" and not any(name in provider for provider, _ in answer["parts"]):
        message = f"{runtime} found no Vulkan driver here (VK_ICD_FILENAMES names one)"
        raise DeviceError(
            f"{message}: lint the TFLite bundle of this model, or ask where there is one", address="local"
        )
    return _report(path, accelerator, f"{judge} (onnxruntime {answer['version']})", name, answer, run.stderr, findings)


def _report(
    path: Path,
    accelerator: str,
    judge: str,
    name: str,
    answer: dict[str, Any],
    log: str,
    findings: list[Finding],
) -> LintReport:
    reasons = _reasons(log)
    parts = [(each, nodes) for each, nodes in answer["parts"]]
    ours = [nodes for each, nodes in parts if each.startswith(name)]
    left = group_left(
        LeftNode(operator=kind, output=node, reason=reasons.get(node, _SILENT))
        for each, nodes in parts
        if not each.startswith(name)
        for kind, node in nodes
    )
    return LintReport(
        file=str(path),
        accelerator=accelerator,
        judge=judge,
        findings=(*findings, *left_findings(left, accelerator, judge)),
        operators=sum(len(nodes) for _, nodes in parts),
        operators_taken=sum(map(len, ours)),
        partitions=len(ours),
    )


def _reasons(log: str) -> dict[str, str]:
    """Node → why the provider did not take it, as its verbose log says."""
    refused = {node: f"QNN's {kind} refuses these types (error {code})" for node, kind, code in _REFUSED.findall(log)}
    said = {}
    for _, node, reason in _REASON.findall(log):
        told = reason.strip().split(".")[0]
        said[node] = refused.get(node, told) if told.startswith("Failed to add node") else told
    return refused | said

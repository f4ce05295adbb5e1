"""What the compilers of NPUs say of a file: QNN and Vela compile it, and their report is read."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from edgekit.errors import ExportError
from edgekit.export.compilers.compiled import Compiled
from edgekit.export.compilers.qnn import compile_qnn
from edgekit.export.compilers.vela import compile_vela
from edgekit.export.lint.findings import Finding, LintReport, left_findings, whole_file
from edgekit.export.lint.graph import read_graph
from edgekit.export.lint.ort import lint_qnn_onnx
from edgekit.export.lint.values import value_findings

DEFAULT_SOC = "SM8650"
DEFAULT_ETHOS_U = "ethos-u85-256"
_INTEGERS = "Ethos-U's hardware multiplies 8- and 16-bit integers (Arm, Vela's SUPPORTED_OPS.md)"


def lint_qnn(path: Path, soc: str, *, timeout_s: float) -> LintReport:
    """What Qualcomm's compiler takes of a file for one SoC; raises DeviceError where it is not set up here."""
    if path.suffix == ".onnx":
        return lint_qnn_onnx(path, soc, timeout_s=timeout_s)

    def compile_(output: Path, log: Path) -> Compiled:
        return compile_qnn(path, output, soc, log=log, timeout_s=timeout_s)

    return _lint(path, "qnn", soc, compile_)


def lint_ethos_u(path: Path, device: str, *, timeout_s: float) -> LintReport:
    """What Vela takes of a file for one of Arm's NPUs; raises MissingExtraError without Vela."""
    if path.suffix == ".onnx":
        advice = "edgekit export --target tflite --quantize int8"
        finding = whole_file("format", "Vela reads TFLite files", advice, "ethos-u-vela 5.2.0")
        return LintReport(file=str(path), accelerator="ethos-u", judge="Vela", findings=(finding,))

    def compile_(output: Path, log: Path) -> Compiled:
        return compile_vela(path, output, device, log=log, timeout_s=timeout_s)

    return _lint(path, "ethos-u", device, compile_)


def _lint(path: Path, accelerator: str, device: str, compile_: Callable[[Path, Path], Compiled]) -> LintReport:
    nodes = read_graph(path)
    findings: list[Finding] = list(value_findings(nodes, accelerator))
    with tempfile.TemporaryDirectory(prefix="edgekit-lint-") as folder:
        try:
            made = compile_(Path(folder, "model.tflite"), Path(folder, "log"))
        except ExportError as error:
            why = str(error).partition(" (log: ")[0]
            advice = "the same file for another device, or another scheme: the compiler does not tell which operator"
            findings.append(whole_file("compiler-failed", why, advice, f"the compiler for {device}"))
            return LintReport(
                file=str(path), accelerator=accelerator, judge=f"the compiler for {device}", findings=tuple(findings)
            )
    report = made.report
    judge = f"{made.compiler} {made.version} for {device}"
    if accelerator == "ethos-u" and not any(tensor.dtype == "int8" for node in nodes for tensor in node.outputs):
        why = "it computes in float, of which Ethos-U takes nothing"
        advice = "export with --quantize int8 (or int16x8), which quantizes activations too"
        findings.append(whole_file("float", why, advice, _INTEGERS))
    else:
        findings += left_findings(report.left, accelerator, judge)
    return LintReport(
        file=str(path),
        accelerator=accelerator,
        judge=judge,
        findings=tuple(findings),
        operators=report.operators,
        operators_taken=report.operators_taken,
        partitions=report.partitions,
    )

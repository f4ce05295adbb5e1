"""Arm's Ethos-U NPUs: Vela compiles int8 and int16 TFLite files, and tells what it leaves to the CPU."""

import importlib.metadata
import importlib.util
import re
import shutil
import sys
import tempfile
from pathlib import Path

from edgekit.bundle import PartitionReport
from edgekit.errors import ExportError
from edgekit.export.compilers.compiled import Compiled, LeftNode, group_left, run_compiler
from edgekit.export.describe_tflite import describe_tflite
from edgekit.extras import check_installed

_LEFT = re.compile(r"Warning \(supported operators\) operator: (\S+), ofm: '([^']*)'\nReason: ([^\n]*)(?:\n([^\n]+))?")
_TENSOR = re.compile(r" \([^)]*\)$")  # the name of one tensor: it would keep equal reasons apart
_CUSTOM = "ethos-u"


def compile_vela(model: Path, output: Path, device: str, *, log: Path, timeout_s: float) -> Compiled:
    """Compile a TFLite file for one of Arm's NPUs.

    Raises MissingExtraError without Vela, ExportError where it fails.
    """
    check_installed(("ethosu",), f"compiling for {device}")
    with tempfile.TemporaryDirectory(prefix="vela-", dir=output.parent) as folder:
        argv = [sys.executable, "-P", "-m", "ethosu.vela", str(model.absolute())]
        argv += [f"--accelerator-config={device}", f"--output-dir={folder}", "--show-cpu-operations"]
        run = run_compiler(argv, device, log=log, timeout_s=timeout_s)
        written = Path(folder, f"{model.stem}_vela.tflite")
        if not written.is_file():
            raise ExportError(f"{device}: Vela wrote no file", log=log)
        shutil.move(written, output)
    return Compiled(
        compiler="ethos-u-vela",
        version=importlib.metadata.version("ethos-u-vela"),
        report=_read_report(run.stdout + run.stderr, model, output),
    )


def _read_report(text: str, model: Path, output: Path) -> PartitionReport:
    """Vela counts operators of its own making: those of the file, less those that it warns of, are what it took."""
    nodes = {
        where: LeftNode(operator=operator, output=where, reason=_reason(why, more))
        for operator, where, why, more in _LEFT.findall(text)
    }
    total = sum(describe_tflite(model).operators.values())
    commands = describe_tflite(output).operators.get(_CUSTOM, 0)
    return PartitionReport(
        operators=total,
        operators_taken=total - len(nodes) if commands else 0,
        partitions=commands,
        left=group_left(nodes.values()),
    )


def _reason(why: str, more: str) -> str:
    return f"{_TENSOR.sub('', why)}{f'; {more}' if more else ''}"

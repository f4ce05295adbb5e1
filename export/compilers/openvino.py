"""OpenVINO's compiler, by LiteRT's plugin, in an environment of its own; for the CPU, where Intel's NPU is not."""

from pathlib import Path

from edgekit.export.compilers.compiled import Compiled
from edgekit.export.compilers.environment import environment_packages, package_version
from edgekit.export.compilers.litert_plugin import read_report, run_plugin

RUNTIME = "litert-openvino"
_ANY_SOC = "LNL"  # the plugin asks for one; the backend CPU makes nothing of it


def compile_openvino(model: Path, output: Path, *, log: Path, timeout_s: float) -> Compiled:
    """Compile a TFLite file for OpenVINO's CPU.

    Raises DeviceError, which names the command, where OpenVINO is not set up here, ExportError where it fails.
    """
    packages = environment_packages(RUNTIME, "compiling for openvino")
    text = run_plugin(
        "intel_openvino",
        "IntelOpenVINO",
        _ANY_SOC,
        model,
        output,
        litert=packages / "ai_edge_litert",
        libraries=[packages / "openvino" / "libs"],
        log=log,
        timeout_s=timeout_s,
        options=["--intel_openvino_graph_backends=cpu"],
    )
    return Compiled(
        compiler="openvino (by LiteRT's plugin)",
        version=package_version(packages, "openvino"),
        report=read_report(text),
    )

"""Qualcomm's compiler, QNN: TFLite files by LiteRT's plugin, with the libraries of onnxruntime-qnn's environment."""

import tempfile
from pathlib import Path

from edgekit.errors import ExportError
from edgekit.export.compilers.compiled import Compiled
from edgekit.export.compilers.contexts import check_soc
from edgekit.export.compilers.environment import environment_packages, package_version
from edgekit.export.compilers.litert_plugin import litert_folder, read_report, run_plugin
from edgekit.export.compilers.targets import QUALCOMM_SOCS

RUNTIME = "onnxruntime-qnn"
#: what is known of a SoC whose compiler fails without a word
_KNOWN = {
    "SM8350": "its compiler takes every operator of such files alone and fails on the whole; those of SM8450 and later "
    "SoCs compile them",
}


def compile_qnn(model: Path, output: Path, soc: str, *, log: Path, timeout_s: float) -> Compiled:
    """Compile a TFLite file's partitions into contexts for one SoC.

    Raises DeviceError, which names the command, where QNN is not set up here, ExportError where it fails.
    """
    packages = environment_packages(RUNTIME, f"QNN's compiler for {soc}")
    try:
        text = _run(packages, model, output, soc, log=log, timeout_s=timeout_s)
    except ExportError as error:
        if soc not in _KNOWN:
            raise
        why = str(error).removesuffix(f" (log: {error.log})")
        raise ExportError(f"{why}; {_KNOWN[soc]}", log=error.log) from error
    report = read_report(text)
    if not report.operators:
        raise ExportError(f"{soc}: the compiler told of no partition: its plugin was not loaded", log=log)
    if report.operators_taken:
        check_soc(output, soc)
    return Compiled(
        compiler="QNN (by LiteRT's plugin, libraries of onnxruntime-qnn)",
        version=package_version(packages, "onnxruntime-qnn"),
        report=report,
        device_number=QUALCOMM_SOCS[soc],
    )


def _run(packages: Path, model: Path, output: Path, soc: str, *, log: Path, timeout_s: float) -> str:
    with tempfile.TemporaryDirectory(prefix="edgekit-qnn-libraries-") as folder:
        return run_plugin(
            "qualcomm",
            "Qualcomm",
            soc,
            model,
            output,
            litert=litert_folder(f"compiling for {soc}"),
            libraries=[_link_libraries(packages, Path(folder)), packages / "onnxruntime_qnn.libs"],
            log=log,
            timeout_s=timeout_s,
        )


def _link_libraries(packages: Path, folder: Path) -> Path:
    """QNN's libraries in one folder. ai-edge-litert 2.3.0 opens libQnnLpai.so, which onnxruntime-qnn 2.7.0 has not.

    Any QNN library will do in its place; without one no model is compiled.
    """
    source = packages / "onnxruntime_qnn"
    for library in source.glob("*.so"):
        (folder / library.name).symlink_to(library)
    (folder / "libQnnLpai.so").symlink_to(source / "libQnnSystem.so")
    return folder

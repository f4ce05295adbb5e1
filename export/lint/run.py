"""Asks whoever knows what an accelerator would make of a file, before there is any hardware."""

from pathlib import Path

from edgekit.bundle import MANIFEST, open_bundle
from edgekit.errors import RefusedError, UnknownNameError
from edgekit.export.compilers.targets import ETHOS_U, QUALCOMM_SOCS, parse_target
from edgekit.export.lint.compilers import DEFAULT_ETHOS_U, DEFAULT_SOC, lint_ethos_u, lint_qnn
from edgekit.export.lint.findings import LintReport
from edgekit.export.lint.gpu import lint_gpu
from edgekit.export.lint.nnapi import lint_nnapi

ACCELERATORS = ("gpu", "nnapi", "qnn", "coreml", "ethos-u")
DEFAULT_TIMEOUT_S = 600.0
_SUFFIXES = {"coreml": (".mlpackage",)}
_MODELS = (".tflite", ".onnx")


def check_accelerator(name: str) -> None:
    """Raise UnknownNameError for what `--for` does not know: gpu, nnapi, qnn[:SOC], coreml, ethos-u[85-256].

    Raises RefusedError for accelerators that are measured and not linted.
    """
    if name.startswith("qnn:") or name in ETHOS_U:
        parse_target(name)
    elif name in ("cpu", "npu", "edgetpu"):
        raise RefusedError(f"lint --for {name} is not offered: name one of {', '.join(ACCELERATORS)}")
    elif name not in ACCELERATORS:
        raise UnknownNameError("accelerator", name, [*ACCELERATORS, *(f"qnn:{soc}" for soc in QUALCOMM_SOCS), *ETHOS_U])


def file_to_lint(path: Path, accelerator: str) -> Path:
    """The file to read: of a bundle its model.

    Raises RefusedError for what this accelerator can't take, with the export that would help.
    """
    bundle = open_bundle(path) if (path / MANIFEST).is_file() else None
    if bundle and bundle.manifest.compiled:
        raise RefusedError(f"{path} is compiled for {bundle.manifest.compiled.device}: lint the bundle it is made from")
    file = bundle.model_path if bundle else path
    wanted = _SUFFIXES.get(accelerator, _MODELS)
    if file.suffix in wanted:
        return file
    kind = "an .mlpackage" if accelerator == "coreml" else "a .tflite or .onnx file"
    what = f"a {bundle.manifest.target} bundle" if bundle else f"neither a bundle nor {kind}"
    target = "coreml" if accelerator == "coreml" else "tflite"
    raise RefusedError(
        f"{path} is {what}, and {accelerator} runs {' and '.join(wanted)} files: edgekit export --target {target}"
    )


def lint_file(path: Path, accelerator: str, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> LintReport:
    """What an accelerator would make of a file; `accelerator` as `check_accelerator` takes it.

    Raises BundleError for a broken file, MissingExtraError or DeviceError where who is asked is not installed.
    """
    if accelerator == "coreml":
        from edgekit.export.lint_coreml import lint_mlpackage

        return LintReport(
            file=str(path),
            accelerator="coreml",
            judge="published rules for the Neural Engine; Core ML decides on the device",
            findings=tuple(lint_mlpackage(path)),
        )
    if accelerator == "gpu":
        return lint_gpu(path, timeout_s=timeout_s)
    if accelerator == "nnapi":
        return lint_nnapi(path)
    if accelerator.startswith("qnn"):
        return lint_qnn(path, accelerator.partition(":")[2] or DEFAULT_SOC, timeout_s=timeout_s)
    device = DEFAULT_ETHOS_U if accelerator == "ethos-u" else accelerator
    return lint_ethos_u(path, device, timeout_s=timeout_s)

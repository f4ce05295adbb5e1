"""Compiles a bundle for one device into a bundle of its own: the compiler's file and report, and a proof of it."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit import bundle as bundles
from edgekit.bundle import MANIFEST, SUFFIX, Accuracy, Bundle, CompiledFor, Manifest, Parity
from edgekit.errors import RefusedError
from edgekit.export.compilers.compiled import Compiled
from edgekit.export.compilers.contexts import check_soc
from edgekit.export.compilers.openvino import compile_openvino
from edgekit.export.compilers.qnn import compile_qnn
from edgekit.export.compilers.targets import QUALCOMM_SOCS, CompileTarget
from edgekit.export.compilers.vela import compile_vela
from edgekit.export.describe_tflite import describe_tflite
from edgekit.export.recipes import schemes_of
from edgekit.export.schemes import Tolerance, tolerance_of
from edgekit.outputs import HIDDEN, atomic_directory, check_replaceable, scratch_directory
from edgekit.program import WRITING_TASKS
from edgekit.proof.prove import Proof, prove_file

DEFAULT_TIMEOUT_S = 1800.0
DEFAULT_STEPS = 50
#: compiler → the runtime of its files, and what stands in for the device here
_RUNTIMES = {"qnn": "qnn-simulator", "openvino": "litert-openvino", "ethos-u": "vela"}
_STANDS_IN = {
    "qnn": "Qualcomm's simulator of its NPU (onnxruntime-qnn, x86_64)",
    "openvino": "OpenVINO on this machine's CPU",
}
_NO_BOARD = (
    "not run here: Ethos-U runs in microcontrollers and in Arm's Corstone models, neither of which this machine has; "
    "compare its outputs on the board with golden.npz"
)

#: what the time of a Transformer goes into
PRODUCTS = ("FULLY_CONNECTED", "BATCH_MATMUL", "CONV_2D", "DEPTHWISE_CONV_2D")

OnStage = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class CompileOutcome:
    """The bundle that was written."""

    bundle: Bundle

    @property
    def ok(self) -> bool:
        """Whether its parity, where it can be run here, holds."""
        return self.bundle.manifest.parity.verdict != "failed"


def compiled_path(bundle: Bundle, target: CompileTarget, parent: Path) -> Path:
    """Where the compiled bundle goes: `MODEL.TARGET-SCHEME.qnn-SM8650.edgekit` in `parent`."""
    return parent / f"{bundle.path.name.removesuffix(SUFFIX)}.{target.name}{SUFFIX}"


def check_compilable(bundle: Bundle, target: CompileTarget) -> None:
    """Raise RefusedError for a bundle that this compiler has no use for, with what to do."""
    manifest = bundle.manifest
    if manifest.compiled:
        raise RefusedError(f"{bundle.path} is compiled already, for {manifest.compiled.device}: give its source")
    if manifest.task in WRITING_TASKS:
        raise RefusedError(
            f"{bundle.path} writes texts, of several signatures: --for {target.name} compiles files of classifiers only"
        )
    if manifest.target != "tflite":
        raise RefusedError(
            f"{bundle.path} is a {manifest.target} bundle: --for {target.name} compiles TFLite files; "
            "edgekit export --target tflite makes one"
        )


def compile_bundle(
    bundle: Bundle,
    target: CompileTarget,
    *,
    parent: Path,
    force: bool = False,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    max_steps: int = DEFAULT_STEPS,
    on_stage: OnStage = lambda stage: None,
) -> CompileOutcome:
    """Compile a bundle's file, prove the result where it can be run here, and write it as a bundle of its own.

    Raises RefusedError for what can't be compiled or of which the compiler took nothing, DeviceError or
    MissingExtraError without the compiler, ExportError where it fails, OutputError where the output can't be written.
    """
    check_compilable(bundle, target)
    bundles.check_files(bundle)
    path = compiled_path(bundle, target, parent)
    check_replaceable(path.absolute(), force=force, marker=MANIFEST)
    with scratch_directory(parent) as scratch, atomic_directory(path, force=force, marker=MANIFEST) as folder:
        log = _log_of(path)
        on_stage("compiling")
        output = scratch / bundle.manifest.model
        made = _compile(bundle.model_path, output, target, log=log, timeout_s=timeout_s)
        _check_taken(made, target, bundle)
        shutil.move(output, folder / output.name)
        shutil.copyfile(log, folder / bundles.LOG)
        for name in (bundles.GOLDEN, bundles.TOKENIZER, bundles.LABELS):
            if (bundle.path / name).is_file():  # hand-made bundles may lack a tokenizer
                shutil.copyfile(bundle.path / name, folder / name)
        on_stage("proving" if target.compiler in _STANDS_IN else "sealing")
        _seal(folder, path.name.removesuffix(SUFFIX), bundle, target, made, max_steps)
    return CompileOutcome(bundle=bundles.open_bundle(path))


def prove_again(bundle: Bundle) -> Proof:
    """The proof of a compiled bundle, repeated on what stands in for its device, after a look at its contexts.

    Raises BundleError where they were compiled for another device than the manifest says.
    """
    manifest = bundle.manifest
    if manifest.compiled and manifest.compiled.device in QUALCOMM_SOCS:
        check_soc(bundle.model_path, manifest.compiled.device)
    return _prove(bundle.model_path, bundle.golden_path, manifest, manifest.parity.steps)


def tolerance_of_bundle(manifest: Manifest) -> Tolerance:
    """What "within tolerance" means for a bundle's file: NPUs compute float32 in float16 or bfloat16."""
    schemes = schemes_of(manifest)
    return tolerance_of((*schemes, "fp16") if manifest.compiled else schemes, manifest.rewrites)


def _log_of(path: Path) -> Path:
    folder = path.absolute().parent / HIDDEN / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"{path.name.removesuffix(SUFFIX)}.log"
    log.unlink(missing_ok=True)
    return log


def _compile(model: Path, output: Path, target: CompileTarget, *, log: Path, timeout_s: float) -> Compiled:
    if target.compiler == "qnn":
        return compile_qnn(model, output, target.device, log=log, timeout_s=timeout_s)
    if target.compiler == "openvino":
        return compile_openvino(model, output, log=log, timeout_s=timeout_s)
    return compile_vela(model, output, target.device, log=log, timeout_s=timeout_s)


def _check_taken(made: Compiled, target: CompileTarget, bundle: Bundle) -> None:
    """Refuse a file of which no matrix product would run on the device: it would look compiled and run on the CPU."""
    report = made.report
    held = sum(describe_tflite(bundle.model_path).operators.get(kind, 0) for kind in PRODUCTS)
    left = sum(each.count for each in report.left if each.operator in PRODUCTS)
    if report.operators_taken and (not held or left < held):
        return
    first = report.left[0] if report.left else None
    why = f" ({first.count} × {first.operator}: {first.reason})" if first else ""
    advice = "export with --quantize int8" if target.compiler == "ethos-u" else f"edgekit lint {bundle.path} tells more"
    taken = f"{report.operators_taken} of {report.operators} operators and no matrix product"
    raise RefusedError(f"{target.name} takes {taken}{why}: {advice}")


def _seal(folder: Path, name: str, bundle: Bundle, target: CompileTarget, made: Compiled, max_steps: int) -> Manifest:
    source = bundle.manifest
    ran_on = _STANDS_IN.get(target.compiler, "")
    fields = {key: getattr(source, key) for key in type(source).model_fields if key not in ("files", "compiled")}
    compiled = CompiledFor(
        compiler=made.compiler,
        compiler_version=made.version,
        accelerator="npu",
        device=target.device,
        device_number=made.device_number,
        source_sha256=source.files[source.model].sha256,
        report=made.report,
        ran_on=ran_on,
    )
    unproven = Manifest.model_validate(
        fields | {"name": name, "runtime": _RUNTIMES[target.compiler], "compiled": compiled, "files": {}}
    )
    proof = _prove(folder / source.model, folder / bundles.GOLDEN, unproven, max_steps)
    changed: dict[str, Any] = {"parity": proof.parity, "accuracy": proof.accuracy, "compiled": compiled}
    changed |= {"name": name, "runtime": unproven.runtime, "requires": {target.compiler: target.device}}
    tools = source.tools | {made.compiler: made.version}
    return bundles.seal_bundle(folder, **(fields | changed | {"tools": tools}))


def _prove(model: Path, golden: Path, manifest: Manifest, max_steps: int) -> Proof:
    if manifest.compiled is None or not manifest.compiled.ran_on:
        steps = manifest.parity.steps
        parity = Parity(verdict="not-run", steps=steps, note=_NO_BOARD)
        return Proof(parity=parity, accuracy=Accuracy(accuracy=None, note=_NO_BOARD))
    tolerance = tolerance_of_bundle(manifest)
    proof = prove_file(
        model,
        manifest.runtime,
        golden,
        relative_tolerance=tolerance.relative,
        labels_changed_tolerance=tolerance.labels_changed,
        cosine_tolerance=tolerance.cosine,
        population=manifest.accuracy.population,
        accuracy_note="" if manifest.accuracy.samples else manifest.accuracy.note,
        max_steps=max_steps,
    )
    stands_in = f"ran on {manifest.compiled.ran_on}"
    if manifest.compiled.device in QUALCOMM_SOCS:
        stands_in += f", which stands in for {manifest.compiled.device}"
    parity = proof.parity.model_copy(update={"note": "; ".join(filter(None, (proof.parity.note, stands_in)))})
    return Proof(parity=parity, accuracy=proof.accuracy)

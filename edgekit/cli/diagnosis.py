"""The quantization part of `edgekit report`: joins what export finds in files and modules with latency from devices."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.cli.output import split_list, stderr

if TYPE_CHECKING:
    from edgekit.bundle import Bundle
    from edgekit.checkpoint import Checkpoint
    from edgekit.export.diagnosis.times import ModuleTimes
    from edgekit.measurement import DeviceFacts, Measurement
    from edgekit.report.quantization import ModulesPart, QuantizationPart


def choose_paths(paths: Sequence[Path]) -> "tuple[Checkpoint | None, list[Bundle]]":
    """The checkpoint that is named, if one is, and the bundles: those named, else those of the checkpoint, else all.

    Raises BundleError for a path that is neither, and where there is nothing to report.
    """
    from edgekit.bundle import find_bundles, open_bundle
    from edgekit.checkpoint import CONFIG_FILE, content_sha256, load_checkpoint
    from edgekit.errors import BundleError

    folders = [path for path in dict.fromkeys(paths) if (path / CONFIG_FILE).is_file()]
    if len(folders) > 1:
        raise BundleError(f"{folders[1]} is a second checkpoint: a report has one by module; give its bundles instead")
    named = [open_bundle(path) for path in dict.fromkeys(paths) if path not in folders]
    checkpoint = load_checkpoint(folders[0]) if folders else None
    if named or checkpoint is None:
        return checkpoint, named or [open_bundle(path) for path in find_bundles(Path("bundles"))]
    try:
        found = [open_bundle(path) for path in find_bundles(Path("bundles"))]
    except BundleError:
        found = []
    sha256 = content_sha256(checkpoint.path)
    return checkpoint, [bundle for bundle in found if bundle.manifest.source.sha256 == sha256]


def diagnose(
    checkpoint: "Checkpoint | None",
    bundles: "Sequence[Bundle]",
    *,
    latency: bool,
    target: str,
    quantize: list[str],
    eval_samples: str,
    remarks: Sequence[str],
) -> "QuantizationPart":
    """Run the bundles here, and measure the checkpoint by module; says on stderr what it does."""
    from edgekit.export.diagnosis.advice import advise
    from edgekit.export.diagnosis.files import check_bundles, compare_bundles
    from edgekit.export.diagnosis.slow import explain_speed
    from edgekit.report.quantization import QuantizationPart

    problems = check_bundles(bundles)
    sound = [bundle for bundle in bundles if not problems[bundle.path] and bundle.manifest.parity.verdict != "not-run"]
    measured, untimed = _measure(sound) if latency and sound else ({}, {})
    groups, told = compare_bundles(
        bundles, problems, measured, untimed, lambda bundle: _say(f"{bundle.manifest.name}: replaying")
    )
    groups = [group.model_copy(update={"advice": advise(group), "slow": explain_speed(group)}) for group in groups]
    if checkpoint and checkpoint.config.task != "classify":
        why = f"it is of the task {checkpoint.config.task}, and that takes classifiers"
        told.append(f"{checkpoint.name} was not measured by module: {why}")
        return QuantizationPart(groups=tuple(groups), remarks=(*remarks, *told))
    modules = _modules(checkpoint, _times(checkpoint, target, bundles, measured), target, quantize, eval_samples)
    if checkpoint and not bundles:
        told.append(f"no bundle in bundles/ is of {checkpoint.name}: `edgekit export {checkpoint.path}` makes them")
    return QuantizationPart(groups=tuple(groups), modules=modules, remarks=(*remarks, *told))


def _say(line: str) -> None:
    stderr.print(line, markup=False)


def _measure(bundles: "Sequence[Bundle]") -> "tuple[dict[Path, Measurement], dict[Path, str]]":
    """Latency and time by operator of each on this machine, in turns; and why not, where not all was measured."""
    from edgekit.devices.local import LocalDevice
    from edgekit.devices.measure import Candidate, measure_interleaved
    from edgekit.errors import EdgekitError
    from edgekit.measurement import Settings

    settings = Settings(num_runs=30, min_secs=0.3, max_secs=10.0, cold_starts=1, op_profile=True)
    with LocalDevice() as device:
        untimed = _refusals(device.facts(), bundles)
        offered = [bundle for bundle in bundles if bundle.path not in untimed]
        if not offered:
            return {}, untimed
        _say(f"measuring {len(offered)} bundles on this host, in turns")
        try:
            candidates = [Candidate(bundle=bundle) for bundle in offered]
            made = measure_interleaved(device, candidates, settings=settings, rounds=3)
        except EdgekitError as error:  # raised where not one was measured
            return {}, untimed | {bundle.path: f"latency not measured: {error}" for bundle in offered}
    faults = {
        bundle.path: f"measuring ended early: {each.fault}"
        for bundle, each in zip(offered, made, strict=True)
        if each.fault
    }
    return {bundle.path: each for bundle, each in zip(offered, made, strict=True)}, untimed | faults


def _refusals(facts: "DeviceFacts", bundles: "Sequence[Bundle]") -> dict[Path, str]:
    """The bundles that can't be run here at speed (Core ML without macOS), and why."""
    from edgekit.devices.accelerators import plan_run
    from edgekit.errors import EdgekitError

    refused = {}
    for bundle in bundles:
        try:
            plan_run(bundle.manifest, facts, accelerator="cpu")
        except EdgekitError as error:
            refused[bundle.path] = f"no latency: {error}"
    return refused


def _times(
    checkpoint: "Checkpoint | None", target: str, bundles: "Sequence[Bundle]", measured: "Mapping[Path, Measurement]"
) -> "ModuleTimes":
    """Time by module from the float32 bundle of the checkpoint and target, where it was measured."""
    from edgekit.checkpoint import content_sha256
    from edgekit.export.diagnosis.times import ModuleTimes, module_times

    if checkpoint is None:
        return ModuleTimes()
    sha256 = content_sha256(checkpoint.path)
    for bundle in bundles:
        manifest, measurement = bundle.manifest, measured.get(bundle.path)
        if measurement and (manifest.target, manifest.scheme, manifest.source.sha256) == (target, "none", sha256):
            return module_times(bundle, measurement.operators, checkpoint)
    hint = f"`edgekit export {checkpoint.path} --target {target} --quantize none` makes one"
    return ModuleTimes(
        origin=f"Time by module is not told: no float32 {target} bundle of {checkpoint.name} was measured ({hint})."
    )


def _modules(
    checkpoint: "Checkpoint | None", times: "ModuleTimes", target: str, quantize: list[str], eval_samples: str
) -> "ModulesPart | None":
    """The checkpoint by module, with the sweep of `edgekit sensitivity` (what it finished is read, not done again)."""
    from edgekit.checkpoint import check_classifier
    from edgekit.cli.sweeps import SweepProgress, open_sweep
    from edgekit.errors import DataError
    from edgekit.export.diagnosis.modules import diagnose_modules
    from edgekit.export.quantize.local_engine import run_batches
    from edgekit.export.quantize.sensitivity import check_by_module, measure_sensitivity
    from edgekit.export.schemes import check_scheme

    if checkpoint is None:
        return None
    schemes = [check_scheme(name) for name in split_list(quantize)] or list(_DEFAULTS.get(target, ()))
    for scheme in schemes:
        check_by_module(scheme, target)
    check_classifier(checkpoint, "trying schemes module by module")
    try:
        sweep = open_sweep(
            checkpoint,
            target,
            schemes=schemes,
            eval_samples=eval_samples,
            calibration_data=None,
            num_calibration_samples=200,
        )
    except DataError as error:
        return diagnose_modules(checkpoint, target, [], times, [f"modules were not quantized: {error}"])
    with SweepProgress() as progress:
        measured = measure_sensitivity(
            sweep, schemes, run_batches, lambda done, total: progress.show("candidates", done, total)
        )
    return diagnose_modules(checkpoint, target, measured, times)


#: the schemes that are measured by module where none is named
_DEFAULTS = {"tflite": ("int8", "int4-weight"), "onnx": ("int8", "int4-weight"), "coreml": ("int4-weight",)}

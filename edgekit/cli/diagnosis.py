"""The quantization part of `edgekit report`: joins what export finds in files and modules with latency from devices."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.cli.output import split_list, stderr

if TYPE_CHECKING:
    from edgekit.bundle import Bundle
    from edgekit.checkpoint import Checkpoint
    from edgekit.measurement import Measurement
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
    measured, failures = _measure(sound) if latency and sound else ({}, [])
    groups, said = compare_bundles(
        bundles, problems, measured, lambda bundle: _say(f"{bundle.manifest.name}: replaying")
    )
    groups = [group.model_copy(update={"advice": advise(group), "slow": explain_speed(group)}) for group in groups]
    modules = _modules(checkpoint, target, quantize, eval_samples) if checkpoint else None
    told = [*remarks, *said, *failures]
    if checkpoint and not bundles:
        told.append(f"no bundle in bundles/ is of {checkpoint.name}: `edgekit export {checkpoint.path}` makes them")
    return QuantizationPart(groups=tuple(groups), modules=modules, remarks=tuple(told))


def _say(line: str) -> None:
    stderr.print(line, markup=False)


def _measure(bundles: "Sequence[Bundle]") -> "tuple[Mapping[Path, Measurement], list[str]]":
    """Latency and time by operator of each on this machine, in turns; and what could not be measured."""
    from edgekit.devices.local import LocalDevice
    from edgekit.devices.measure import Candidate, measure_bundle, measure_interleaved
    from edgekit.errors import EdgekitError
    from edgekit.measurement import Settings

    settings = Settings(num_runs=30, min_secs=0.3, max_secs=10.0, cold_starts=1, op_profile=True)
    _say(f"measuring {len(bundles)} bundles on this host, in turns")
    with LocalDevice() as device:
        try:
            candidates = [Candidate(bundle=bundle) for bundle in bundles]
            made = measure_interleaved(device, candidates, settings=settings, rounds=3)
            return {bundle.path: each for bundle, each in zip(bundles, made, strict=True)}, _faults(made)
        except EdgekitError:  # one is not offered here: the others are measured, each on its own
            measured, failures = {}, []
            for bundle in bundles:
                try:
                    measured[bundle.path] = measure_bundle(device, bundle, settings=settings)
                except EdgekitError as error:
                    failures.append(f"{bundle.manifest.name}: latency not measured: {error}")
            return measured, failures + _faults(tuple(measured.values()))


def _faults(measurements: "Sequence[Measurement]") -> list[str]:
    return [f"{each.bundle}: {each.fault}" for each in measurements if each.fault]


def _modules(checkpoint: "Checkpoint", target: str, quantize: list[str], eval_samples: str) -> "ModulesPart":
    """The checkpoint by module, with the sweep of `edgekit sensitivity` (what it finished is read, not done again)."""
    from edgekit.cli.sweeps import SweepProgress, open_sweep
    from edgekit.errors import DataError
    from edgekit.export.diagnosis.modules import diagnose_modules
    from edgekit.export.quantize.local_engine import run_batches
    from edgekit.export.quantize.sensitivity import check_by_module, measure_sensitivity
    from edgekit.export.schemes import check_scheme

    schemes = [check_scheme(name) for name in split_list(quantize)] or list(_DEFAULTS.get(target, ()))
    for scheme in schemes:
        check_by_module(scheme, target)
    try:
        sweep = open_sweep(
            checkpoint.path,
            target,
            schemes=schemes,
            eval_samples=eval_samples,
            calibration_data=None,
            num_calibration_samples=200,
        )
    except DataError as error:
        return diagnose_modules(checkpoint, target, [], [f"modules were not quantized: {error}"])
    with SweepProgress() as progress:
        measured = measure_sensitivity(
            sweep, schemes, run_batches, lambda done, total: progress.show("candidates", done, total)
        )
    return diagnose_modules(checkpoint, target, measured)


#: the schemes that are measured by module where none is named
_DEFAULTS = {"tflite": ("int8", "int4-weight"), "onnx": ("int8", "int4-weight"), "coreml": ("int4-weight",)}

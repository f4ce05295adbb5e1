"""`edgekit sensitivity`: what quantizing each module costs."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgekit.cli.sweeps import (
    CalibrationDataOption,
    CalibrationSamplesOption,
    CheckpointArgument,
    EngineOption,
    EvalSamplesOption,
    RayAddressOption,
    TargetOption,
)

if TYPE_CHECKING:
    from edgekit.export.quantize.scores import Score
    from edgekit.export.quantize.sensitivity import Sensitivity


def run_sensitivity(
    checkpoint: CheckpointArgument = None,
    target: TargetOption = "tflite",
    quantize: Annotated[
        list[str] | None, typer.Option(help="Schemes to measure, of those that single modules can have.")
    ] = None,
    eval_samples: EvalSamplesOption = "500",
    calibration_data: CalibrationDataOption = None,
    num_calibration_samples: CalibrationSamplesOption = 200,
    engine: EngineOption = "local",
    ray_address: RayAddressOption = "auto",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the measurements as JSON.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure what quantizing each module costs: each alone, and everything but it.

    Every candidate is really made, run in the target's runtime on texts of the validation part, and compared with the
    source model: signal-to-noise ratio, cosine, Kullback-Leibler divergence, accuracy; of a model that writes, in
    TFLite, bits per byte. Finished work is kept: the same command goes on where it was interrupted.

    Examples:

        edgekit sensitivity --target tflite --quantize int8,int4-weight

        edgekit sensitivity checkpoints/mine --target onnx --quantize int8-dynamic -o sensitivity.json

        edgekit sensitivity checkpoints/translator --quantize int4-weight
    """
    from edgekit.cli.output import print_json, split_list, stderr
    from edgekit.cli.sweeps import SweepProgress, choose_engine, open_checkpoint, open_sweep
    from edgekit.export.quantize.sensitivity import check_by_module, check_writer_by_module, measure_sensitivity
    from edgekit.export.schemes import check_scheme
    from edgekit.export.targets import find_targets
    from edgekit.outputs import write_text

    named = [check_scheme(name) for name in split_list(quantize or [])]
    run_batches = choose_engine(engine, ray_address)
    find_targets([target])
    for scheme in named:
        check_by_module(scheme, target)
    loaded = open_checkpoint(checkpoint)
    writes = loaded.config.task != "classify"
    schemes = named or [_WRITER_DEFAULT if writes else _DEFAULTS.get(target, "int8")]
    if writes:
        check_writer_by_module(loaded.config, target, schemes)
    sweep = open_sweep(
        loaded,
        target,
        schemes=schemes,
        eval_samples=eval_samples,
        calibration_data=calibration_data,
        num_calibration_samples=num_calibration_samples,
    )
    with SweepProgress() as progress:
        measured = measure_sensitivity(
            sweep, schemes, run_batches, lambda done, total: progress.show("candidates", done, total)
        )
    document = [each.model_dump(mode="json") for each in measured]
    if output:
        write_text(output, json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    if as_json:
        print_json(document)
        return
    for each in measured:
        (_show_writer if writes else _show)(each)
    if writes:
        return
    broken = [f"{m.module} in {each.scheme}" for each in measured for m in each.modules if m.alone.non_finite]
    if broken:
        stderr.print(f"edgekit: warning: NaN or infinity comes of quantizing {', '.join(broken)}", markup=False)
    where = f"{checkpoint} " if checkpoint else ""
    stderr.print(f"Next: edgekit search {where}--target {target} --max-drop 0.3", markup=False)


def _show(each: "Sensitivity") -> None:
    from edgekit.cli.output import print_table

    rows = [
        [m.module, f"{m.elements:,}", *_cells(m.alone), *_cells(m.all_but)[:3]]
        for m in sorted(each.modules, key=lambda m: -(m.alone.kl if m.alone.kl is not None else float("inf")))
    ]
    rows.append(["(the whole scheme)", "", *_cells(each.whole), "", "", ""])
    alone = ["SNR", "KL", "accuracy", "cosine", "labels changed"]
    headers = ["module", "weights", *alone, *(f"{name} of the rest" for name in alone[:3])]
    title = (
        f"{each.checkpoint}, {each.target}, {each.scheme}: each module alone, and the rest without it; {each.texts}; "
        "the most costly first; KL in nats"
    )
    print_table(headers, rows, title=title)


def _show_writer(each: "Sensitivity") -> None:
    from edgekit.cli.output import print_table

    rows = [
        [m.module, f"{m.elements:,}", *_writer_cells(m.alone), *_writer_cells(m.all_but)[:2]]
        for m in sorted(each.modules, key=lambda m: -_bits(m.alone))
    ]
    rows.append(["(the whole scheme)", "", *_writer_cells(each.whole), "", ""])
    alone = ["bits per byte", "change", "likeliest tokens right"]
    headers = ["module", "weights", *alone, *(f"{name} of the rest" for name in alone[:2])]
    title = (
        f"{each.checkpoint}, {each.target}, {each.scheme}: each module alone, and the rest without it; {each.texts}; "
        "the most costly first"
    )
    print_table(headers, rows, title=title)


def _bits(score: "Score") -> float:
    return float("inf") if score.bits_per_byte is None else score.bits_per_byte


def _writer_cells(score: "Score") -> list[str]:
    if score.bits_per_byte is None or score.reference_bits_per_byte is None or score.accuracy is None:
        return [f"failed: {score.error}"[:60], "–", "–"]
    change = score.bits_per_byte - score.reference_bits_per_byte
    return [f"{score.bits_per_byte:.4f}", f"{change:+.4f}", f"{100 * score.accuracy:.1f} %"]


def _cells(score: "Score") -> list[str]:
    from edgekit.cli.output import points_text

    if score.error:
        return [f"failed: {score.error}"[:60], "–", "–", "–", "–"]
    if score.non_finite:
        return ["NaN", "–", "–", "–", f"{score.labels_changed} of {score.texts}"]
    accuracy = "–" if score.drop is None else points_text(-score.drop)
    snr = "no noise" if score.snr_db is None else f"{score.snr_db:.1f} dB"
    return [snr, f"{score.kl:.1e}", accuracy, f"{score.cosine:.6f}", f"{score.labels_changed} of {score.texts}"]


#: the scheme that is measured where none is named: calibrated ones are not of models that write
_WRITER_DEFAULT = "int8-dynamic"
_DEFAULTS = {"tflite": "int8", "onnx": "int8", "coreml": "int4-weight"}

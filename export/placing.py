"""Steps as an exported file takes them: its lengths, its mask."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edgekit.export.lengths import fit_each, fit_steps, length_name
from edgekit.export.plan import PlannedExport
from edgekit.export.writer_forms import fit_writer_steps
from edgekit.model.rewrites import FLOAT_MASK
from edgekit.program import Signature
from edgekit.proof.golden import fit_inputs, read_golden, write_golden


def place_golden(plan: PlannedExport, golden: Path, output: Path, signatures: Sequence[Signature]) -> None:
    """Write the golden steps as the plan's file takes them: its mask, or the lengths that it has, if several."""
    if plan.writes and plan.target.name in ("onnx", "coreml"):
        own = read_golden(golden)
        steps = fit_writer_steps(own.steps, signatures)
        write_golden(output, replace(own, steps=steps, labels=own.labels[: len(steps)]))  # none is known of a text
    elif plan.cache_dtype == "int8":
        from edgekit.export.quantize.tflite_cache import fit_int8_steps

        own = read_golden(golden)
        write_golden(output, replace(own, steps=fit_int8_steps(own.steps, output.with_name(plan.target.file))))
    elif FLOAT_MASK in plan.rewrites:
        fit_steps_file(golden, output, signatures[0])
    elif plan.writes or len(plan.lengths) < 2:
        shutil.copyfile(golden, output)
    elif signatures[0].dynamic_length:
        write_golden(output, fit_each(read_golden(golden)))
    else:
        names = {each.name for each in signatures}

        def named(length: int) -> str:
            return length_name(length) if length_name(length) in names else signatures[0].name

        write_golden(output, fit_steps(read_golden(golden), plan.lengths, named))


def fit_steps_file(source: Path, output: Path, signature: Signature) -> Path:
    """Write the steps of `source` with inputs of the types and ranks of `signature`; returns `output`."""
    golden = read_golden(source)
    write_golden(output, replace(golden, steps=fit_inputs(golden.steps, signature)))
    return output

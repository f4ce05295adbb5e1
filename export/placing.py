"""Steps as an exported file takes them: its lengths, its mask."""

import shutil
from dataclasses import replace
from pathlib import Path

from edgekit.export.lengths import fit_steps
from edgekit.export.plan import PlannedExport
from edgekit.model.rewrites import FLOAT_MASK
from edgekit.program import Signature
from edgekit.proof.golden import fit_inputs, read_golden, write_golden


def place_golden(plan: PlannedExport, golden: Path, output: Path, signature: Signature) -> None:
    """Write the golden steps as the plan's file takes them: its mask, or the lengths that it has, if several."""
    if FLOAT_MASK in plan.rewrites:
        fit_steps_file(golden, output, signature)
        return
    if not plan.coreml or len(plan.coreml.sequence_lengths) < 2:
        shutil.copyfile(golden, output)
        return
    named = plan.coreml.signature_of
    write_golden(
        output,
        fit_steps(read_golden(golden), plan.coreml.sequence_lengths, lambda length: named(length) or signature.name),
    )


def fit_steps_file(source: Path, output: Path, signature: Signature) -> Path:
    """Write the steps of `source` with inputs of the types and ranks of `signature`; returns `output`."""
    golden = read_golden(source)
    write_golden(output, replace(golden, steps=fit_inputs(golden.steps, signature)))
    return output

"""Golden inputs of a model that edgekit knows only by its inputs: random ones that are valid, always the same."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.export.prepare import Inputs
from edgekit.export.quantize.calibration import CalibrationRecord
from edgekit.program import Program, SourceRef, TensorSpec
from edgekit.proof.golden import Arrays, Step

STEPS, CALIBRATION_STEPS = 16, 32
#: ids where nothing in the model says how many there are
_FEW = 2
_REMARK = "calibrated with random inputs, not with real data: ranges may not fit"


def make_inputs(program: Program, source: SourceRef) -> Inputs:
    """Random inputs: integers below the smallest table of the model, masks with padding to the right, normal floats."""
    del source
    signature = program.signatures[0]
    rows = smallest_table(program)
    made = [
        Step(signature=signature.name, inputs=draw_inputs(signature.inputs, rows, np.random.default_rng(seed)))
        for seed in range(STEPS + CALIBRATION_STEPS)
    ]
    record = CalibrationRecord(
        origin="random inputs",
        asked=CALIBRATION_STEPS,
        samples=CALIBRATION_STEPS,
        tokens=(1, 1, 1),
        divergence=None,
        own_divergence=None,
        remarks=(_REMARK,),
    )
    return Inputs(
        steps=tuple(made[:STEPS]),
        origin="random inputs drawn by edgekit",
        calibration=tuple(made[STEPS:]),
        record=record,
    )


def smallest_table(program: Program) -> int:
    """How many rows the smallest embedding table of a model has: ids below it are valid in all of them."""
    return min(_tables(program), default=_FEW)


def _tables(program: Program) -> Iterator[int]:
    if program.framework == "torch":
        import torch

        for module in program.module.modules():
            if isinstance(module, (torch.nn.Embedding, torch.nn.EmbeddingBag)):
                yield module.num_embeddings
    else:
        for layer in getattr(program.module, "_flatten_layers", lambda: ())():
            if type(layer).__name__ == "Embedding":
                yield int(layer.input_dim)


def draw_inputs(specs: tuple[TensorSpec, ...], rows: int, generator: np.random.Generator) -> Arrays:
    """One array for each input; those with "mask" in their names hide the end of the last axis."""
    lengths: dict[int, int] = {}
    return {spec.name: _draw(spec, rows, generator, lengths) for spec in specs}


def _draw(spec: TensorSpec, rows: int, generator: np.random.Generator, lengths: dict[int, int]) -> NDArray[Any]:
    if "mask" in spec.name and spec.shape:
        size = spec.shape[-1]
        real = lengths.setdefault(size, int(generator.integers(1, size + 1)))
        return np.broadcast_to(np.arange(size) < real, spec.shape).astype(spec.dtype)
    if spec.dtype == "int32":
        return generator.integers(0, rows, spec.shape, dtype=np.int32)
    return generator.normal(size=spec.shape).astype(np.float32)

"""Core ML: coremltools.optimize, weights only. Activations in int8 need Core ML's own runtime, on macOS only."""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import coremltools as ct
import coremltools.optimize.coreml as optimize
import numpy as np
from numpy.typing import NDArray

from edgekit.export.coreml_metadata import SCHEME
from edgekit.export.coreml_workarounds import quiet_converter
from edgekit.export.jobs import Evidence
from edgekit.export.quantize.coreml_weights import float_weights, quantized_weights
from edgekit.export.quantize.evidence import largest_evidence
from edgekit.export.quantize.mixture import Mixture
from edgekit.export.to_coreml import make_reproducible
from edgekit.mil.package import MANIFEST, package_paths

#: constants of no more elements stay float: a palette or scales would weigh as much
MINIMUM_ELEMENTS = 512
_IOS18 = 9  # the first specification with weights in blocks
_ROUNDS = 50
_BINS = 1024


def compress(source: Path, output: Path, asked: Mixture, calibration: Path | None) -> Evidence | None:
    """Write the float32 package `source` to `output` as `asked`; `calibration` is not needed for weights.

    Raises ExportError where a scheme did not take on its weights.
    """
    if not (source / MANIFEST).exists():
        return _compress_folder(source, output, asked, calibration)
    floats = float_weights(source)
    large = {name: values for name, values in floats.items() if values.size > MINIMUM_ELEMENTS and values.ndim > 1}
    wanted = dict.fromkeys(large, asked.scheme) if asked.schemes is None else asked.select_constants(large)
    model = ct.models.MLModel(str(source), skip_model_load=True)
    with quiet_converter():
        for scheme in asked.used:
            names = None if asked.schemes is None else [name for name in wanted if wanted[name] == scheme]
            if names != []:
                model = _compress(model, scheme, names)
    model.user_defined_metadata[SCHEME] = asked.scheme
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "model.mlpackage"
        model.save(str(package))
        make_reproducible(package)
        shutil.copytree(package, output, copy_function=shutil.copyfile)
    return asked.check(floats, quantized_weights(output, floats), wanted)


def _compress_folder(source: Path, output: Path, asked: Mixture, calibration: Path | None) -> Evidence | None:
    """Each package of a folder by itself; what the scheme took on is told of the one with most weights."""
    output.mkdir()
    found = [compress(package, output / package.name, asked, calibration) for package in package_paths(source).values()]
    return largest_evidence(found)


def _compress(model: Any, scheme: str, names: Sequence[str] | None) -> Any:
    """One scheme for the constants of these names (None: all)."""
    if scheme.startswith("palette"):
        return _palettize(model, int(scheme.removeprefix("palette")), names)
    if scheme == "int8-weight":
        return _quantize_linearly(model, names, dtype="int8", granularity="per_channel")
    # int4 in blocks of 32, then by channel what coremltools left: it skips rows of another width
    model._spec.specificationVersion = _IOS18  # coremltools 9.0 has no other way to raise that of a finished model
    blocks = _quantize_linearly(model, names, dtype="int4", granularity="per_block", block_size=32)
    return _quantize_linearly(blocks, names, dtype="int4", granularity="per_channel")


def _quantize_linearly(model: Any, names: Sequence[str] | None, **options: Any) -> Any:
    config = optimize.OpLinearQuantizerConfig(mode="linear_symmetric", weight_threshold=MINIMUM_ELEMENTS, **options)
    return optimize.linear_quantize_weights(model, _for_constants(config, names))


def _palettize(model: Any, bits: int, names: Sequence[str] | None) -> Any:
    """coremltools' palettizer with our own choice of values: its k-means took 59 s for 8 bits of 0.68 M weights."""
    config = optimize.OpPalettizerConfig(
        mode="custom", lut_function=lambda weight: choose_palette(weight, bits), weight_threshold=MINIMUM_ELEMENTS
    )
    return optimize.palettize_weights(model, _for_constants(config, names))


def _for_constants(config: Any, names: Sequence[str] | None) -> Any:
    if names is None:
        return optimize.OptimizationConfig(global_config=config)
    return optimize.OptimizationConfig(op_name_configs=dict.fromkeys(names, config))


def choose_palette(weight: NDArray[Any], bits: int) -> tuple[list[float], list[int]]:
    """Lloyd's k-means of one dimension: 2**bits values, and the index of the nearest for each weight, in order.

    Starts with values as dense as the cube root of the weights' own density, which is best for many values (Panter and
    Dite, 1951), and goes on until nothing moves (50 rounds at most); on sorted weights a round is a few sums, and the
    result is the same every time.
    """
    flat = weight.ravel().astype(np.float64)
    ordered = np.sort(flat)
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    counts, edges = np.histogram(ordered, bins=_BINS)
    mass = np.concatenate([[0.0], np.cumsum(np.cbrt(counts))])
    values = np.unique(np.interp((np.arange(2**bits) + 0.5) / 2**bits * mass[-1], mass, edges))
    for _ in range(_ROUNDS):
        ends = np.concatenate([[0], np.searchsorted(ordered, (values[1:] + values[:-1]) / 2), [len(ordered)]])
        counts = np.diff(ends)
        means = np.where(counts > 0, np.diff(sums[ends]) / np.maximum(counts, 1), values)
        if np.allclose(means, values, rtol=0, atol=1e-9):
            break
        values = np.sort(means)
    indices = np.searchsorted((values[1:] + values[:-1]) / 2, flat)
    table = np.concatenate([values, np.full(2**bits - len(values), values[-1])])
    return table.tolist(), indices.tolist()

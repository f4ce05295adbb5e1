"""Core ML without a Mac: models of Hugging Face, converted, compressed and evaluated on Linux, beside PyTorch.

python benchmarks/coreml_zoo.py            all rows, into the README (some ten minutes)
python benchmarks/coreml_zoo.py --check    one row again, compared with the saved one (what CI runs)
python benchmarks/coreml_zoo.py bert vit   these models, printed only

Models are small, of random weights, built from transformers' own classes. What speed and memory the evaluator needs
for a BERT-base of full size stands below the table.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tables
import zoo_models
from numpy.typing import NDArray

from edgekit.extras import require
from edgekit.mil.evaluator import load_evaluator, operation_kinds
from edgekit.report.markdown import markdown_table

COMMAND = "python benchmarks/coreml_zoo.py"
FORMS = ("none", "fp16", "int8", "int4-block", "palette4", "palette6", "palette8", "sparse")
HEADERS = ["model", "operations (kinds)", *FORMS]
CHECKED = "bert"
SPARSITY = 0.1
SMALLEST = 512  # elements; smaller constants stay as they are


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """What a row must keep: |Δ| as a share of max(1, max |PyTorch|), and the cosine with PyTorch's output."""

    relative: float
    cosine: float


#: float32 and float16 as for every target (edgekit/export/schemes.py); compressed weights are another model, which
#: random weights can't forgive: the cosine says that it is close to the first, `UNPACKED` that it is evaluated right
TOLERANCES = {
    "none": Tolerance(relative=1e-5, cosine=0.999999),
    "fp16": Tolerance(relative=2e-2, cosine=0.9999),
    "int8": Tolerance(relative=0.1, cosine=0.999),
    "int4-block": Tolerance(relative=1.0, cosine=0.9),
    "palette4": Tolerance(relative=1.0, cosine=0.9),
    "palette6": Tolerance(relative=0.3, cosine=0.99),
    "palette8": Tolerance(relative=0.15, cosine=0.999),
    "sparse": Tolerance(relative=0.3, cosine=0.99),
}
#: |Δ| between compressed weights and the same ones unpacked by coremltools, both evaluated in float32
UNPACKED = 1e-5


def main() -> None:
    """Measure, save and print; exit with 1 where a row misses its tolerance."""
    if "--check" in sys.argv:
        check_one_row()
        return
    chosen = sys.argv[1:] or list(zoo_models.MODELS)
    rows = []
    for name in chosen:
        # states are float16 whatever the rest is: such a model is no float32 one
        rows += [measure(name, form) for form in FORMS if form == "fp16" or not zoo_models.MODELS[name].has_states]
        print(" | ".join(as_cells(name, rows)), flush=True)
    if not sys.argv[1:]:
        full_size = measure_full_size()
        print(full_size)
        tables.save_result("coreml_zoo", COMMAND, {"models": rows, "full_size": full_size})
        table = markdown_table(HEADERS, [as_cells(name, rows) for name in chosen])
        tables.put_in_readme("coreml_zoo", table, note(full_size))
    failed = [f"{row['model']} {row['form']}: {row['problem']}" for row in rows if row["problem"]]
    if failed:
        raise SystemExit("\n".join(failed))


def measure(name: str, form: str) -> dict[str, Any]:
    """Convert a model, compress its weights, evaluate it on Linux, and compare it with PyTorch."""
    model = zoo_models.build(name)
    reference = model.reference()
    with tempfile.TemporaryDirectory() as folder:
        package = make_package(model, form, Path(folder))
        evaluator = load_evaluator(package)
        produced = model.evaluated(evaluator)
        unpacked = None if form in ("none", "fp16") else against_unpacked(model, package, Path(folder))
        operations = Counter(operation_kinds(evaluator))
    row: dict[str, Any] = {
        "model": name,
        "form": form,
        "operations": sum(operations.values()),
        "kinds": dict(sorted(operations.items())),
        "max_abs_difference": float(np.max(np.abs(produced - reference))),
        "max_abs_reference": float(np.max(np.abs(reference))),
        "cosine": cosine(produced, reference),
        "against_unpacked": unpacked,
    }
    return row | {"problem": problem(row)}


def make_package(model: zoo_models.Model, form: str, folder: Path) -> Path:
    """The model as a package in `folder`, its weights compressed in this form."""
    converted = model.convert("fp16" if form == "fp16" else "fp32")
    plain, made = folder / "plain.mlpackage", folder / "made.mlpackage"
    with quietly():
        converted.save(str(plain))
        if form in ("none", "fp16"):
            return plain
        compress(plain, form).save(str(made))
    return made


def compress(package: Path, form: str) -> Any:
    """A package with compressed weights, by coremltools.optimize; palettes are chosen as edgekit chooses them."""
    coremltools = require("coremltools", "compressing weights")
    optimize = coremltools.optimize.coreml
    model = coremltools.models.MLModel(str(package), skip_model_load=True)
    if form == "int8":
        config = optimize.OpLinearQuantizerConfig(mode="linear_symmetric", weight_threshold=SMALLEST)
        apply = optimize.linear_quantize_weights
    elif form == "int4-block":
        model._spec.specificationVersion = 9  # iOS 18; coremltools 9.0 has no other way to raise that of a model
        config = optimize.OpLinearQuantizerConfig(
            mode="linear_symmetric", dtype="int4", granularity="per_block", block_size=32, weight_threshold=SMALLEST
        )
        apply = optimize.linear_quantize_weights
    elif form == "sparse":
        config = optimize.OpMagnitudePrunerConfig(target_sparsity=SPARSITY, weight_threshold=SMALLEST)
        apply = optimize.prune_weights
    else:
        from edgekit.export.quantize.for_coreml import choose_palette

        bits = int(form.removeprefix("palette"))
        config = optimize.OpPalettizerConfig(
            mode="custom", lut_function=lambda weight: choose_palette(weight, bits), weight_threshold=SMALLEST
        )
        apply = optimize.palettize_weights
    masks = dict.fromkeys(mask_names(package))
    return apply(model, optimize.OptimizationConfig(global_config=config, op_name_configs=masks))


def mask_names(package: Path) -> list[str]:
    """Constants that are no weights: masks of T5's decoder, with float32's lowest value in them."""
    constants = load_evaluator(package).functions["main"].block.constants
    return [name for name, value in constants.items() if value.dtype == np.float32 and np.any(np.abs(value) > 1e30)]


def against_unpacked(model: zoo_models.Model, package: Path, folder: Path) -> float:
    """The largest difference to the same weights unpacked by coremltools, relative to max(1, max |output|)."""
    coremltools = require("coremltools", "unpacking weights")
    with quietly():
        source = coremltools.models.MLModel(str(package), skip_model_load=True)
        coremltools.optimize.coreml.decompress_weights(source).save(str(folder / "unpacked.mlpackage"))
    both = [
        model.evaluated(load_evaluator(path, precision="fp32")) for path in (package, folder / "unpacked.mlpackage")
    ]
    return float(np.max(np.abs(both[0] - both[1])) / max(1.0, float(np.max(np.abs(both[1])))))


@contextlib.contextmanager
def quietly() -> Any:
    """Without coremltools' progress bars."""
    from edgekit.export.coreml_workarounds import quiet_converter

    with quiet_converter():
        yield


def cosine(one: NDArray[Any], other: NDArray[Any]) -> float:
    """The cosine of the angle between two arrays of numbers."""
    a, b = one.astype(np.float64).ravel(), other.astype(np.float64).ravel()
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def problem(row: dict[str, Any]) -> str:
    """What a row misses; "" where it is within its tolerances."""
    tolerance = TOLERANCES[row["form"]]
    allowed = tolerance.relative * max(1.0, row["max_abs_reference"])
    if not row["max_abs_difference"] <= allowed:
        return f"|Δ| {row['max_abs_difference']:.1e} is over {allowed:.1e}"
    if not row["cosine"] >= tolerance.cosine:
        return f"the cosine {row['cosine']:.6f} is under {tolerance.cosine}"
    if row["against_unpacked"] is not None and not row["against_unpacked"] <= UNPACKED:
        return f"{row['against_unpacked']:.1e} from the same weights unpacked by coremltools"
    return ""


def as_cells(name: str, rows: list[dict[str, Any]]) -> list[str]:
    """A model's rows as one line of the README: |Δ| and cosine of each form."""
    mine = {row["form"]: row for row in rows if row["model"] == name}
    plain = next(iter(mine.values()))
    cells = [
        f"{mine[form]['max_abs_difference']:.1e}, {cosine_text(mine[form]['cosine'])}" if form in mine else "–"
        for form in FORMS
    ]
    return [zoo_models.MODELS[name].title, f"{plain['operations']} ({len(plain['kinds'])})", *cells]


def cosine_text(value: float) -> str:
    """A cosine with as many digits as tell it from 1."""
    return "1.000000" if value > 0.9999995 else f"{value:.6f}" if value > 0.999 else f"{value:.4f}"


def measure_full_size() -> dict[str, Any]:
    """Seconds and memory of BERT-base at 128 tokens, each precision in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        results = {}
        for precision in ("fp32", "fp16"):
            package = Path(folder) / f"{precision}.mlpackage"
            model = zoo_models.build_full_size()
            with quietly():
                model.convert(precision).save(str(package))
            np.savez(Path(folder) / "inputs.npz", **model.inputs_for_packages())
            code = Path(__file__).with_name("coreml_zoo_memory.py")
            argv = [sys.executable, "-P", code, package, Path(folder) / "inputs.npz"]
            environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}  # as proofs run
            run = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True, cwd=tables.ROOT, env=environment)
            results[precision] = json.loads(run.stdout.splitlines()[-1])
        return results


def note(full_size: dict[str, Any]) -> str:
    """What the README says below the table."""
    sizes = "; ".join(
        f"{precision}: {result['run_s']:.1f} s, {result['peak_bytes'] / result['weights_bytes']:.2f} times the size of "
        f"its weights ({result['weights_bytes'] / 1e6:.0f} MB) in memory"
        for precision, result in full_size.items()
    )
    return (
        f"Made by `{COMMAND}`: small models of random weights, max |Δ| and cosine of the output against PyTorch, every "
        "value rounded to the type that the program declares. All are within their tolerances, |Δ| in units of "
        "max(1, max |PyTorch|) and cosine: "
        + ", ".join(f"{form} {t.relative:g} and {t.cosine:g}" for form, t in TOLERANCES.items())
        + f"; compressed weights are also within {UNPACKED:g} of the same ones unpacked by coremltools. sparse: the "
        f"smallest {100 * SPARSITY:.0f} % of each weight left out. BERT-base of full size at 128 tokens, on one "
        f"thread: {sizes}."
    )


def check_one_row() -> None:
    """Measure one model in float32 again and compare with the saved row."""
    saved = next(
        row
        for row in tables.load_result("coreml_zoo")["rows"]["models"]
        if (row["model"], row["form"]) == (CHECKED, "none")
    )
    now = measure(CHECKED, "none")
    if now["problem"] or now["kinds"] != saved["kinds"]:
        raise SystemExit(f"a saved row of benchmarks/results/coreml_zoo.json no longer holds: {now} was {saved}")
    print(f"{CHECKED}, float32: as saved, |Δ| {now['max_abs_difference']:.1e}, cosine {now['cosine']:.6f}")


if __name__ == "__main__":
    main()

"""Every offered cell of scheme × target, on the whole test set: size, accuracy, labels changed.

python benchmarks/schemes.py            all rows, into the README
python benchmarks/schemes.py --check    one row again, compared with the saved one (what CI runs)
python benchmarks/schemes.py CHECKPOINT the table of another checkpoint, printed only
python benchmarks/schemes.py --target tflite,onnx    these targets' rows again, the others' as saved
python benchmarks/schemes.py --report report.html    all rows, into the README, then the report of these same files

`mixed` is the smallest recipe that `edgekit search` finds within 0.3 points on the validation part, exported and
measured as the others: on the test part, which the search never saw.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tables

from edgekit.bundle import find_bundles
from edgekit.checkpoint import embedded_checkpoint_path
from edgekit.export.schemes import SCHEMES
from edgekit.export.targets import ALL
from edgekit.report.markdown import markdown_table
from edgekit.report.numbers import human_size

COMMAND = "python benchmarks/schemes.py"
HEADERS = [
    "target",
    "scheme",
    "size",
    "of fp32",
    "accuracy",
    "change",
    "labels changed",
    "max |Δ| of the logits",
    "needs",
]
CHECKED = ("tflite", "int8")
MAX_DROP = "0.3"
#: targets with a row of a mixed recipe
MIXED = ("tflite", "onnx")


def main() -> None:
    """Measure, save and print; exit with 1 where a file is not within its tolerance or a row is not as saved."""
    if "--check" in sys.argv:
        check_one_row()
        return
    options = arguments()
    targets = tuple(options.target.split(",")) if options.target else ALL
    saved = [] if targets == ALL else tables.load_result("schemes")["rows"]
    checkpoint = options.checkpoint or embedded_checkpoint_path()
    rows = []
    for target in ALL:
        rows += measure(checkpoint, target) if target in targets else [row for row in saved if row["target"] == target]
    table = markdown_table(HEADERS, [as_cells(row) for row in rows])
    if options.checkpoint:
        print(table)
    else:
        tables.save_result("schemes", COMMAND, rows)
        note = (
            f"Made by `{COMMAND}`: each file run on the whole held-out set. Core ML files were evaluated on Linux by "
            f"edgekit, not on Apple hardware. `mixed`: found by `edgekit search --max-drop {MAX_DROP}` on the "
            "validation part. "
        )
        note += "; ".join(in_words(row) for row in rows if "recipe" in row) + "."
        tables.put_in_readme("schemes", table, note)
    if options.report:
        report(checkpoint, targets, options.report)
    if not all(row["ok"] for row in rows):
        raise SystemExit("a file was not made, or is not within its scheme's tolerance")


def arguments() -> argparse.Namespace:
    """The command line, but for --check."""
    parser = argparse.ArgumentParser(description="Every offered cell of scheme × target, on the whole test set.")
    parser.add_argument("checkpoint", nargs="?", type=Path)
    parser.add_argument("--target", help="these targets only, separated by commas")
    parser.add_argument("--report", type=Path, help="also the quantization report of the files: .html, .md or .json")
    options = parser.parse_args()
    if options.checkpoint and options.target:
        parser.error("--target is for the embedded model, whose other rows are saved")
    return options


def report(checkpoint: Path, targets: Sequence[str], output: Path) -> None:
    """The report of every file that was measured, and of the checkpoint by module."""
    bundles = [path for target in targets for path in find_bundles(folder_of(checkpoint, target))]
    title = f"{checkpoint.name}: every target and scheme"
    command = [sys.executable, "-P", "-m", "edgekit", "report", checkpoint, *bundles, "--title", title, "-o", output]
    subprocess.run([*map(str, command), "--only", "quantization"], check=True)


def folder_of(checkpoint: Path, target: str) -> Path:
    """Where the bundles of a target are made."""
    return tables.WORK / f"schemes-{checkpoint.name}-{target}"


def measure(checkpoint: Path, target: str, *schemes: str) -> list[dict[str, Any]]:
    """Export a checkpoint to one target in all schemes that it offers (or those named); a row for each."""
    offered = schemes or tuple(scheme for scheme, targets in SCHEMES.items() if target in targets)
    if not schemes and target in MIXED:
        offered += (search(checkpoint, target),)
    options = ("--target", target, "--quantize", ",".join(offered), "--eval-samples", "all")
    rows = tables.export_rows(folder_of(checkpoint, target).name, checkpoint, *options)
    whole = next((row["size_bytes"] for row in rows if row["scheme"] == "none"), None)
    return [row | {"ratio": row["size_bytes"] / whole if whole and "size_bytes" in row else None} for row in rows]


def search(checkpoint: Path, target: str) -> str:
    """Find the smallest recipe within the budget; its file, from where benchmarks run."""
    path = tables.WORK / f"search-{checkpoint.name}-{target}" / "mixed.toml"
    tables.edgekit("search", checkpoint, "--target", target, "--max-drop", MAX_DROP, "-o", path, "--force")
    return str(path)


def as_cells(row: dict[str, Any]) -> list[str]:
    """A row as the README shows it."""
    cells = [row["target"], row["scheme"]]
    if row["error"]:
        return [*cells, "–", "–", "–", "–", "–", f"failed: {row['error']}", "–"]
    cells += [human_size(row["size_bytes"]), f"{row['ratio']:.3f}" if row["ratio"] else "–"]
    needs = ", ".join(f"{name} {short(value)}" for name, value in row["requires"].items())
    parity, accuracy = row["parity"], row["accuracy"]
    change = 100 * (accuracy["accuracy"] - accuracy["reference_accuracy"])
    changed = f"{parity['labels_changed']} of {parity['steps']}"
    difference = f"{parity['max_abs_difference']:.1e}"
    return [*cells, f"{100 * accuracy['accuracy']:.2f} %", f"{change:+.2f}", changed, difference, needs]


def in_words(row: dict[str, Any]) -> str:
    """A recipe in a sentence."""
    rules = ", ".join(f"`{rule['modules']}` {rule['scheme']}" for rule in row["recipe"]["rules"])
    return f"{row['target']}: {row['recipe']['scheme']}, but {rules or 'nothing else'}"


def short(requirement: str) -> str:
    """A requirement without the runtime's own words: they are in the manifest."""
    return requirement.split(": ")[0] if requirement.startswith("newer") else requirement


def check_one_row() -> None:
    """Export the embedded model to TFLite int8 again and compare with the saved row."""
    saved = next(row for row in tables.load_result("schemes")["rows"] if (row["target"], row["scheme"]) == CHECKED)
    now = measure(embedded_checkpoint_path(), *CHECKED)[0]
    tables.check_same_row("schemes", saved, now)
    print("tflite int8: as saved,", " | ".join(as_cells(now)))


if __name__ == "__main__":
    main()

"""Every offered cell of scheme × target, on the whole test set: size, accuracy, labels changed.

python benchmarks/schemes.py            all rows, into the README
python benchmarks/schemes.py --check    one row again, compared with the saved one (what CI runs)
python benchmarks/schemes.py CHECKPOINT the table of another checkpoint, printed only
"""

import sys
from pathlib import Path
from typing import Any

import tables

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


def main() -> None:
    """Measure, save and print; exit with 1 where a file is not within its tolerance or a row is not as saved."""
    if "--check" in sys.argv:
        check_one_row()
        return
    paths = [Path(argument) for argument in sys.argv[1:]]
    rows = [row for target in ALL for row in measure(paths[0] if paths else embedded_checkpoint_path(), target)]
    table = markdown_table(HEADERS, [as_cells(row) for row in rows])
    if paths:
        print(table)
    else:
        tables.save_result("schemes", COMMAND, rows)
        note = (
            f"Made by `{COMMAND}`: each file run on the whole held-out set. Core ML files were evaluated on Linux by "
        )
        note += "edgekit, not on Apple hardware."
        tables.put_in_readme("schemes", table, note)
    if not all(row["ok"] for row in rows):
        raise SystemExit("a file was not made, or is not within its scheme's tolerance")


def measure(checkpoint: Path, target: str, *schemes: str) -> list[dict[str, Any]]:
    """Export a checkpoint to one target in all schemes that it offers (or those named); a row for each."""
    offered = schemes or tuple(scheme for scheme, targets in SCHEMES.items() if target in targets)
    options = ("--target", target, "--quantize", ",".join(offered), "--eval-samples", "all")
    rows = tables.export_rows(f"schemes-{checkpoint.name}-{target}", checkpoint, *options)
    whole = next((row["size_bytes"] for row in rows if row["scheme"] == "none"), None)
    return [row | {"ratio": row["size_bytes"] / whole if whole and "size_bytes" in row else None} for row in rows]


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

"""The six routes, from a checkpoint of either framework: size, parity and accuracy on the whole test set.

python benchmarks/routes.py            all rows, into the README
python benchmarks/routes.py --check    one row again, compared with the saved one (what CI runs)
"""

import sys
from pathlib import Path
from typing import Any

import tables

from edgekit.checkpoint import embedded_checkpoint_path
from edgekit.report.markdown import markdown_table
from edgekit.report.numbers import human_size

COMMAND = "python benchmarks/routes.py"
ROUTES = ("--target", "all", "--via", "torch,tensorflow", "--quantize", "none,fp16", "--eval-samples", "all")
TF_TRAINING = ("--framework", "tensorflow", "--size", "nano", "--epochs", "3", "--seed", "0")


def main() -> None:
    """Measure, save and print; exit with 1 where a row differs from the saved one, or a file is not equal."""
    if "--check" in sys.argv:
        check_one_row()
        return
    rows = [row for path in (embedded_checkpoint_path(), tensorflow_checkpoint()) for row in measure(path, *ROUTES)]
    tables.save_result("routes", COMMAND, rows)
    headers = ["trained in", "target", "via", "scheme", "size", "max |Δ| of the logits", "labels changed", "accuracy"]
    note = f"Made by `{COMMAND}`: every file run on the whole held-out set of its checkpoint; accuracy of the source "
    note += "model in brackets. Core ML files were evaluated on Linux by edgekit, not on Apple hardware."
    tables.put_in_readme("routes", markdown_table(headers, [as_cells(row) for row in rows]), note)
    if not all(row["ok"] for row in rows):
        raise SystemExit(1)


def tensorflow_checkpoint() -> Path:
    """A checkpoint of the same task trained in TensorFlow, for the other half of the table."""
    path = tables.WORK / "language-id-tensorflow"
    tables.edgekit("train", *TF_TRAINING, "-o", path, "--force")
    return path


def measure(checkpoint: Path, *options: str) -> list[dict[str, Any]]:
    """Export a checkpoint with these options and return a row for each bundle."""
    return tables.export_rows(f"routes-{checkpoint.name}", checkpoint, *options)


def as_cells(row: dict[str, Any]) -> list[str]:
    """A row as the README shows it."""
    trained_in = "TensorFlow" if row.get("checkpoint", "").endswith("tensorflow") else "PyTorch"
    cells = [trained_in, row["target"], row["via"], row["scheme"]]
    if row["error"]:
        return [*cells, "–", f"failed: {row['error']}", "–", "–"]
    parity, accuracy = row["parity"], row["accuracy"]
    size = human_size(row["size_bytes"])
    score = f"{100 * accuracy['accuracy']:.2f} % ({100 * accuracy['reference_accuracy']:.2f} %)"
    changed = f"{parity['labels_changed']} of {parity['steps']}"
    return [*cells, size, f"{parity['max_abs_difference']:.1e}", changed, score]


def check_one_row() -> None:
    """Export the embedded model to TFLite float32 again and compare with the saved row."""
    saved = next(
        row
        for row in tables.load_result("routes")["rows"]
        if (row["target"], row["via"], row["scheme"]) == ("tflite", "torch", "none")
        and row["checkpoint"] == "language-id"
    )
    now = measure(embedded_checkpoint_path(), "--target", "tflite", "--eval-samples", "all")[0]
    tables.check_same_row("routes", saved, now)
    print("tflite via torch, float32: as saved,", " | ".join(as_cells(now)))


if __name__ == "__main__":
    main()

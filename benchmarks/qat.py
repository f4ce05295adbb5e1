"""What quantization-aware training wins back of what int4-weight loses, on a model made to lose.

python benchmarks/qat.py            all rows, into the README: about three minutes on one core
python benchmarks/qat.py --check    the small row again, compared with the saved one (what CI runs)

The model has few dimensions and a factorised embedding, and its channels are stretched: pairs of weights that follow
one another are multiplied and divided by powers of two, channel by channel. In float32 nothing changes, to the last
bit. Integers share a scale over a row of inputs, and so lose the small channels beside the large ones.
"""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tables

from edgekit.checkpoint import load_checkpoint, save_checkpoint
from edgekit.model.weights import Weights
from edgekit.report.markdown import markdown_table

COMMAND = "python benchmarks/qat.py"
HEADERS = [
    "--qat in",
    "languages",
    "float32",
    "int4-weight",
    "int4-weight after --qat",
    "of the loss won back",
]
ROWS = (
    ("PyTorch", "torch", "de,fr,it,es,pt,nl,sv,da,nb,ca"),
    ("TensorFlow", "tensorflow", "de,fr,it,es,pt,nl,sv,da,nb,ca"),
)
SMALL = ("PyTorch", "torch", "de,fr,it,sv,da,nb")
SHAPE = {"hidden-size": 16, "ffn-size": 32, "num-heads": 2, "num-layers": 2, "embedding-size": 4, "vocab-size": 1024}
TRAINING = {"activation": "relu", "max-length": 32, "dropout": 0, "test-fraction": 0.2, "patience": 0}
EPOCHS, LEARNING_RATE = 12, 0.01
QAT_EPOCHS, QAT_LEARNING_RATE = 6, 0.004
STRETCH = 2.0  # deviation of the exponents of 2
LEAST = 0.5  # of the loss, to be won back


def main() -> None:
    """Measure, save and print; exit with 1 where less than half is won back."""
    if "--check" in sys.argv:
        check_small_row()
        return
    rows = [measure(*row) for row in (*ROWS, SMALL)]
    tables.save_result("qat", COMMAND, rows)
    note = f"Made by `{COMMAND}`: accuracy of the exported TFLite files on all held-out examples of each row."
    tables.put_in_readme("qat", markdown_table(HEADERS, [as_cells(row) for row in rows]), note)
    if not all(row["won_back"] >= LEAST for row in rows):
        raise SystemExit("less than half of the loss was won back")


def measure(name: str, framework: str, languages: str) -> dict[str, Any]:
    """Train, stretch, export, train on with rounded weights, export again."""
    work = tables.WORK / f"qat-{framework}-{languages.count(',') + 1}"
    options = [part for key, value in (SHAPE | TRAINING).items() for part in (f"--{key}", str(value))]
    rates = ("--epochs", str(EPOCHS), "--learning-rate", str(LEARNING_RATE))
    tables.edgekit("train", "--languages", languages, *options, *rates, "-o", work / "plain", "--force")
    plain = load_checkpoint(work / "plain")
    stretched = stretch(plain.weights, plain.config.num_heads)
    save_checkpoint(dataclasses.replace(plain, weights=stretched), work / "stretched", force=True)
    training = ("--epochs", str(QAT_EPOCHS), "--learning-rate", str(QAT_LEARNING_RATE), "--patience", "0")
    start = ("--from", work / "stretched", "--framework", framework)
    tables.edgekit("train", *start, *training, "--qat", "int4-weight", "-o", work / "trained", "--force")
    before, after = accuracies(work / "stretched"), accuracies(work / "trained")
    return {
        "name": name,
        "framework": framework,
        "languages": languages.split(","),
        "examples": before["examples"],
        "float32": before["none"],
        "int4-weight": before["int4-weight"],
        "after": after["int4-weight"],
        "won_back": (after["int4-weight"] - before["int4-weight"]) / (before["none"] - before["int4-weight"]),
    }


def accuracies(checkpoint: Path) -> dict[str, Any]:
    """The accuracy of the exported file of each scheme, on all held-out examples."""
    options = ("--target", "tflite", "--quantize", "none,int4-weight", "--eval-samples", "all")
    rows = tables.export_rows(f"qat-export-{checkpoint.name}", checkpoint, *options)
    found = {row["scheme"]: row["accuracy"]["accuracy"] for row in rows}
    return found | {"examples": rows[0]["parity"]["steps"]}


def stretch(weights: Weights, num_heads: int) -> Weights:
    """Return weights of the same function, with channels of very different sizes."""
    generator = np.random.default_rng(0)
    made = {name: tensor.copy() for name, tensor in weights.items()}

    def pair(first: str, second: str) -> None:
        """Multiply what comes out of a channel of the first by what goes into that of the second is divided by."""
        size = made[f"{second}.weight"].shape[1]
        factor = np.exp2(np.rint(generator.normal(0, STRETCH, size))).astype(np.float32)
        if first == "embed.tokens":
            made["embed.tokens.weight"] *= factor
        else:
            made[f"{first}.weight"] *= factor[:, None]
            made[f"{first}.bias"] *= factor
        made[f"{second}.weight"] /= factor

    pair("embed.tokens", "embed.project")
    for block in sorted({name.split(".attention.")[0] for name in weights if ".attention." in name}):
        pair(f"{block}.attention.value", f"{block}.attention.output")
        pair(f"{block}.ffn.up", f"{block}.ffn.down")
    return made


def as_cells(row: dict[str, Any]) -> list[str]:
    """A row as the README shows it."""
    numbers = [f"{100 * row[name]:.1f} %" for name in ("float32", "int4-weight", "after")]
    return [
        row["name"],
        str(len(row["languages"])),
        *numbers,
        f"{100 * row['won_back']:.0f} %",
    ]


def check_small_row() -> None:
    """Measure the small row again and compare with the saved one."""
    saved = next(row for row in tables.load_result("qat")["rows"] if row["languages"] == SMALL[2].split(","))
    now = measure(*SMALL)
    different = [n for n in ("float32", "int4-weight", "after") if abs(saved[n] - now[n]) > 0.05]
    if now["won_back"] < LEAST or different or saved["examples"] != now["examples"]:
        raise SystemExit(f"a saved row of benchmarks/results/qat.json no longer holds: {saved} is now {now}")
    print("int4-weight:", " | ".join(as_cells(now)))


if __name__ == "__main__":
    main()

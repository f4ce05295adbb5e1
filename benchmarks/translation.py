"""A translator of interface strings, trained by the README's commands, in every file that it becomes.

python benchmarks/translation.py            all rows, into the README: some fifteen minutes
python benchmarks/translation.py --check    a short training's row again, compared with the saved one (what CI runs)
python benchmarks/translation.py --short    that row alone, saved; the others stay as they were measured

Every file writes what it writes, greedily, to held-out strings: how much of it is the source model's own text, token
for token, and how good the translations are, by chrF.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tables

from edgekit.bundle import TextScores
from edgekit.report.markdown import markdown_table
from edgekit.report.numbers import human_size

COMMAND = "python benchmarks/translation.py"
TRAIN = ("--task", "translate", "--target-language", "de", "--vocab-size", "1000", "--batch-size", "32")
LONG = ("--epochs", "150", "--patience", "30", "--dropout", "0.3")
SHORT = ("--epochs", "8")  # of the row that CI makes again
SCHEMES = {
    "tflite": ("none", "fp16", "int8-dynamic", "int8-weight", "int4-weight"),
    "onnx": ("none", "fp16", "int8-dynamic", "int8-weight", "int4-weight"),
    "coreml": ("none", "fp16", "int8-weight", "int4-weight"),
}
HEADERS = ["target", "scheme", "size", "texts equal", "tokens equal", "chrF", "placeholders kept"]
FLOAT = "none"
CHRF_TOLERANCE = 0.5  # of a training repeated on another processor


def main() -> None:
    """Measure, save and print; exit with 1 where a file failed, or a float file wrote another token."""
    if "--check" in sys.argv:
        check_short_row()
        return
    short = export(train("short", SHORT), "tflite", (FLOAT,))[0]
    if "--short" in sys.argv:
        tables.save_result("translation", COMMAND, tables.load_result("translation")["rows"] | {"short": short})
        return
    checkpoint = train("long", LONG)
    rows = [row for target, schemes in SCHEMES.items() for row in export(checkpoint, target, schemes)]
    tables.save_result("translation", COMMAND, {"short": short, "rows": rows})
    put_table(rows)
    problems = [f"{row['target']} {row['scheme']}: {found}" for row in (short, *rows) if (found := problem(row))]
    if problems:
        raise SystemExit("\n".join(problems))


def train(name: str, options: Sequence[str]) -> Path:
    """Train English to German into a folder of this name."""
    checkpoint = tables.WORK / f"translation-{name}"
    tables.edgekit("train", *TRAIN, *options, "-o", checkpoint, "--force")
    return checkpoint


def export(checkpoint: Path, target: str, schemes: Sequence[str]) -> list[dict[str, Any]]:
    """Export to a target in these schemes, source texts padded to the longest; a row for each.

    Each is tried on 200 strings, all held-out ones among them.
    """
    options = ("--target", target, "--quantize", ",".join(schemes), "--eval-samples", "200", "--force")
    output = tables.WORK / f"{checkpoint.name}-{target}"
    outcomes = tables.edgekit("export", checkpoint, *tables.one_length(checkpoint), *options, "-o", output)
    return [row_of(outcome) for outcome in outcomes]


def row_of(outcome: dict[str, Any]) -> dict[str, Any]:
    """What the table says of one bundle."""
    row = {name: outcome[name] for name in ("target", "scheme", "ok", "error")}
    row["error"] = row["error"] and row["error"].split(" (log:")[0]
    manifest = outcome["manifest"]
    if manifest is None:
        return row
    files = [record for name, record in manifest["files"].items() if name.split("/")[0] == manifest["model"]]
    size = {"size_bytes": sum(record["size_bytes"] for record in files)}
    return row | size | {"parity": manifest["parity"], "written": manifest["written"]}


def problem(row: dict[str, Any]) -> str:
    """What is wrong with a row; "" where nothing is."""
    if not row["ok"]:
        return str(row["error"] or row["parity"]["note"] or "not within its tolerance")
    written = row["written"]
    other = written["tokens"] - written["tokens_equal"]
    return f"{other} tokens are not the source model's" if row["scheme"] == FLOAT and other else ""


def put_table(rows: list[dict[str, Any]]) -> None:
    """The table and its note, into the README."""
    written = next(row["written"] for row in rows if "written" in row)
    reference = TextScores.model_validate(written["reference_scores"])
    trained = " ".join(("edgekit train", *TRAIN, *LONG))
    kept, those = share(reference.placeholder_accuracy), reference.with_placeholders
    note = (
        f"Made by `{COMMAND}`: the model of `{trained}`, whose own chrF is {reference.chrf:.1f} on "
        f"{written['samples']} held-out strings (it has learned from under 1,000), and which keeps the placeholders of "
        f"{kept} of the {those} that have any. Each file, of one length of source texts, translated "
        f"{written['prompts']} strings greedily; tokens are the source model's where they stand at the same place of "
        "the same text. Core ML files were evaluated on Linux by edgekit, not on Apple hardware."
    )
    tables.put_in_readme("translation", markdown_table(HEADERS, [as_cells(row) for row in rows]), note)


def as_cells(row: dict[str, Any]) -> list[str]:
    """A row as the README shows it."""
    if row.get("written") is None:
        return [row["target"], row["scheme"], "–", "–", "–", "–", f"failed: {problem(row)}"]
    written = row["written"]
    scores = TextScores.model_validate(written["scores"])
    return [
        row["target"],
        row["scheme"] if row["ok"] else f"{row['scheme']} **failed**",
        human_size(row["size_bytes"]),
        f"{written['texts_equal']} of {written['prompts']}",
        f"{100 * written['tokens_equal'] / written['tokens']:.1f} %",
        f"{scores.chrf:.1f}",
        share(scores.placeholder_accuracy),
    ]


def share(value: float | None) -> str:
    """A share in per cent."""
    return "–" if value is None else f"{100 * value:.0f} %"


def check_short_row() -> None:
    """Train shortly and export to TFLite again, and compare with the saved row."""
    saved = tables.load_result("translation")["rows"]["short"]
    now = export(train("short", SHORT), "tflite", (FLOAT,))[0]
    was, found = (row["written"]["scores"]["chrf"] for row in (saved, now))
    sizes = saved["size_bytes"], now["size_bytes"]
    differences = [f"size_bytes: {sizes[0]} is now {sizes[1]}"] if sizes[0] != sizes[1] else []
    differences += [f"chrF: {was} is now {found}"] if abs(was - found) > CHRF_TOLERANCE else []
    differences += [problem(now)] if problem(now) else []
    if differences:
        raise SystemExit(
            f"a saved row of benchmarks/results/translation.json no longer holds: {'; '.join(differences)}"
        )
    print(" | ".join(as_cells(now)))


if __name__ == "__main__":
    main()

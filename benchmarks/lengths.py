"""Texts padded to one length beside the lengths that `edgekit export` chooses: time, memory, and the same answers.

    python benchmarks/lengths.py            all rows, into the README
    python benchmarks/lengths.py --check    one row again, compared with the saved one (what CI runs)

The embedded model on its held-out texts, one thread: the file of one length (`--sequence-length 64`) and that which is
exported by default run in turns, each turn a fresh process of the runner over all texts, as `edgekit bench` does it.
"""

import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tables

from edgekit.bundle import Bundle, open_bundle
from edgekit.checkpoint import embedded_checkpoint_path
from edgekit.devices.local import LocalDevice
from edgekit.devices.measure import Candidate, measure_interleaved
from edgekit.measurement import Measurement, Settings
from edgekit.proof.golden import stack_outputs
from edgekit.proof.parity import OUTPUT
from edgekit.proof.replay import replay_steps
from edgekit.proof.runner_events import job_text
from edgekit.report.markdown import markdown_table
from edgekit.statistics import ratio_of_medians

COMMAND = "python benchmarks/lengths.py"
MEMORY, MEMORY_RUNS = Path(__file__).parent / "lengths_memory.py", 5
TARGETS, SCHEMES = ("tflite", "onnx"), ("none", "int8-dynamic")
TEXTS, ROUNDS, RUNS_A_ROUND = 500, 8, 1000
HEADERS = [
    "target",
    "scheme",
    "lengths",
    "p50 padded",
    "p50",
    "times as fast (95 %)",
    "mean padded",
    "mean",
    "memory",
    "of one length's",
    "labels changed",
    "max |Δ|",
]
CHECKED = ("tflite", "int8-dynamic")
CHECK_ROUNDS = 3
#: of a saved ratio: on a machine that others use, and of fewer turns
CHECK_TIME, CHECK_MEMORY = 0.5, 0.15


def main() -> None:
    """Measure, save and print; exit with 1 where an answer changes, or the row that is checked is not as saved."""
    if "--check" in sys.argv:
        check_one_row()
        return
    bundles = export_bundles(",".join(TARGETS), ",".join(SCHEMES))
    rows = [measure(padded, chosen, ROUNDS) for padded, chosen in bundles]
    tables.save_result("lengths", COMMAND, rows)
    table = markdown_table(HEADERS, [as_cells(row) for row in rows])
    print(table)
    note = (
        f"Made by `{COMMAND}`: {TEXTS} held-out texts of the embedded model, one thread, {ROUNDS} turns of each file. "
        "Memory is the peak above the imported runtime once all texts have run; labels and |Δ| are beside the padded "
        "file's, of the logits. TFLite files of both kinds ran in the same runtime, LiteRT's CompiledModel."
    )
    tables.put_in_readme("lengths", table, note)
    if any(row["labels_changed"] for row in rows if row["scheme"] == "none"):
        raise SystemExit("an answer depends on the length that its text was padded to")


def export_bundles(targets: str, schemes: str) -> list[tuple[Bundle, Bundle]]:
    """For each target and scheme the file of one length, and the one exported by default."""
    checkpoint = embedded_checkpoint_path()
    options = ("--target", targets, "--quantize", schemes, "--eval-samples", str(TEXTS))
    made = []
    for name, lengths in (("one", tables.one_length(checkpoint)), ("chosen", ())):
        output = tables.WORK / "lengths" / name
        shutil.rmtree(output, ignore_errors=True)
        outcomes = tables.edgekit("export", checkpoint, *options, *lengths, "-o", output)
        made.append([open_bundle(Path(tables.ROOT, outcome["bundle"])) for outcome in outcomes])
    return list(zip(*made, strict=True))


def measure(padded: Bundle, chosen: Bundle, rounds: int) -> dict[str, Any]:
    """Run both in turns over all texts; a row."""
    settings = Settings(num_runs=rounds * RUNS_A_ROUND, min_secs=0, max_secs=600, cold_starts=0)
    runtime = chosen.manifest.runtime
    candidates = [Candidate(bundle=bundle, runtime=runtime) for bundle in (padded, chosen)]
    with LocalDevice() as device:
        one, several = measure_interleaved(device, candidates, settings=settings, rounds=rounds)
    ratio = ratio_of_medians(by_round(one), by_round(several))
    free = chosen.manifest.signatures[0].dynamic_length
    return {
        "target": chosen.manifest.target,
        "scheme": chosen.manifest.scheme,
        "runtime": runtime,
        "lengths": "any" if free else ", ".join(map(str, chosen.manifest.lengths)),
        "rounds": rounds,
        "p50_ms": [statistics.median(each.samples.latency_ms) for each in (one, several)],
        "mean_ms": [statistics.fmean(each.samples.latency_ms) for each in (one, several)],
        "ratio": ratio.ratio,
        "low": ratio.low,
        "high": ratio.high,
        "memory_bytes": [memory_of(bundle, runtime) for bundle in (padded, chosen)],
        "size_bytes": [bundle.model_size_bytes for bundle in (padded, chosen)],
    } | compare_answers(padded, chosen)


def by_round(measurement: Measurement) -> list[list[float]]:
    """The samples of each turn, in ms."""
    samples = measurement.samples
    turns: list[list[float]] = [[] for _ in range(max(samples.rounds) + 1)]
    for turn, value in zip(samples.rounds, samples.latency_ms, strict=True):
        turns[turn].append(value)
    return turns


def memory_of(bundle: Bundle, runtime: str) -> int:
    """Peak memory above that of the imported runtime, in bytes, once every text has run: the median of processes."""
    with tempfile.TemporaryDirectory() as folder:
        job = Path(folder) / "job.json"
        job.write_text(
            job_text(runtime=runtime, model=str(bundle.model_path), steps=str(bundle.golden_path), outputs="")
        )
        argv = [sys.executable, str(MEMORY), str(job)]
        runs = [subprocess.run(argv, capture_output=True, text=True, check=True) for _ in range(MEMORY_RUNS)]
    return int(statistics.median(int(run.stdout) for run in runs))


def compare_answers(padded: Bundle, chosen: Bundle) -> dict[str, Any]:
    """The logits of both files for the same texts, beside each other."""
    one, several = (
        stack_outputs(replay_steps(each.model_path, chosen.manifest.runtime, each.golden_path).produced.steps, OUTPUT)
        for each in (padded, chosen)
    )
    return {
        "texts": len(one),
        "labels_changed": int(np.count_nonzero(one.argmax(1) != several.argmax(1))),
        "max_abs_difference": float(np.max(np.abs(one - several))),
        "max_abs_logit": float(np.max(np.abs(one))),
    }


def as_cells(row: dict[str, Any]) -> list[str]:
    """A row as the README shows it."""
    p50, mean = ([f"{value:.3f} ms" for value in row[name]] for name in ("p50_ms", "mean_ms"))
    one, several = row["memory_bytes"]
    return [
        row["target"],
        row["scheme"],
        row["lengths"],
        *p50,
        f"{row['ratio']:.1f} ({row['low']:.1f} to {row['high']:.1f})",
        *mean,
        f"{several / 1e6:.1f} MB",
        f"{several / one:.2f}",
        f"{row['labels_changed']} of {row['texts']}",
        f"{row['max_abs_difference']:.1e}",
    ]


def check_one_row() -> None:
    """Measure one row again, with fewer turns, and compare with the saved one."""
    saved = next(row for row in tables.load_result("lengths")["rows"] if (row["target"], row["scheme"]) == CHECKED)
    now = measure(*export_bundles(*CHECKED)[0], CHECK_ROUNDS)
    memory, was = (row["memory_bytes"][1] / row["memory_bytes"][0] for row in (now, saved))
    problems = [
        f"{name}: {saved[name]} is now {now[name]}" for name in ("lengths", "size_bytes") if saved[name] != now[name]
    ]
    if now["ratio"] < CHECK_TIME * saved["ratio"]:
        problems.append(f"times as fast: {saved['ratio']:.2f} is now {now['ratio']:.2f}")
    if memory > was + CHECK_MEMORY:
        problems.append(f"memory over one length's: {was:.2f} is now {memory:.2f}")
    if now["labels_changed"] > saved["labels_changed"] + 2:  # another processor may round a tie the other way
        problems.append(f"labels changed: {saved['labels_changed']} is now {now['labels_changed']}")
    if problems:
        raise SystemExit(f"a saved row of benchmarks/results/lengths.json no longer holds: {'; '.join(problems)}")
    print(f"{' '.join(CHECKED)}: as saved,", " | ".join(as_cells(now)))


if __name__ == "__main__":
    main()

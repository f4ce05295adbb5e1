"""edgekit's latency beside that of the runtimes' own tools: same file, threads, inputs and machine, run in turns.

    python benchmarks/fidelity.py            all rows, into the README
    python benchmarks/fidelity.py --check    one row again, compared with the saved one (what CI runs)

Each turn is one fresh process of edgekit's runner, then one of the peer (fidelity_peers.py), both fed the tokens of the
same real text: litert-benchmark of the ai-edge-litert wheel, whose own random ids would lie outside the vocabulary, and
plain loops of the runtimes' own calls.
"""

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import tables

from edgekit.bundle import Bundle, open_bundle
from edgekit.checkpoint import embedded_checkpoint_path
from edgekit.devices.local import LocalDevice
from edgekit.devices.measure import measure_bundle
from edgekit.measurement import Settings
from edgekit.report.markdown import markdown_table
from edgekit.statistics import ratio_of_medians

COMMAND = "python benchmarks/fidelity.py"
PEERS = Path(__file__).parent / "fidelity_peers.py"
#: runtime → (target, the peer that it is held to)
ROWS = {
    "litert-compiled": ("tflite", "litert-benchmark"),
    "litert": ("tflite", "plain loop of Interpreter.invoke"),
    "onnxruntime": ("onnx", "plain loop of InferenceSession.run"),
}
HEADERS = ["runtime", "beside", "threads", "edgekit p50", "peer p50", "ratio", "95 % interval"]
TURNS, RUNS, THREADS = 30, 1000, (1, 2)
LIMIT = 0.03
CHECKED = ("onnxruntime", 1)
CHECK_TURNS = 8
CHECK_LIMIT = 0.10  # on a machine that others use, and of fewer turns


def main() -> None:
    """Measure, save and print; exit with 1 where a ratio is off by more than the limit, or not as saved."""
    if "--check" in sys.argv:
        check_one_row()
        return
    bundles = export_bundles("tflite,onnx")
    rows = [measure(runtime, bundles, threads, TURNS) for threads in THREADS for runtime in ROWS]
    tables.save_result("fidelity", COMMAND, rows)
    table = markdown_table(HEADERS, [as_cells(row) for row in rows])
    print(table)
    note = f"Made by `{COMMAND}`: {TURNS} turns of {RUNS} runs each, a fresh process for each turn of each side."
    tables.put_in_readme("fidelity", table, note)
    off = [row["runtime"] for row in rows if abs(row["ratio"] - 1) > LIMIT]
    if off:
        raise SystemExit(f"more than {100 * LIMIT:.0f} % beside its peer: {', '.join(off)}")


def export_bundles(targets: str) -> dict[str, Bundle]:
    """The embedded model in each of these targets, float32."""
    output = tables.WORK / "fidelity"
    options = ("--target", targets, "--eval-samples", "100", "--force")
    checkpoint = embedded_checkpoint_path()
    outcomes = tables.edgekit("export", checkpoint, *tables.one_length(checkpoint), *options, "-o", output)
    return {outcome["target"]: open_bundle(tables.ROOT / outcome["bundle"]) for outcome in outcomes}


def measure(runtime: str, bundles: dict[str, Bundle], threads: int, turns: int) -> dict[str, Any]:
    """Run edgekit and the peer in turns; a row with the medians of both and their ratio."""
    target, peer = ROWS[runtime]
    ours, theirs = [], []
    for _ in range(turns):
        ours.append(edgekit_samples(bundles[target], runtime, threads))
        theirs.append(peer_samples(bundles[target], peer, threads))
    ratio = ratio_of_medians(ours, theirs)
    return {
        "runtime": runtime,
        "peer": peer,
        "num_threads": threads,
        "turns": turns,
        "runs": RUNS,
        "edgekit_p50_ms": statistics.median(statistics.median(turn) for turn in ours),
        "peer_p50_ms": statistics.median(statistics.median(turn) for turn in theirs),
        "ratio": ratio.ratio,
        "low": ratio.low,
        "high": ratio.high,
        "medians_ms": [[statistics.median(a), statistics.median(b)] for a, b in zip(ours, theirs, strict=True)],
    }


def edgekit_samples(bundle: Bundle, runtime: str, threads: int) -> list[float]:
    """One process of the runner, as `edgekit bench --device local --fixed-length` starts it; ms."""
    settings = Settings(num_threads=threads, num_runs=RUNS, min_secs=0, max_secs=60, cold_starts=0, real_lengths=False)
    with LocalDevice() as device:
        return list(measure_bundle(device, bundle, runtime=runtime, settings=settings).samples.latency_ms)


def peer_samples(bundle: Bundle, peer: str, threads: int) -> list[float]:
    """One process of the peer; ms."""
    job = {"peer": peer, "model": str(bundle.model_path), "golden": str(bundle.golden_path)}
    run = subprocess.run(
        [sys.executable, PEERS],
        input=json.dumps(job | {"num_threads": threads, "num_runs": RUNS}),
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode:
        raise SystemExit(f"{peer} failed: {run.stderr[-2000:]}")
    return json.loads(run.stdout.splitlines()[-1])


def as_cells(row: dict[str, Any]) -> list[str]:
    """A row as the README shows it."""
    times = [f"{row[name]:.4f} ms" for name in ("edgekit_p50_ms", "peer_p50_ms")]
    interval = f"{row['low']:.3f} to {row['high']:.3f}"
    return [row["runtime"], row["peer"], str(row["num_threads"]), *times, f"{row['ratio']:.3f}", interval]


def check_one_row() -> None:
    """Measure one row again, with fewer turns, and compare its ratio with the saved one."""
    rows = tables.load_result("fidelity")["rows"]
    saved = next(row for row in rows if (row["runtime"], row["num_threads"]) == CHECKED)
    now = measure(CHECKED[0], export_bundles(ROWS[CHECKED[0]][0]), CHECKED[1], CHECK_TURNS)
    if abs(now["ratio"] - saved["ratio"]) > CHECK_LIMIT:
        found = f"{saved['ratio']:.3f} is now {now['ratio']:.3f} ({now['low']:.3f} to {now['high']:.3f})"
        raise SystemExit(f"a saved row of benchmarks/results/fidelity.json no longer holds: {found}")
    print(f"{CHECKED[0]}: as saved,", " | ".join(as_cells(now)))


if __name__ == "__main__":
    main()

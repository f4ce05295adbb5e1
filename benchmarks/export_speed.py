"""edgekit's exports beside the bare converters that it uses, on the embedded model: the time, cold and warm.

    python benchmarks/export_speed.py            all rows, into the README
    python benchmarks/export_speed.py --check    one turn of the first row, and warm (what CI runs)

Three targets, float32 and int8 (dynamic; of Core ML the weights). The bare converters run side by side, a process for
each target (export_speed_bare.py), and take as long as their longest chain; edgekit (export_speed_ours.py) runs in turn
with them, its cache empty. It converts first: `files` is the time from its start to the last file, what follows is
proof and scoring, which the bare converters have none of. Then the same again, and a scheme that is new.
"""

import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tables

from edgekit.checkpoint import embedded_checkpoint_path, load_checkpoint
from edgekit.export.lengths import default_lengths
from edgekit.report.markdown import markdown_table
from edgekit.statistics import ratio_of_medians

COMMAND = "python benchmarks/export_speed.py"
BARE, OURS = (Path(__file__).parent / f"export_speed_{side}.py" for side in ("bare", "ours"))
WORK, CACHE = tables.WORK / "export_speed", tables.WORK / "export_speed" / "cache"
TARGETS, FILES = ("tflite", "onnx", "coreml"), 6
DEFAULT = "default"  # what edgekit's side takes for lengths to choose
COLD_TURNS = {"one length": 4, "default lengths": 3}
WARM, WARM_TURNS = "the same again", 7
CHANGED, CHANGED_TURNS, NEW_SCHEME = "a new scheme", 3, "int4-weight"
HEADERS = ["exports", "edgekit's files", "bare converters", "ratio (95 %)", "proof and scoring", "all", "of cold"]
CHECK_RATIO, CHECK_WARM = 1.5, 0.25  # one turn, on a machine that others use


@dataclass(frozen=True, kw_only=True)
class Export:
    """Seconds of one run: to its last file, and to its end; and the stages that it told of."""

    files_s: float
    whole_s: float
    stages: tuple[str, ...]


def main() -> None:
    """Measure, save and print."""
    source = embedded_checkpoint_path()
    lengths = length_options(source)
    if "--check" in sys.argv:
        check_one_turn(source, lengths["one length"])
        return
    rows = [measure_cold(name, source, lengths[name], turns) for name, turns in COLD_TURNS.items()]
    cold = rows[-1]["whole_s"]  # whose cache is still there
    rows += [measure_warm(source, DEFAULT, cold), measure_changed(source, cold)]
    tables.save_result("export_speed", COMMAND, rows)
    table = markdown_table(HEADERS, [as_cells(row) for row in rows])
    print(table)
    tables.put_in_readme("export_speed", table, note(lengths["default lengths"]))


def note(lengths: str) -> str:
    """What the README says below the table."""
    return (
        f"Made by `{COMMAND}`, two cores, medians of turns: the embedded model to TFLite, ONNX and Core ML, float32 "
        f"and int8, six bundles. One length is 64 tokens; the default is {lengths} for TFLite and any for ONNX, and "
        f"edgekit's time has the choosing in it. `{CHANGED}`: three bundles in {NEW_SCHEME}, of float32 files and a "
        "reference found in the cache."
    )


def length_options(source: Path) -> dict[str, str]:
    """The lengths of both rows, as scripts take them."""
    checkpoint = load_checkpoint(source)
    chosen = default_lengths(checkpoint, 500).lengths
    return {"one length": str(checkpoint.config.max_length), "default lengths": ",".join(map(str, chosen))}


def measure_cold(name: str, source: Path, lengths: str, turns: int) -> dict[str, Any]:
    """Both sides in turns, edgekit's cache empty each time; several lengths it chooses itself."""
    ours, bare = [], []
    for _ in range(turns):
        bare.append(run_bare(source, lengths))
        shutil.rmtree(CACHE, ignore_errors=True)
        ours.append(run_ours(source, DEFAULT if "," in lengths else lengths))
    ratio = ratio_of_medians([[run.files_s] for run in ours], [[seconds] for seconds in bare])
    return summary(name, ours) | {"bare_s": statistics.median(bare), "bare_all_s": bare} | asdict(ratio)


def measure_warm(source: Path, lengths: str, cold_s: float) -> dict[str, Any]:
    """The same exports again; exits where a worker process was needed."""
    runs = [run_ours(source, lengths) for _ in range(WARM_TURNS)]
    if any("converting" in run.stages or "computing" in run.stages for run in runs):
        raise SystemExit(f"the same export was made again: {runs[0].stages}")
    return summary(WARM, runs) | {"of_cold": statistics.median(run.whole_s for run in runs) / cold_s}


def measure_changed(source: Path, cold_s: float) -> dict[str, Any]:
    """One scheme more, each time of the same cache; exits where more than its own step was done."""
    runs = []
    saved = shutil.copytree(CACHE, WORK / "saved", dirs_exist_ok=True)
    for _ in range(CHANGED_TURNS):
        shutil.rmtree(CACHE)
        shutil.copytree(saved, CACHE)
        runs.append(run_ours(source, DEFAULT, NEW_SCHEME))
    if any("converting" in run.stages or "computing" in run.stages for run in runs):
        raise SystemExit(f"more than the scheme's own step was done: {runs[0].stages}")
    return summary(CHANGED, runs) | {"of_cold": statistics.median(run.whole_s for run in runs) / cold_s}


def summary(name: str, runs: list[Export]) -> dict[str, Any]:
    """Medians over runs, and the runs themselves."""
    return {
        "name": name,
        "files_s": statistics.median(run.files_s for run in runs),
        "proof_s": statistics.median(run.whole_s - run.files_s for run in runs),
        "whole_s": statistics.median(run.whole_s for run in runs),
        "runs": [asdict(run) for run in runs],
    }


def run_bare(source: Path, lengths: str) -> float:
    """Seconds until the last of the chains has ended, all started at once."""
    folder = fresh("bare")
    started = time.monotonic()
    chains = [
        subprocess.Popen([sys.executable, BARE, target, source, lengths, folder], stdout=quiet, stderr=quiet)
        for target in TARGETS
        for quiet in [subprocess.DEVNULL]
    ]
    codes = [chain.wait() for chain in chains]
    took = time.monotonic() - started
    if any(codes) or len(list(folder.glob("int8.*"))) != len(TARGETS):
        raise SystemExit(f"a bare converter failed: exit codes {codes}")
    return took


def run_ours(source: Path, lengths: str, *scheme: str) -> Export:
    """One run of edgekit's side, its stages timed as they are told."""
    folder, started, files_s, stages = fresh("ours"), time.monotonic(), 0.0, set()
    command = [sys.executable, OURS, source, lengths, folder, CACHE, *scheme]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        for line in process.stdout or ():
            stage = line.strip().split(": ", 1)[-1]
            stages.add(stage)
            if stage == "waiting for the reference":  # said of each file when it is there
                files_s = time.monotonic() - started
    whole_s = time.monotonic() - started
    if process.returncode:
        raise SystemExit(f"edgekit's export failed with exit code {process.returncode}")
    return Export(files_s=files_s, whole_s=whole_s, stages=tuple(sorted(stages)))


def fresh(name: str) -> Path:
    """An empty folder to write to."""
    folder = WORK / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def as_cells(row: dict[str, Any]) -> list[str]:
    """A row as the README shows it."""
    cold = "bare_s" in row
    return [
        row["name"],
        f"{row['files_s']:.1f} s" if cold else "–",
        f"{row['bare_s']:.1f} s" if cold else "–",
        f"{row['ratio']:.2f} ({row['low']:.2f} to {row['high']:.2f})" if cold else "–",
        f"{row['proof_s']:.1f} s" if cold else "–",
        f"{row['whole_s']:.1f} s",
        "1" if cold else f"{row['of_cold']:.2f}",
    ]


def check_one_turn(source: Path, lengths: str) -> None:
    """One turn of both sides, and the same again; exits with what no longer holds."""
    row = measure_cold("one length", source, lengths, 1)
    warm = run_ours(source, lengths)
    told = f"ratio {row['ratio']:.2f}, warm {warm.whole_s / row['whole_s']:.2f} of cold"
    if row["ratio"] > CHECK_RATIO or warm.whole_s > CHECK_WARM * row["whole_s"] or "converting" in warm.stages:
        raise SystemExit(f"exports are slower than they were: {told}")
    print(f"as fast as saved: {told}")


if __name__ == "__main__":
    main()

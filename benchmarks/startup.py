"""`edgekit --help` beside `optimum-cli --help`, run in turns: medians, their ratio, and its 95 % bootstrap interval.

    python benchmarks/startup.py

The peer is installed into an environment of its own under benchmarks/.work.
"""

import random
import statistics
import subprocess
import sys
import time
from pathlib import Path

import tables

COMMAND = "python benchmarks/startup.py"
RUNS = 40


def main() -> None:
    """Measure both in turns, save and print."""
    ours = [str(Path(sys.executable).parent / "edgekit"), "--help"]
    commands = {"edgekit --help": ours, "optimum-cli --help": [peer(), "--help"]}
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(RUNS):
        for name, command in commands.items():
            started = time.perf_counter()
            subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
            seconds[name].append(time.perf_counter() - started)
    mine, theirs = seconds.values()
    low, high = ratio_interval(mine, theirs)
    rows = [{"command": name, "median_s": statistics.median(all_), "samples_s": all_} for name, all_ in seconds.items()]
    tables.save_result("startup", COMMAND, rows)
    for row in rows:
        print(f"{row['command']}: median {row['median_s']:.3f} s of {RUNS}")
    print(f"ratio {statistics.median(mine) / statistics.median(theirs):.2f} (95 % interval {low:.2f} to {high:.2f})")


def peer() -> str:
    """The path of optimum-cli, installed if it is not there."""
    environment = tables.WORK / "optimum"
    command = environment / "bin" / "optimum-cli"
    if not command.exists():
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
        pip = [environment / "bin" / "pip", "install", "--quiet", "torch==2.13.0", "optimum"]
        subprocess.run(pip, check=True)
    return str(command)


def ratio_interval(a: list[float], b: list[float], draws: int = 2000) -> tuple[float, float]:
    """95 % bootstrap interval of the ratio of medians."""
    generator = random.Random(0)
    ratios = sorted(
        statistics.median(generator.choices(a, k=len(a))) / statistics.median(generator.choices(b, k=len(b)))
        for _ in range(draws)
    )
    return ratios[int(0.025 * draws)], ratios[int(0.975 * draws)]


if __name__ == "__main__":
    main()

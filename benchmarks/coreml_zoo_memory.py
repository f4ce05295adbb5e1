"""Evaluates one package in a fresh process and prints how long it took and how much memory it needed, as JSON.

python benchmarks/coreml_zoo_memory.py PACKAGE INPUTS.npz
"""

import json
import sys
import time
from pathlib import Path

from edgekit.mil.package import hide_frameworks

hide_frameworks()

import coremltools  # noqa: E402, F401  (before memory is measured)
import numpy as np  # noqa: E402

from edgekit.mil.evaluator import load_evaluator  # noqa: E402


def peak_memory() -> int:
    """The most memory that this process had, in bytes; getrusage would count what its parent had before the fork."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def main(package: Path, inputs: Path) -> None:
    """Peak memory is what the process needs beyond the imported libraries; time is the best of five runs."""
    before = peak_memory()
    with np.load(inputs) as archive:
        given = dict(archive)
    started = time.perf_counter()
    evaluator = load_evaluator(package)
    load_s = time.perf_counter() - started
    runs = []
    for _ in range(5):
        started = time.perf_counter()
        evaluator.run(given)
        runs.append(time.perf_counter() - started)
    peak = peak_memory() - before
    weights = sum(file.stat().st_size for file in package.rglob("*.bin"))
    print(json.dumps({"load_s": load_s, "run_s": min(runs), "peak_bytes": peak, "weights_bytes": weights}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

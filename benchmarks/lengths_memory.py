"""Peak memory of one file that has run every text, above that of the imported runtime: `lengths_memory.py JOB.json`.

A process for each file, by the runner's own code. All texts, as those that a process has seen decide which rows of the
token table the system keeps for it: files that ran different texts can't be compared.
"""

import sys

from edgekit.devices.runner.backend import import_runtime, load_backend
from edgekit.devices.runner.job import read_job
from edgekit.devices.runner.memory import Memory
from edgekit.devices.runner.replay import run_step
from edgekit.devices.runner.steps import read_steps


def main(path: str) -> None:
    """Run one job and print bytes."""
    job = read_job(path)
    runtime, steps = import_runtime(job), read_steps(job.steps)
    memory = Memory()
    backend = load_backend(runtime, job)
    for step in steps:
        run_step(backend, step)
    print((memory.peak_bytes() or 0) - (memory.baseline_bytes or 0))


if __name__ == "__main__":
    main(sys.argv[1])

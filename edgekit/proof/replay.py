"""Runs an exported file through `devices/runner` on this host: the same code that runs on a device."""

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.processes import run_process
from edgekit.proof.golden import Golden, read_golden
from edgekit.proof.runner_events import check_run, find_event, job_text, parse_event


@dataclass(frozen=True, kw_only=True)
class Replay:
    """What the runner answered: the outputs of each step, and the event that it reported for the loaded file."""

    produced: Golden
    loaded: dict[str, Any]


def replay_steps(model: Path, runtime: str, steps: Path, *, num_threads: int = 1, timeout_s: float = 900) -> Replay:
    """Load `model` in a fresh process and feed it the inputs of every step of the file `steps`.

    Raises RunnerError: the runtime is missing, refuses the file, crashes, or hangs.
    """
    with tempfile.TemporaryDirectory(prefix="edgekit-replay-") as folder:
        outputs, job = Path(folder) / "outputs.npz", Path(folder) / "job.json"
        job.write_text(
            job_text(
                runtime=runtime,
                model=str(model.absolute()),
                steps=str(steps.absolute()),
                outputs=str(outputs),
                num_threads=num_threads,
                die_with_parent=True,
            )
        )
        argv = [sys.executable, "-P", "-m", "edgekit.devices.runner", str(job)]
        run = run_process(argv, timeout_s=timeout_s, cwd=Path(folder), env={"TF_CPP_MIN_LOG_LEVEL": "3"})
        events = [event for line in run.stdout.splitlines() if (event := parse_event(line))]
        check_run(model.name, run, events)
        return Replay(produced=read_golden(outputs), loaded=find_event(events, "loaded"))

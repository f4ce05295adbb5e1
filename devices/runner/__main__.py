"""`python3 -m runner JOB.json`: load a file, replay its steps, write the outputs.

JSON lines on standard output: {"schema": 1, "event": "loaded" | "done" | "error", ...}. Exit code 0; 2 for a job that
is none; 3 with an error event. Outputs that are NaN or infinite are counted in "done" and are no error here.
"""

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any, TextIO

from .backend import Backend, load_backend
from .failures import RunError, first_line
from .job import SCHEMA, RunnerJob, read_job
from .replay import replay
from .steps import read_steps, write_outputs


def main(arguments: list[str]) -> int:
    """Run the job whose file is the only argument; return the exit code."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python3 -m runner JOB.json\n")
        return 2
    events = _keep_stdout_for_events()
    try:
        job = read_job(arguments[0])
        if job.die_with_parent:
            _die_with_parent()
        _run(job, events)
    except RunError as failure:
        _emit(events, "error", kind=failure.kind, message=str(failure))
        return 2 if failure.kind == "bad-job" else 3
    except OSError as error:
        _emit(events, "error", kind="run-failed", message=first_line(error))
        return 3
    return 0


def _run(job: RunnerJob, events: TextIO) -> None:
    steps = read_steps(job.steps)
    if not Path(job.model).exists():
        raise RunError("load-failed", f"there is no file {job.model}")
    started = time.monotonic()
    backend = load_backend(job)
    _emit(
        events,
        "loaded",
        runtime=job.runtime,
        version=backend.version,
        signatures=_described(backend),
        load_s=round(time.monotonic() - started, 4),
    )
    started = time.monotonic()
    replayed = replay(backend, steps)
    seconds = time.monotonic() - started
    write_outputs(job.outputs, replayed.outputs)
    _emit(events, "done", steps=len(steps), run_s=round(seconds, 4), non_finite=replayed.non_finite)


def _described(backend: Backend) -> dict[str, Any]:
    """The loaded signatures for the event; "" is the only entry of a format without names."""
    return {
        name: {
            side: {port: {"dtype": p.dtype, "shape": list(p.shape)} for port, p in getattr(signature, side).items()}
            for side in ("inputs", "outputs")
        }
        for name, signature in backend.signatures.items()
    }


def _emit(events: TextIO, event: str, **fields: Any) -> None:
    events.write(json.dumps({"schema": SCHEMA, "event": event, **fields}) + "\n")
    events.flush()


def _keep_stdout_for_events() -> TextIO:
    """Give events a standard output of their own: what runtimes print, from C++ too, goes to standard error."""
    sys.stdout.flush()
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return events


def _die_with_parent() -> None:
    def watch() -> None:
        while os.read(0, 4096):
            pass
        os._exit(1)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

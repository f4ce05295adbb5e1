"""`python3 -m runner JOB.json`: load a file, replay its steps, measure.

JSON lines on standard output, {"schema": 1, "event": …}. Exit code 0; 2 for a job that is none; 3 with an error event.

    loaded      runtime, version, signatures, load_s
    memory      baseline_bytes (runtime and numpy imported, steps read), peak_bytes (each signature's largest step run)
    assignment  which node runs where, as the runtime tells it; fallback: why the accelerator can't be had
    replayed    steps, run_s, non_finite: the outputs of all steps are written (NaN and infinity are no error here)
    warmup      ms of each run, stable
    samples     ms, transfer_ms and steps of a batch of runs
    window      t_s, median_ms, temperature_c of a part of a sustained run
    energy      mj_per_inference and method
    cold        start_ms, load_ms, first_ms of this process; cache: the runtime's own was written, read, or could be
    profile     the runtime's own times by operator
    token       prompt (its number), id: one more token of a text
    written     prompt, ids, ended (stop, length, context), slid, prompt_tokens, first_ms, total_ms of a text
    context     context (its number), tokens, cache_bytes of a length that is measured
    text        context, first_ms, decode_ms of each token of one text
    scored      prompt, loss (nats), correct, tokens of a text that was to be scored
    done        steps, run_s, non_finite (of a replay)
    error       kind, message
"""

import os
import sys
import threading
import time
from pathlib import Path
from typing import Any, Callable, Optional

from .backend import Backend, Runtime, import_runtime, load_backend
from .events import Events
from .failures import RunError, first_line
from .generation_job import generate, parse_generation
from .generation_measure import measure_generation, parse_measuring
from .job import RunnerJob, read_job
from .measure import first_inferences, measure, profile
from .memory import Memory
from .replay import replay
from .steps import Step, read_steps, write_outputs
from .threads import pin

_USAGE = "usage: python3 -m runner JOB.json [--cold]\n"


#: finds the runtime of a job
FindRuntime = Callable[[RunnerJob], Runtime]


def main(arguments: list[str], find_runtime: FindRuntime = import_runtime) -> int:
    """Run the job whose file is the first argument; return the exit code.

    With `--cold` the process starts itself anew in its place, and counts from that moment.
    """
    if len(arguments) == 2 and arguments[1] == "--cold":
        start = str(Path(__file__).resolve().with_name("start.py"))
        os.execv(sys.executable, [sys.executable, start, arguments[0], f"--started={time.monotonic_ns()}"])
    if not 1 <= len(arguments) <= 2:
        sys.stderr.write(_USAGE)
        return 2
    started = int(arguments[1].split("=")[1]) if len(arguments) == 2 else None
    events = Events()
    try:
        job = read_job(arguments[0])
        if job.die_with_parent:
            _die_with_parent()
        _run(job, events, started, find_runtime)
    except RunError as failure:
        events.emit("error", kind=failure.kind, message=str(failure))
        return 2 if failure.kind == "bad-job" else 3
    except (OSError, MemoryError) as error:
        events.emit("error", kind="run-failed", message=first_line(error))
        return 3
    return 0


def _run(job: RunnerJob, events: Events, started: Optional[int], find_runtime: FindRuntime) -> None:
    if not Path(job.model).exists():
        raise RunError("load-failed", f"there is no file {job.model}")
    texts = parse_generation(job.generation) if job.operation == "generate" else None
    measuring = parse_measuring(job.generation) if job.operation == "measure-generation" else None
    pin(job.pin_cores)
    runtime = find_runtime(job)
    ready = read_steps(job.steps) if job.operation == "measure" else []  # texts are no memory of the model's
    memory = Memory()
    before = time.monotonic_ns()
    backend = load_backend(runtime, job)
    loaded = time.monotonic_ns()
    load_ms = (loaded - before) / 1e6
    described = _described(backend)
    events.emit(
        "loaded", runtime=job.runtime, version=backend.version, signatures=described, load_s=round(load_ms / 1e3, 4)
    )
    if texts is not None:
        generate(backend, texts, events)
        events.emit("done", steps=len(texts.prompts))
        return
    if measuring is not None:
        events.emit("assignment", fallback=backend.fallback, **({} if backend.fallback else backend.assignment()))
        if job.prove:
            events.emit("replayed", **_prove(backend, read_steps(job.steps), job))
        measure_generation(backend, measuring, job, memory, events)
        events.emit("done", steps=len(measuring.prompts))
        return
    steps = ready or read_steps(job.steps)
    if job.operation == "replay":
        events.emit("done", **_prove(backend, steps, job))
        return
    first_ms = first_inferences(backend, steps)
    if job.operation == "cold":
        start_ms = (loaded - (started or before)) / 1e6
        events.emit("cold", start_ms=start_ms, load_ms=load_ms, first_ms=first_ms, cache=backend.cache)
    elif job.operation == "profile":
        profile(backend, steps, events)
    else:
        events.emit("memory", baseline_bytes=memory.baseline_bytes, peak_bytes=memory.peak_bytes())
        events.emit("assignment", fallback=backend.fallback, **({} if backend.fallback else backend.assignment()))
        if job.prove:
            events.emit("replayed", **_prove(backend, steps, job))
        measure(backend, steps, job, events)
    events.emit("done", steps=len(steps))


def _prove(backend: Backend, steps: list[Step], job: RunnerJob) -> dict[str, Any]:
    """Write the outputs of all steps; what is to be said of them."""
    started = time.monotonic()
    replayed = replay(backend, steps)
    seconds = time.monotonic() - started
    write_outputs(job.outputs, replayed.outputs)
    return {"steps": len(steps), "run_s": round(seconds, 4), "non_finite": replayed.non_finite}


def _described(backend: Backend) -> dict[str, Any]:
    """The loaded signatures for the event; "" is the only entry of a format without names."""
    return {
        name: {
            side: {port: {"dtype": p.dtype, "shape": list(p.shape)} for port, p in getattr(signature, side).items()}
            for side in ("inputs", "outputs")
        }
        for name, signature in backend.signatures.items()
    }


def _die_with_parent() -> None:
    def watch() -> None:
        while os.read(0, 4096):
            pass
        os._exit(1)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Times runs of a loaded file: the first, then until they are stable, then the samples.

What is timed is the runtime's own run with the inputs in place, as LiteRT's and ONNX Runtime's own tools time it; one
clock reading is inside. Writing inputs and reading outputs is timed beside it.
"""

import gc
import time
from statistics import median
from typing import Callable, NamedTuple, Optional

from .backend import Backend, Call
from .energy import Energy
from .events import Events
from .failures import RunError, first_line
from .job import RunnerJob
from .replay import fit_inputs
from .sensors import temperature
from .steps import Step

#: warm: two windows in a row whose medians are within this share of the one before
_STABLE = 0.02
_WINDOW_S, _WINDOW_RUNS = 0.05, 5
_WARMUP_SECS = 10.0
_BATCH_S = 0.5
_PROFILED_RUNS = 50


class Timed(NamedTuple):
    """Runs in order, in ns: the run, the transfers beside it, and the place of its call in the list."""

    runs: list[int]
    transfers: list[int]
    calls: list[int]


def first_inferences(backend: Backend, steps: list[Step]) -> float:
    """Run the first step, then the largest of each signature; ms of the very first, inputs written and outputs read."""
    first = _prepare(backend, steps[0])
    started = time.perf_counter_ns()
    _run_whole(first)
    spent = (time.perf_counter_ns() - started) / 1e6
    by_signature: dict[str, list[Step]] = {}
    for step in steps:
        by_signature.setdefault(step.signature, []).append(step)
    for alike in by_signature.values():
        _run_whole(_prepare(backend, _largest(alike)))
    return spent


def profile(backend: Backend, steps: list[Step], events: Events) -> None:
    """Emit the runtime's own times by operator, of the step with the largest inputs."""
    call = _prepare(backend, _largest(steps))
    call.write()
    events.emit("profile", runs=_PROFILED_RUNS, **backend.profile(call, _PROFILED_RUNS))


def measure(backend: Backend, steps: list[Step], job: RunnerJob, events: Events) -> None:
    """Warm up, then take samples and emit them in batches, so that those before a fault are kept."""
    energy = Energy()
    if job.energy and energy.refusal:
        raise RunError("refused", f"energy can't be known here: {energy.refusal}")
    chosen = steps if job.real_lengths else [_largest(steps)]
    calls = [_prepare(backend, step) for step in chosen]
    gc.collect()
    gc.disable()
    try:
        taken = _warm_up(calls, job, events)
        if job.energy:
            energy.start()
        taken = _samples(calls, [int(step.number) for step in chosen], job, events, energy, taken)
        if job.energy:
            events.emit("energy", **energy.stop())
        if job.sustained_secs:
            _sustain(calls, job, events, taken)
    except RunError:
        raise
    except Exception as error:
        raise RunError("run-failed", f"a run failed while measuring: {first_line(error)}") from error
    finally:
        gc.enable()


def _prepare(backend: Backend, step: Step) -> Call:
    signature = backend.resolve(step.signature)
    return backend.prepare(signature, fit_inputs(backend.signatures[signature].inputs, step))


def _run_whole(call: Call) -> None:
    try:
        call.write()
        call.read(call.run())
    except RunError:
        raise
    except Exception as error:
        raise RunError("run-failed", f"the first run failed: {first_line(error)}") from error


def _largest(steps: list[Step]) -> Step:
    return max(steps, key=lambda step: sum(value.size for value in step.inputs.values()))


def _time(calls: list[Call], start: int, enough: Callable[[int, float], bool]) -> Timed:
    """Run the calls in turn, from the one at `start`, until `enough` (runs made, seconds spent) says so."""
    clock = time.perf_counter_ns
    timed = Timed([], [], [])
    began = clock()
    place = start
    while True:
        call = calls[place % len(calls)]
        write, run, read = call
        t0 = clock()
        write()
        t1 = clock()
        given = run()
        t2 = clock()
        read(given)
        t3 = clock()
        timed.runs.append(t2 - t1)
        timed.transfers.append(t1 - t0 + t3 - t2)
        timed.calls.append(place % len(calls))
        place += 1
        if enough(len(timed.runs), (t3 - began) / 1e9):
            return timed


def _warm_up(calls: list[Call], job: RunnerJob, events: Events) -> int:
    """Run until medians of windows agree, within bounds; return how many runs that took."""
    limit = min(_WARMUP_SECS, max(job.max_secs / 3, 0.1))
    began, taken, agreed = time.monotonic(), 0, 0
    before: Optional[float] = None
    collected: list[int] = []
    while agreed < 2 or taken < job.warmup_runs:
        window = _time(calls, taken, lambda runs, secs: runs >= _WINDOW_RUNS and secs >= _WINDOW_S)
        taken += len(window.runs)
        collected += window.runs
        now = median(window.runs)
        agreed = agreed + 1 if before is not None and abs(now - before) <= _STABLE * before else 0
        before = now
        if time.monotonic() - began >= limit and taken >= job.warmup_runs:
            break
    events.emit("warmup", ms=_ms(collected), stable=agreed >= 2)
    return taken


def _samples(calls: list[Call], numbers: list[int], job: RunnerJob, events: Events, energy: Energy, start: int) -> int:
    """Take at least `num_runs` samples and `min_secs`, at most `max_secs`; return the place of the next call."""
    spent, taken = 0.0, 0
    while (taken < job.num_runs or spent < job.min_secs) and (spent < job.max_secs or not taken):
        left = max(job.min_secs - spent, 0.0)

        def enough(runs: int, secs: float, taken: int = taken, spent: float = spent, left: float = left) -> bool:
            done = taken + runs >= job.num_runs and secs >= left
            return done or secs >= _BATCH_S or spent + secs >= job.max_secs

        began = time.monotonic()
        batch = _time(calls, start + taken, enough)
        spent += time.monotonic() - began
        taken += len(batch.runs)
        steps = [numbers[place] for place in batch.calls]
        events.emit("samples", ms=_ms(batch.runs), transfer_ms=_ms(batch.transfers), steps=steps)
        energy.sample(len(batch.runs))
    return start + taken


def _sustain(calls: list[Call], job: RunnerJob, events: Events, start: int) -> None:
    """Run on for `sustained_secs`, and emit the median of each of up to 600 windows with the temperature."""
    window_s = max(1.0, job.sustained_secs / 600)
    began = time.monotonic()
    while time.monotonic() - began < job.sustained_secs:
        window = _time(calls, start, lambda runs, secs: secs >= window_s)
        start += len(window.runs)
        at = time.monotonic() - began
        events.emit("window", t_s=at, median_ms=median(window.runs) / 1e6, temperature_c=temperature())


def _ms(nanoseconds: list[int]) -> list[float]:
    return [value / 1e6 for value in nanoseconds]

"""Times writing: to the first token of a prompt, and from one token to the next, at several lengths of the context."""

import gc
import time
from typing import Any, NamedTuple

from .backend import Backend
from .events import Events
from .failures import RunError, first_line
from .generation import Prompt
from .generation_job import parse_prompts
from .job import RunnerJob
from .memory import Memory
from .writer import Writer

_WARMUP_TEXTS = 2


class Timed(NamedTuple):
    """One text, in ms: from its prompt to the scores of its first token, and each step after that."""

    first_ms: float
    decode_ms: list[float]


class MeasuringJob(NamedTuple):
    """Prompts, one for each length of the context; how many tokens to write after each; the model's context."""

    prompts: tuple[Prompt, ...]
    tokens: int
    context: int


def parse_measuring(fields: Any) -> MeasuringJob:
    """Check the `generation` of a job to measure: {"prompts", "tokens", "context"}; raises RunError("bad-job")."""
    known = {"prompts", "tokens", "context"}
    if not isinstance(fields, dict) or set(fields) != known:
        raise RunError("bad-job", f"the job's generation must have {', '.join(sorted(known))}")
    if not all(type(fields[name]) is int and fields[name] > 0 for name in ("tokens", "context")):
        raise RunError("bad-job", "the job's 'tokens' and 'context' must be numbers above 0")
    return MeasuringJob(parse_prompts(fields["prompts"]), fields["tokens"], fields["context"])


def measure_generation(
    backend: Backend, measuring: MeasuringJob, job: RunnerJob, memory: Memory, events: Events
) -> None:
    """Write after each prompt in turn, until each has `num_runs` tokens and `min_secs` are over, or `max_secs` are.

    Emits `context` for each length with the size of its cache, `memory` when each has been read, then `texts`.
    """
    writer = Writer(backend, measuring.context)
    try:
        for number, prompt in enumerate(measuring.prompts):
            for _ in range(_WARMUP_TEXTS):
                size_bytes = _write(writer, prompt, measuring.tokens)[1]
            tokens = len(prompt.source or prompt.ids)
            events.emit("context", context=number, tokens=tokens, cache_bytes=size_bytes)
        events.emit("memory", baseline_bytes=memory.baseline_bytes, peak_bytes=memory.peak_bytes())
        gc.collect()
        gc.disable()
        began = time.monotonic()
        written = 0
        while _go_on(job, written, time.monotonic() - began):
            for number, prompt in enumerate(measuring.prompts):
                timed = _write(writer, prompt, measuring.tokens)[0]
                events.emit("text", context=number, first_ms=timed.first_ms, decode_ms=timed.decode_ms)
            written += measuring.tokens
    except RunError:
        raise
    except Exception as error:
        raise RunError("run-failed", f"a run failed while measuring: {first_line(error)}") from error
    finally:
        gc.enable()


def _go_on(job: RunnerJob, written: int, spent_s: float) -> bool:
    return not written or ((written < job.num_runs or spent_s < job.min_secs) and spent_s < job.max_secs)


def _write(writer: Writer, prompt: Prompt, tokens: int) -> tuple[Timed, int]:
    """Write the likeliest tokens after a prompt, stop tokens too: the same work each time; and the cache's size."""
    clock = time.perf_counter_ns
    began = clock()
    reading = writer.read(prompt.ids, prompt.source)
    token = int(reading.logits.argmax())
    before = clock()
    first_ms, decode_ms = (before - began) / 1e6, []
    for _ in range(tokens):
        reading = writer.go_on(token, reading)
        token = int(reading.logits.argmax())
        now = clock()
        decode_ms.append((now - before) / 1e6)
        before = now
    size_bytes = writer.cache_bytes(reading)
    writer.finish(reading)
    return Timed(first_ms, decode_ms), size_bytes

"""Reads what Google's benchmark_model prints: its flags, its timings, and why it failed.

The lines are those of tensorflow/lite/tools/benchmark (benchmark_model.cc, benchmark_utils.cc, stats_calculator.h).
"""

import re
from dataclasses import dataclass

from edgekit.devices.coverage import read_delegate_lines
from edgekit.measurement import Accelerator, Coverage

_STATS = re.compile(r"\bcount=\d+\b.*")
_PAIR = re.compile(r"(\w+)=(-?[\d.]+(?:e[+-]?\d+)?|nan|inf)")
_TIMINGS = re.compile(r"Inference timings in us: (.*)")
_TIMING = re.compile(r"([A-Z][\w ()]*?): (-?[\d.]+(?:e[+-]?\d+)?)")
_MEMORY = re.compile(r"Memory footprint delta.*init=(-?[\d.e+]+) overall=(-?[\d.e+]+)")
_FLAG = re.compile(r"^\s*--(\w+)=", re.MULTILINE)
#: lines that tell why it failed, the most telling first
_REASONS = (
    r"[Ff]ailed to apply .*delegate.*",
    r"ERROR: .*",
    r".*[Dd]elegate.*(?:fail|not supported|can't|could not).*",
    r".*Benchmarking failed.*",
)


@dataclass(frozen=True, kw_only=True)
class ToolOutput:
    """One run of the tool, in ms and bytes; None for what it did not print.

    `median_ms` is the mean where a run of old tools prints no median, and the only time where it printed one.
    """

    count: int
    median_ms: float
    min_ms: float | None
    max_ms: float | None
    mean_ms: float
    deviation_ms: float | None
    init_ms: float | None
    first_ms: float | None
    warmup_ms: float | None
    init_memory_bytes: int | None
    peak_memory_bytes: int | None
    coverage: Coverage


def parse_flags(text: str) -> frozenset[str]:
    """The options that `--help` lists."""
    return frozenset(_FLAG.findall(text))


def parse_output(text: str, accelerator: Accelerator = "cpu") -> ToolOutput | None:
    """The result in what the tool printed, standard error included; None where it ended before there was one.

    The last of its "count=" lines is the result only where the line of timings follows: before that it may be the
    warm-up's.
    """
    timings = _TIMINGS.search(text)
    stats = [dict(_PAIR.findall(line)) for line in _STATS.findall(text[: timings.start()] if timings else "")]
    if not timings or not stats:
        return None
    numbers = {name: float(value) for name, value in stats[-1].items()}
    times = {name.strip(): float(value) / 1e3 for name, value in _TIMING.findall(timings[1])}
    only = numbers.get("avg", numbers.get("curr"))
    mean = times.get("Inference (avg)") if only is None else only / 1e3
    if mean is None:
        return None
    memory = _MEMORY.search(text)
    return ToolOutput(
        count=int(numbers["count"]),
        median_ms=numbers["median"] / 1e3 if "median" in numbers else mean,
        min_ms=_ms(numbers, "min"),
        max_ms=_ms(numbers, "max"),
        mean_ms=mean,
        deviation_ms=_ms(numbers, "std"),
        init_ms=times.get("Init"),
        first_ms=times.get("First inference"),
        warmup_ms=times.get("Warmup (avg)"),
        init_memory_bytes=int(float(memory[1]) * 2**20) if memory else None,
        peak_memory_bytes=int(float(memory[2]) * 2**20) if memory else None,
        coverage=read_delegate_lines(text, accelerator),
    )


def failure_line(text: str) -> str:
    """The line that tells best why there is no result; the last one printed where none does."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for reason in _REASONS:
        for line in lines:
            if re.fullmatch(reason, line) or re.search(reason, line):
                return line
    return lines[-1] if lines else "it printed nothing"


def _ms(numbers: dict[str, float], name: str) -> float | None:
    return numbers[name] / 1e3 if name in numbers else None

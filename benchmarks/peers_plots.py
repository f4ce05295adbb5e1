"""The plots of peers.py, as SVG files that a README can show: latency and memory of every candidate."""

import math
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgekit.report.numbers import human_size, milliseconds
from edgekit.report.svg import Drawing, Scale

_WIDTH, _ROW, _BOTTOM = 640.0, 36.0, 26.0
_STYLE = (
    "<style>svg{background:#fff}text{font:12px system-ui,sans-serif;fill:#333}.strong{font-weight:600}.quiet{fill:#777}"
    ".grid{stroke:#ddd}.tail{stroke:#999}.ours{fill:#0a7d5a;stroke:none}.theirs{fill:#8a8f98;stroke:none}</style>"
)


def write_plots(found: list[dict[str, Any]], folder: Path) -> None:
    """Two files for each table: peers-MODEL-latency.svg and -memory.svg, `-2-threads` where there are two."""
    for one in found:
        rows = [row for row in one["rows"] if "p50_ms" in row]
        if not rows:
            continue
        name = f"peers-{one['model']}" + (f"-{one['threads']}-threads" if one["threads"] > 1 else "")
        title = f"{one['model']}, {one['threads']} thread{'s' if one['threads'] > 1 else ''}"
        latency = _plot(rows, f"p50 to p90 of {title}, ms, logarithmic", _latency, milliseconds)
        (folder / f"{name}-latency.svg").write_text(latency)
        memory = _plot(rows, f"Memory added by {title}, MB, logarithmic", _memory, lambda mb: human_size(mb * 1e6))
        (folder / f"{name}-memory.svg").write_text(memory)


def _latency(row: dict[str, Any]) -> tuple[float, float]:
    return row["p50_ms"], row["p90_ms"]


def _memory(row: dict[str, Any]) -> tuple[float, float]:
    megabytes = statistics.median(row["added_bytes"]) / 1e6
    return megabytes, megabytes


def _plot(
    rows: list[dict[str, Any]],
    label: str,
    value_of: Callable[[dict[str, Any]], tuple[float, float]],
    shown: Callable[[float], str],
) -> str:
    """A row for each candidate, the least first: a dot, and a line to the second value."""
    ordered = sorted(rows, key=lambda row: value_of(row)[0])
    values = [value for row in rows for value in value_of(row)]
    drawing = Drawing(width=_WIDTH, height=len(rows) * _ROW + _BOTTOM + 20, label=label)
    low, high = math.log10(min(values) * 0.9), math.log10(max(values) * 1.1)
    scale = Scale(low=low, high=high, start=12.0, end=_WIDTH - 16)
    drawing.text(12, 14, label, "quiet")
    for tick in _ticks(low, high):
        x = scale(math.log10(tick))
        drawing.line(x, 20, x, drawing.height - _BOTTOM + 4, "grid")
        drawing.text(x, drawing.height - 8, f"{tick:g}", "quiet", "middle")
    for place, row in enumerate(ordered):
        first, second = value_of(row)
        y, css = 20 + place * _ROW + 26, "ours" if row["edgekit"] else "theirs"
        drawing.text(12, y - 10, f"{row['name']} ({row['runtime']})", "strong" if row["edgekit"] else "")
        drawing.text(_WIDTH - 16, y - 10, shown(first), "strong" if row["edgekit"] else "", "end")
        drawing.line(scale(math.log10(first)), y, scale(math.log10(second)), y, "tail")
        drawing.circle(scale(math.log10(first)), y, 5, css, row["name"])
    head, rest = drawing.render().split(">", 1)
    return f'{head} xmlns="http://www.w3.org/2000/svg">{_STYLE}{rest}\n'


def _ticks(low: float, high: float) -> list[float]:
    decades = range(math.floor(low), math.ceil(high) + 1)
    every = [step * 10.0**power for power in decades for step in (1, 2, 5)]
    return [tick for tick in every if low <= math.log10(tick) <= high]

"""The plots of quantization: files by cost and accuracy, and modules by scheme. Each point shows its row."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from edgekit.report.plots import WIDTH
from edgekit.report.svg import Drawing, Scale

_LEFT, _RIGHT, _TOP, _BOTTOM = 58.0, WIDTH - 16.0, 26.0, 190.0


@dataclass(frozen=True, kw_only=True)
class Point:
    """One file: what it costs (x, less is better) and its accuracy (y, more is better), with its interval."""

    name: str
    x: float
    y: float
    low: float
    high: float
    tip: str
    on_front: bool


@dataclass(frozen=True, kw_only=True)
class Heat:
    """One cell of `heat_plot`; `value` is its share of the darkest, None where nothing was measured."""

    value: float | None
    text: str
    tip: str
    bad: bool = False


def front_plot(points: Sequence[Point], *, x_unit: str, y_name: str, label: str) -> str:
    """Files as dots with their intervals; a line joins those that no other beats in these two."""
    drawing = Drawing(width=WIDTH, height=_BOTTOM + 36, label=label)
    span = max(point.x for point in points) * 1.12 or 1.0
    x = Scale(low=0.0, high=span, start=_LEFT, end=_RIGHT)
    low, high = min(point.low for point in points), max(point.high for point in points)
    margin = 0.08 * (high - low) or 0.5
    y = Scale(low=low - margin, high=high + margin, start=_BOTTOM, end=_TOP)
    drawing.text(4, 14, y_name, "label quiet")
    for tick in y.ticks(5):
        drawing.line(_LEFT, y(tick), _RIGHT, y(tick), "grid")
        drawing.text(_LEFT - 6, y(tick) + 4, f"{tick:,g}", "label quiet", "end")
    for tick in x.ticks(5):
        drawing.line(x(tick), _TOP, x(tick), _BOTTOM, "grid")
        drawing.text(x(tick), _BOTTOM + 16, f"{tick:,g}", "label quiet", "middle")
    drawing.text(_RIGHT, _BOTTOM + 32, x_unit, "label quiet", "end")
    drawing.curve([(x(a), y(b)) for a, b in _steps(points)], "series")
    for point in points:
        drawing.line(x(point.x), y(point.low), x(point.x), y(point.high), "tail")
    for point in points:
        drawing.point(x(point.x), y(point.y), 7, "dot good" if point.on_front else "dot", point.tip)
    return drawing.render()


def _steps(points: Sequence[Point]) -> list[tuple[float, float]]:
    """From the least cost on, each file that is better than all that cost less."""
    steps: list[tuple[float, float]] = []
    for point in sorted(points, key=lambda each: (each.x, -each.y)):
        if not steps or point.y > steps[-1][1]:
            steps.append((point.x, point.y))
    return steps


def heat_plot(names: Sequence[str], columns: Sequence[str], rows: Sequence[Sequence[Heat]], label: str) -> str:
    """A row for each name, a cell for each column: the stronger the colour, the more it costs."""
    height, left = 24.0, 228.0
    width = (WIDTH - left - 4) / max(1, len(columns))
    drawing = Drawing(width=WIDTH, height=26 + height * len(rows), label=label)
    for number, column in enumerate(columns):
        drawing.text(left + width * (number + 0.5), 16, column, "label quiet", "middle")
    for index, (name, cells) in enumerate(zip(names, rows, strict=True)):
        top = 24 + index * height
        drawing.text(left - 8, top + 16, name if len(name) <= 30 else f"…{name[-29:]}", "label", "end")
        for number, cell in enumerate(cells):
            css = "heat bad" if cell.bad else "heat" if cell.value is not None else "heat none"
            opacity = 0.06 + 0.74 * math.sqrt(min(1.0, max(0.0, cell.value or 0.0)))
            place = (left + width * number, top, width - 2, height - 2)
            drawing.heat(*place, css, 0.8 if cell.bad else opacity, cell.tip)
            drawing.text(left + width * (number + 0.5) - 1, top + 16, cell.text, "label over", "middle")
    return drawing.render()

"""The plots of a report, as inline SVG: intervals, samples in order, curves over time, bars."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgekit.report.numbers import interval, milliseconds, percent, significant
from edgekit.report.sections import Tone
from edgekit.report.svg import Drawing, Scale
from edgekit.statistics import Summary

WIDTH = 480.0  # of every drawing: narrow, so that its text stays readable on a phone
_LEFT, _RIGHT = 46.0, WIDTH - 14.0
_MOST_DOTS = 400


@dataclass(frozen=True, kw_only=True)
class Spread:
    """One row of `spread_plot`."""

    name: str
    summary: Summary
    tone: Tone = ""


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One row of `bar_plot`."""

    name: str
    value: float
    note: str = ""


def spread_plot(rows: Sequence[Spread]) -> str:
    """A row for each: its median as a dot, the 95 % interval of the median as a bar, a thin line from p50 to p99."""
    row_height, bottom = 38.0, 24.0
    drawing = Drawing(width=WIDTH, height=len(rows) * row_height + bottom, label="Latency: medians with intervals")
    scale = Scale(low=0.0, high=max(row.summary.p99_ms for row in rows) * 1.02, start=8.0, end=_RIGHT)
    _x_axis(drawing, scale, drawing.height - bottom + 4, "ms", top=4)
    for index, row in enumerate(rows):
        top, s = index * row_height, row.summary
        y = top + 27
        tip = (
            f"{row.name}: p50 {milliseconds(s.p50_ms)} ({interval(s.low_ms, s.high_ms)}), p90 {milliseconds(s.p90_ms)}"
        )
        drawing.text(8, top + 15, _fitted(row.name, 46))
        drawing.text(_RIGHT, top + 15, milliseconds(s.p50_ms), "label strong", "end")
        drawing.line(scale(s.p50_ms), y, scale(s.p99_ms), y, "tail")
        drawing.line(scale(s.p90_ms), y - 4, scale(s.p90_ms), y + 4, "tail")
        low, high = scale(s.low_ms), scale(s.high_ms)
        drawing.rectangle(low, y - 5, max(1.5, high - low), 10, f"interval {row.tone}")
        drawing.circle(scale(s.p50_ms), y, 4, f"dot {row.tone}", tip)
    return drawing.render()


def samples_plot(samples_ms: Sequence[float], summary: Summary) -> str:
    """Samples in the order of measuring: a dot for each; where there are many, range and median of each stretch."""
    drawing = Drawing(width=WIDTH, height=174, label=f"{len(samples_ms)} inferences in the order of measuring, in ms")
    high = float(np.max(samples_ms))
    x = Scale(low=0.0, high=max(1.0, len(samples_ms) - 1.0), start=_LEFT, end=_RIGHT)
    y = Scale(low=min(0.0, float(np.min(samples_ms))), high=high * 1.05 or 1.0, start=150, end=10)
    _y_axis(drawing, y)
    _x_axis(drawing, x, 152, "runs", top=150)
    drawing.line(_LEFT, y(summary.p50_ms), _RIGHT, y(summary.p50_ms), "median")
    if len(samples_ms) <= _MOST_DOTS:
        for index, value in enumerate(samples_ms):
            drawing.circle(x(index), y(value), 1.6, "dot", f"inference {index + 1}: {milliseconds(value)}")
        return drawing.render()
    stretches = np.array_split(np.asarray(samples_ms, dtype=np.float64), _MOST_DOTS // 2)
    starts = np.cumsum([0, *(len(stretch) for stretch in stretches[:-1])])
    middles = [x(float(start) + (len(stretch) - 1) / 2) for start, stretch in zip(starts, stretches, strict=True)]
    for middle, stretch in zip(middles, stretches, strict=True):
        drawing.line(middle, y(float(stretch.min())), middle, y(float(stretch.max())), "range")
    medians = [y(float(np.median(stretch))) for stretch in stretches]
    drawing.curve(list(zip(middles, medians, strict=True)), "series")
    return drawing.render()


def curve_plot(curve: Sequence[tuple[float, float, float | None]]) -> str:
    """Latency over the seconds of a sustained run and, under it, the temperature where the device tells it."""
    hot = [(seconds, celsius) for seconds, _, celsius in curve if celsius is not None]
    drawing = Drawing(width=WIDTH, height=292 if hot else 174, label="Latency and temperature over time")
    x = Scale(low=0.0, high=max(seconds for seconds, _, _ in curve), start=_LEFT, end=_RIGHT)
    y = Scale(low=0.0, high=max(ms for _, ms, _ in curve) * 1.05, start=150, end=14)
    _y_axis(drawing, y)
    drawing.text(_LEFT + 4, 12, "median latency, ms", "label quiet")
    drawing.curve([(x(seconds), y(ms)) for seconds, ms, _ in curve], "series")
    for seconds, ms, _ in curve:
        drawing.circle(x(seconds), y(ms), 2.4, "dot", f"{seconds:.0f} s: {milliseconds(ms)}")
    if not hot:
        _x_axis(drawing, x, 152, "s", top=150)
        return drawing.render()
    coldest, hottest = min(c for _, c in hot), max(c for _, c in hot)
    degrees = Scale(low=coldest - 1, high=hottest + 1, start=268, end=186)
    _y_axis(drawing, degrees, count=3)
    drawing.text(_LEFT + 4, 180, "temperature, °C", "label quiet")
    drawing.curve([(x(seconds), degrees(celsius)) for seconds, celsius in hot], "series warm")
    for seconds, celsius in hot:
        drawing.circle(x(seconds), degrees(celsius), 2.4, "dot warn", f"{seconds:.0f} s: {celsius:.1f} °C")
    _x_axis(drawing, x, 270, "s", top=268)
    return drawing.render()


def bar_plot(bars: Sequence[Bar], *, unit: str, label: str) -> str:
    """A bar for each row, from zero, with its value and share of the whole."""
    row_height = 34.0
    drawing = Drawing(width=WIDTH, height=len(bars) * row_height + 6, label=label)
    whole = sum(bar.value for bar in bars) or 1.0
    scale = Scale(low=0.0, high=max(bar.value for bar in bars) or 1.0, start=8.0, end=_RIGHT)
    for index, bar in enumerate(bars):
        top = index * row_height
        value = f"{significant(bar.value)} {unit} · {percent(bar.value / whole)}"
        drawing.text(8, top + 15, _fitted(f"{bar.name} {bar.note}".strip(), 40))
        drawing.text(_RIGHT, top + 15, value, "label strong", "end")
        drawing.rectangle(8, top + 20, scale(bar.value) - 8, 8, "interval", f"{bar.name}: {value}")
    return drawing.render()


def _x_axis(drawing: Drawing, scale: Scale, y: float, unit: str, *, top: float) -> None:
    ticks = scale.ticks()
    for tick in ticks:
        last = tick == ticks[-1]
        drawing.line(scale(tick), top, scale(tick), y, "grid")
        anchor = "end" if last and scale(tick) > _RIGHT - 30 else "middle"
        drawing.text(scale(tick), y + 14, f"{tick:,g} {unit}" if last else f"{tick:,g}", "label quiet", anchor)


def _y_axis(drawing: Drawing, scale: Scale, *, count: int = 4) -> None:
    for tick in scale.ticks(count):
        drawing.line(_LEFT, scale(tick), _RIGHT, scale(tick), "grid")
        drawing.text(_LEFT - 6, scale(tick) + 4, f"{tick:,g}", "label quiet", "end")


def _fitted(text: str, most: int) -> str:
    """Text that fits a row: its middle is left out where it is longer than `most` characters."""
    if len(text) <= most:
        return text
    return f"{text[: most // 2]}…{text[-(most - most // 2 - 1) :]}"

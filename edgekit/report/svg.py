"""A few shapes of SVG, written as text: coordinates are pixels of a drawing that scales to the width it is given.

Colours come from CSS classes, so that a plot follows the page into dark mode and print.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape


@dataclass(kw_only=True)
class Drawing:
    """An SVG under construction; `label` says in a sentence what it shows, for those who can't see it."""

    width: float
    height: float
    label: str
    shapes: list[str] = field(default_factory=list)

    def line(self, x1: float, y1: float, x2: float, y2: float, css: str) -> None:
        """A straight line."""
        self.shapes.append(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{css}"/>')

    def circle(self, x: float, y: float, r: float, css: str, tip: str = "") -> None:
        """A dot; `tip` appears under the pointer."""
        self.shapes.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r:.1f}" class="{css}">{_tip(tip)}</circle>')

    def rectangle(self, x: float, y: float, width: float, height: float, css: str, tip: str = "") -> None:
        """A filled rectangle; `tip` appears under the pointer."""
        size = f'width="{max(0.0, width):.1f}" height="{max(0.0, height):.1f}"'
        self.shapes.append(f'<rect x="{x:.1f}" y="{y:.1f}" {size} class="{css}">{_tip(tip)}</rect>')

    def point(self, x: float, y: float, r: float, css: str, tip: str) -> None:
        """A dot that can be pointed at, tapped, or reached by the keyboard: the page then shows its `tip`."""
        told = escape(tip)
        place = f'cx="{x:.1f}" cy="{y:.1f}" r="{r:.1f}" class="point {css}"'
        self.shapes.append(f'<circle {place} tabindex="0" role="button" aria-label="{told}" data-tip="{told}"/>')

    def heat(self, x: float, y: float, width: float, height: float, css: str, opacity: float, tip: str) -> None:
        """A cell whose colour is as strong as `opacity`, in [0, 1]; the page shows its `tip` when it is pointed at."""
        size = f'width="{width:.1f}" height="{height:.1f}" fill-opacity="{opacity:.2f}"'
        self.shapes.append(f'<rect x="{x:.1f}" y="{y:.1f}" {size} class="point {css}" data-tip="{escape(tip)}"/>')

    def curve(self, points: Sequence[tuple[float, float]], css: str) -> None:
        """A line through points."""
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self.shapes.append(f'<polyline points="{path}" class="{css}"/>')

    def text(self, x: float, y: float, text: str, css: str = "label", anchor: str = "start") -> None:
        """Text; `anchor` is start, middle or end."""
        self.shapes.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{css}">{escape(text)}</text>')

    def render(self) -> str:
        """The whole SVG element."""
        head = f'<svg viewBox="0 0 {self.width:.0f} {self.height:.0f}" role="img" aria-label="{escape(self.label)}">'
        return f"{head}{''.join(self.shapes)}</svg>"


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Maps values linearly from [low, high] to pixels [start, end]."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The pixel of a value."""
        span = self.high - self.low
        return self.start + (self.end - self.start) * ((value - self.low) / span if span else 0.5)

    def ticks(self, count: int = 6) -> list[float]:
        """At most about `count` round values inside the range: 0, 0.5, 1, …"""
        span = self.high - self.low
        raw = span / count
        if not raw > 1e-12 * max(abs(self.low), abs(self.high), 1e-280):
            return [self.low]
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [round(index * step, 12) for index in range(first, last + 1)]


def _tip(text: str) -> str:
    return f"<title>{escape(text)}</title>" if text else ""

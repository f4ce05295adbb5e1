"""Numbers as people read them; every format of a report writes them through here."""

import math
from collections.abc import Callable

from edgekit.statistics import Summary

ABSENT = "–"


def human_size(size_bytes: float) -> str:
    """A size in bytes as people read it: 3.42 MB (decimal units)."""
    for unit in ("B", "kB", "MB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} B" if unit == "B" else f"{size_bytes:.2f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.2f} GB"


def significant(value: float, digits: int = 3) -> str:
    """A number with so many significant digits, never in powers of ten: 0.0123, 1.23, 123, 12,346."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else str(value)
    rounded = float(f"{value:.{digits - 1}e}")  # first: 9.999 has two digits before its point once it is rounded
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(rounded))))
    return f"{value:,.{decimals}f}"


def milliseconds(value: float) -> str:
    """A duration in ms: 3.02 ms."""
    return f"{significant(value)} ms"


def median_with_interval(summary: Summary) -> str:
    """A median and its 95 % interval: 3.02 ms (2.98–3.06); a single sample has none."""
    if summary.count < 2:
        return milliseconds(summary.p50_ms)
    return f"{milliseconds(summary.p50_ms)} ({interval(summary.low_ms, summary.high_ms)})"


def interval(low: float, high: float) -> str:
    """Two bounds: 2.98–3.06; with a digit more where they would read the same, one number where even that is equal."""
    digits = 3 if low == high or significant(low) != significant(high) else 4
    return "–".join(dict.fromkeys((significant(low, digits), significant(high, digits))))


def percent(share: float, digits: int = 1) -> str:
    """A share of 1 in percent: 90.1 %."""
    return f"{100 * share:.{digits}f} %"


def signed_percent(share: float, digits: int = 1) -> str:
    """A change as a share of 1, in percent with its sign: +5.2 %."""
    return f"{100 * share:+.{digits}f} %"


def or_absent(value: float | None, shown: Callable[[float], str]) -> str:
    """The value as text, or a dash where there is none."""
    return ABSENT if value is None else shown(value)

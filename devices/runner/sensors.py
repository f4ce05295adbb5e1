"""Reads numbers that Linux shows as files; None where there is none, or no permission."""

from pathlib import Path
from typing import Optional

#: where sysfs is; tests put recorded files elsewhere
SYS = "/sys"


def read_text(path: Path) -> Optional[str]:
    """The content of a small file, stripped."""
    try:
        with open(path, encoding="ascii", errors="replace") as stream:
            return stream.read().strip()
    except OSError:
        return None


def read_number(path: Path) -> Optional[float]:
    """The number in a small file."""
    text = read_text(path)
    try:
        return float(text) if text else None
    except ValueError:
        return None


def temperature(sys: Optional[str] = None) -> Optional[float]:
    """The highest temperature of all thermal zones, in degrees Celsius."""
    found = [read_number(path) for path in sorted(Path(sys or SYS).glob("class/thermal/thermal_zone*/temp"))]
    degrees = [value / 1000 if abs(value) > 200 else value for value in found if value is not None]
    return max(degrees) if degrees else None

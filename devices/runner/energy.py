"""Energy of the whole machine while samples are taken, where it can be known: counters, power sensors, or a battery.

Sources: Linux, Documentation/power/powercap, Documentation/hwmon/sysfs-interface, ABI/testing/sysfs-class-power.
"""

import time
from pathlib import Path
from typing import Any, Optional

from .sensors import SYS, read_number, read_text


class Energy:
    """Starts, is asked between batches, and stops; `refusal` is the reason where energy can't be known ("": it can)."""

    def __init__(self, sys: Optional[str] = None) -> None:
        root = Path(sys or SYS)
        self._counters = _counters(root)
        self._powers = [] if self._counters else _powers(root)
        self._battery = None if self._counters or self._powers else _battery(root)
        self.refusal = self._why_not()
        self._joules = 0.0
        self._inferences = 0
        self._began = self._last = 0.0
        self._counted: dict[Path, float] = {}

    def start(self) -> None:
        """Take the first readings."""
        self._began = self._last = time.monotonic()
        self._counted = {path: read_number(path) or 0.0 for path, _ in self._counters}

    def sample(self, inferences: int) -> None:
        """Account for what was used since the last call, in which so many inferences were made."""
        now = time.monotonic()
        self._inferences += inferences
        self._joules += self._counter_joules() if self._counters else self._watts() * (now - self._last)
        self._last = now

    def stop(self) -> dict[str, Any]:
        """mJ of one inference, all that the machine used included, and how it is known."""
        method = "counters" if self._counters else ("power sensors" if self._powers else "battery")
        return {
            "mj_per_inference": 1e3 * self._joules / max(1, self._inferences),
            "method": method,
            "seconds": self._last - self._began,
        }

    def _why_not(self) -> str:
        if self._counters or self._powers:
            return ""
        if self._battery is None:
            return "no readable energy counter (RAPL, hwmon), power sensor (INA) or battery"
        status = read_text(self._battery / "status") or "unknown"
        if status != "Discharging":
            return f"the battery is {status.lower()}: what it gives is not what is used; unplug it"
        return "" if self._watts() > 0 else "the battery does not tell current and voltage"

    def _counter_joules(self) -> float:
        joules = 0.0
        for path, wraps_at in self._counters:
            now, before = read_number(path), self._counted[path]
            if now is None:
                continue
            joules += (now - before if now >= before else now + wraps_at - before) / 1e6
            self._counted[path] = now
        return joules

    def _watts(self) -> float:
        if self._powers:
            return sum(read_number(path) or 0.0 for path in self._powers) / 1e6
        if self._battery is None:
            return 0.0
        amperes = (read_number(self._battery / "current_now") or 0.0) / 1e6
        return abs(amperes) * (read_number(self._battery / "voltage_now") or 0.0) / 1e6


def _counters(root: Path) -> list[tuple[Path, float]]:
    """Readable energy counters in µJ, each with the value at which it starts again: packages of RAPL, then hwmon."""
    packages = sorted(root.glob("class/powercap/intel-rapl:[0-9]*/energy_uj"))
    found = [path for path in packages if path.parent.name.count(":") == 1 and read_number(path) is not None]
    if found:
        return [(path, read_number(path.with_name("max_energy_range_uj")) or 0.0) for path in found]
    sensors = sorted(root.glob("class/hwmon/hwmon*/energy*_input"))
    return [(path, 0.0) for path in sensors if read_number(path) is not None]


def _powers(root: Path) -> list[Path]:
    """Readable power sensors in µW: INA219, INA226, INA3221 and their like."""
    return [path for path in sorted(root.glob("class/hwmon/hwmon*/power*_input")) if read_number(path)]


def _battery(root: Path) -> Optional[Path]:
    for path in sorted(root.glob("class/power_supply/*")):
        if read_text(path / "type") == "Battery":
            return path
    return None

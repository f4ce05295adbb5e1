"""What a device is like before and after a measurement: heat, throttling, frequencies, load, battery, memory.

Nothing here needs root or Python on the device. Sources: Linux, Documentation/ABI (thermal, cpufreq, power_supply);
Raspberry Pi's documentation of vcgencmd; Android's ThermalManagerService and BatteryService, whose dumps are read.
"""

import datetime
import re
from collections.abc import Mapping
from typing import Any

from edgekit.devices.device import Device
from edgekit.measurement import Conditions

_TIMEOUT_S = 30.0
_ZONES, _CORES = range(32), range(32)
_BATTERIES = ("BAT0", "BAT1", "BATT", "battery", "axp20x-battery")
_CPU, _THERMAL, _POWER = "/sys/devices/system/cpu", "/sys/class/thermal", "/sys/class/power_supply"
_FILES = (
    *(f"{_THERMAL}/thermal_zone{zone}/{part}" for zone in _ZONES for part in ("type", "temp")),
    *(f"{_CPU}/cpu{core}/cpufreq/scaling_cur_freq" for core in _CORES),
    f"{_CPU}/cpu0/cpufreq/scaling_governor",
    *(f"{_POWER}/{name}/{part}" for name in _BATTERIES for part in ("capacity", "status")),
    "/proc/loadavg",
    "/proc/meminfo",
)


def read_conditions(device: Device) -> Conditions:
    """What the device is like now; raises DeviceError where it can't be reached. What it does not tell is left out."""
    # One command for all files, with their names; those that are not there are passed over.
    found = parse_files(_output(device, "grep", "-s", "-H", "", *_FILES))
    facts = device.facts()
    if "raspberry" in facts.model.lower():
        asked = (("get_throttled",), ("measure_temp",), ("measure_clock", "arm"))
        found |= parse_vcgencmd("\n".join(_output(device, "vcgencmd", *words) for words in asked))
    if device.address.startswith("adb:") or "android" in facts.os.lower():
        found |= parse_thermalservice(_output(device, "dumpsys", "thermalservice"))
        found |= parse_battery(_output(device, "dumpsys", "battery"))
    return Conditions(time=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), **found)


def parse_files(text: str) -> dict[str, Any]:
    """Fields of Conditions from lines of `path:content`, as `grep -H` prints them."""
    first: dict[str, str] = {}
    memory: dict[str, int] = {}
    for line in text.splitlines():
        path, _, content = line.partition(":")
        size = re.match(r"(Mem\w+):\s+(\d+) kB", content) if path == "/proc/meminfo" else None
        if size:
            memory[size[1]] = int(size[2]) * 1024
        first.setdefault(path, content.strip())
    load = first.get("/proc/loadavg", "").split()
    clocks = [_number(first.get(f"{_CPU}/cpu{core}/cpufreq/scaling_cur_freq")) for core in _CORES]
    found = {
        "temperatures_c": _zones(first),
        "frequencies_mhz": tuple(clock / 1000 for clock in clocks if clock is not None),
        "governor": first.get(f"{_CPU}/cpu0/cpufreq/scaling_governor"),
        "load_1min": _number(load[0]) if load else None,
        "free_memory_bytes": memory.get("MemAvailable", memory.get("MemFree")),
    }
    return found | _linux_battery(first)


def parse_vcgencmd(text: str) -> dict[str, Any]:
    """Fields of Conditions from what `vcgencmd get_throttled`, `measure_temp` and `measure_clock arm` print."""
    found: dict[str, Any] = {}
    if throttled := re.search(r"throttled=(0x[0-9a-fA-F]+)", text):
        found["throttled"] = int(throttled[1], 16)
    if heat := re.search(r"temp=([\d.]+)", text):
        found["temperatures_c"] = {"vcgencmd": float(heat[1])}
    if clock := re.search(r"frequency\(\d+\)=(\d+)", text):
        found["frequencies_mhz"] = (int(clock[1]) / 1e6,)
    return found


def parse_thermalservice(text: str) -> dict[str, Any]:
    """Fields of Conditions from `dumpsys thermalservice`; what the hardware says now goes before what was cached."""
    found: dict[str, Any] = {}
    if status := re.search(r"Thermal Status: (\d+)", text):
        found["thermal_status"] = int(status[1])
    cached, _, current = text.partition("Current temperatures from HAL:")
    reading = r"Temperature\{mValue=(-?[\d.]+), mType=-?\d+, mName=([^,}]+)"
    heats = re.findall(reading, current) or re.findall(reading, cached)
    if heats:
        found["temperatures_c"] = {name: float(value) for value, name in heats}
    return found


def parse_battery(text: str) -> dict[str, Any]:
    """Fields of Conditions from `dumpsys battery`; a phone that has power from outside is charging, full or not."""
    told = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}
    found: dict[str, Any] = {}
    powered = [value for name, value in told.items() if name.endswith("powered")]
    if powered:
        found["charging"] = "true" in powered
    level, scale = _number(told.get("level")), _number(told.get("scale")) or 100.0
    if level is not None:
        found["battery_percent"] = 100 * level / scale
    return found


def hottest(conditions: Conditions) -> float | None:
    """The highest temperature, in degrees Celsius."""
    return max(conditions.temperatures_c.values(), default=None)


def _zones(first: Mapping[str, str]) -> dict[str, float]:
    """Temperature by zone; zones of the same type are told apart by their number."""
    found: dict[str, float] = {}
    for zone in _ZONES:
        value = _number(first.get(f"{_THERMAL}/thermal_zone{zone}/temp"))
        if value is None:
            continue
        kind = first.get(f"{_THERMAL}/thermal_zone{zone}/type", f"zone{zone}")
        degrees = value / 1000 if abs(value) > 200 else value  # some old kernels count in whole degrees
        found[kind if kind not in found else f"{kind}-{zone}"] = degrees
    return found


def _linux_battery(first: Mapping[str, str]) -> dict[str, Any]:
    for name in _BATTERIES:
        percent = _number(first.get(f"{_POWER}/{name}/capacity"))
        if percent is not None:
            status = first.get(f"{_POWER}/{name}/status")
            return {"battery_percent": percent, "charging": None if status is None else status != "Discharging"}
    return {}


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None


def _output(device: Device, *argv: str) -> str:
    """What a command prints; "" where the device has no such command or it fails. Only a lost device is an error."""
    run = device.run(argv, timeout_s=_TIMEOUT_S)
    return run.stdout if run.returncode in (0, 1, 2) else ""  # grep: 1 no line, 2 some file is not there

"""Conditions from text in the formats that boards and phones print."""

from edgekit.devices.conditions import (
    hottest,
    parse_battery,
    parse_files,
    parse_thermalservice,
    parse_vcgencmd,
    read_conditions,
)
from edgekit.devices.fake import FakeDevice
from edgekit.devices.local import LocalDevice
from edgekit.measurement import DeviceFacts

#: `grep -s -H "" …` on a Raspberry Pi 4
PI = """\
/sys/class/thermal/thermal_zone0/type:cpu-thermal
/sys/class/thermal/thermal_zone0/temp:48312
/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq:1500000
/sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq:600000
/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor:ondemand
/proc/loadavg:0.52 0.58 0.59 1/180 2343
/proc/meminfo:MemTotal:        3884284 kB
/proc/meminfo:MemFree:         2954396 kB
/proc/meminfo:MemAvailable:    3349956 kB
/proc/meminfo:Buffers:           62464 kB
"""
#: a laptop: two zones of one type, a battery that is full, an empty file
LAPTOP = """\
/sys/class/thermal/thermal_zone0/type:acpitz
/sys/class/thermal/thermal_zone0/temp:27800
/sys/class/thermal/thermal_zone1/type:acpitz
/sys/class/thermal/thermal_zone1/temp:53
/sys/class/thermal/thermal_zone2/type:iwlwifi_1
/sys/class/thermal/thermal_zone2/temp:
/sys/class/power_supply/BAT0/capacity:97
/sys/class/power_supply/BAT0/status:Not charging
"""
THROTTLED = "throttled=0x50005\n"
THERMAL = """\
IsStatusOverride: false
ThermalEventListeners:
\tcallbacks: 3
Thermal Status: 2
Cached temperatures:
\tTemperature{mValue=36.1, mType=3, mName=skin-therm, mStatus=0}
\tTemperature{mValue=33.0, mType=2, mName=battery, mStatus=0}
HAL Ready: true
HAL connection:
\tThermalHAL AIDL 1  connected: yes
Current temperatures from HAL:
\tTemperature{mValue=41.7, mType=0, mName=CPU0, mStatus=0}
\tTemperature{mValue=43.25, mType=3, mName=skin-therm, mStatus=2}
Current cooling devices from HAL:
\tCoolingDevice{mValue=2, mType=3, mName=thermal-cpufreq-0}
"""
BATTERY = """\
Current Battery Service state:
  AC powered: false
  USB powered: true
  Wireless powered: false
  Max charging current: 500000
  Charge counter: 2854000
  status: 2
  health: 2
  present: true
  level: 87
  scale: 100
  voltage: 4212
  temperature: 291
  technology: Li-ion
"""


def test_a_raspberry_pi() -> None:
    found = parse_files(PI)
    assert found == {
        "temperatures_c": {"cpu-thermal": 48.312},
        "frequencies_mhz": (1500.0, 600.0),
        "governor": "ondemand",
        "load_1min": 0.52,
        "free_memory_bytes": 3349956 * 1024,
    }
    said = parse_vcgencmd(f"{THROTTLED}temp=62.3'C\nfrequency(48)=1500345728\n")
    assert said == {"throttled": 0x50005, "temperatures_c": {"vcgencmd": 62.3}, "frequencies_mhz": (1500.345728,)}
    assert parse_vcgencmd("VCHI initialization failed\n") == {}


def test_a_laptop() -> None:
    found = parse_files(LAPTOP)
    assert found["temperatures_c"] == {"acpitz": 27.8, "acpitz-1": 53}
    assert found["battery_percent"] == 97
    assert found["charging"] is True  # power comes from outside


def test_nothing_is_told() -> None:
    found = parse_files("")
    assert not any(found.values())
    assert parse_files("grep: unknown option\n/proc/loadavg:\n/proc/meminfo:MemFree: no kB\n")["load_1min"] is None


def test_a_phone() -> None:
    assert parse_thermalservice(THERMAL) == {
        "thermal_status": 2,
        "temperatures_c": {"CPU0": 41.7, "skin-therm": 43.25},
    }
    cached = THERMAL.partition("Current temperatures")[0]
    assert parse_thermalservice(cached)["temperatures_c"] == {"skin-therm": 36.1, "battery": 33.0}
    assert parse_thermalservice("Can't find service: thermalservice\n") == {}
    assert parse_battery(BATTERY) == {"charging": True, "battery_percent": 87}
    assert parse_battery(BATTERY.replace("USB powered: true", "USB powered: false"))["charging"] is False
    assert parse_battery("Can't find service: battery\n") == {}


def test_a_board_is_asked_what_it_can_tell() -> None:
    answers = {
        ("grep",): PI,
        ("vcgencmd", "get_throttled"): THROTTLED,
        ("vcgencmd", "measure_temp"): "temp=62.3'C\n",
        ("vcgencmd", "measure_clock", "arm"): "frequency(48)=1500345728\n",
    }
    facts = DeviceFacts(address="ssh:pi", model="Raspberry Pi 4 Model B Rev 1.4")
    with FakeDevice(answers=answers, facts_told=facts) as board:
        found = read_conditions(board)
    assert found.throttled == 0x50005
    assert hottest(found) == 62.3
    assert found.governor == "ondemand"


def test_a_phone_is_asked_what_it_can_tell() -> None:
    answers = {("grep",): PI, ("dumpsys", "thermalservice"): THERMAL, ("dumpsys", "battery"): BATTERY}
    with FakeDevice(answers=answers, facts_told=DeviceFacts(address="adb:1", os="Android 14 (API 34)")) as phone:
        found = read_conditions(phone)
    assert (found.thermal_status, found.charging, found.load_1min) == (2, True, 0.52)
    assert hottest(found) == 43.25


def test_a_board_without_its_tools_tells_less() -> None:
    """`vcgencmd` is really not there: exit code 127."""
    with FakeDevice(facts_told=DeviceFacts(address="ssh:pi", model="Raspberry Pi 5")) as board:
        found = read_conditions(board)
    assert found.throttled is None


def test_this_machine() -> None:
    with LocalDevice() as here:
        found = read_conditions(here)
    assert found.load_1min is not None
    assert (found.free_memory_bytes or 0) > 10_000_000
    assert found.time.endswith("+00:00")

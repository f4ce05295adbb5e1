"""What a device says of itself: one shell script and one Python program, the same on every device."""

from collections.abc import Sequence
from typing import Protocol

from edgekit.environments import SEPARATE, SHARED
from edgekit.errors import DeviceError
from edgekit.measurement import DeviceFacts
from edgekit.processes import CompletedRun

#: where `edgekit devices setup` puts the interpreter, below the home folder of the device
SETUP_PYTHON = f"{SHARED}/bin/python"
_TIMEOUT_S = 120.0

#: $1: the interpreter of devices.toml, or nothing, $2: SETUP_PYTHON. Lines of key=value; what the device does not have
#: is left out.
_SCRIPT = """
say() { [ -n "$2" ] && printf "%s=%s%s" "$1" "$2" "
"; }
has() { command -v "$1" >/dev/null 2>&1; }
say machine "$(uname -m)"
say cores "$(getconf _NPROCESSORS_ONLN 2>/dev/null || nproc)"
[ -r /proc/meminfo ] && while read -r key value _; do
  [ "$key" = MemTotal: ] && say memory_kib "$value"
done </proc/meminfo
[ -r /proc/cpuinfo ] && say cpu_flags "$(grep -m1 -E "^(flags|Features)" /proc/cpuinfo | cut -d: -f2-)"
if has getprop; then
  say os "Android $(getprop ro.build.version.release) (API $(getprop ro.build.version.sdk))"
  say model "$(getprop ro.product.manufacturer) $(getprop ro.product.model)"
  say soc "$(getprop ro.soc.manufacturer) $(getprop ro.soc.model)"
  say soc "$(getprop ro.board.platform)"
  [ "$(getprop ro.build.version.sdk)" -ge 27 ] 2>/dev/null && say accelerator nnapi
elif has sw_vers; then
  say os "macOS $(sw_vers -productVersion)"
  say model "$(sysctl -n hw.model)"
  say soc "$(sysctl -n machdep.cpu.brand_string)"
  say memory_kib "$(($(sysctl -n hw.memsize) / 1024))"
  say accelerator coreml
else
  [ -r /etc/os-release ] && say os "$(. /etc/os-release; echo "$PRETTY_NAME")"
  say os "$(uname -sr)"
  for file in /proc/device-tree/model /sys/class/dmi/id/product_name; do
    [ -r "$file" ] && say model "$(tr -d "[:cntrl:]" <"$file")"
  done
  chips=/proc/device-tree/compatible
  [ -r $chips ] && say soc "$(tr "[:cntrl:]" " " <$chips | sed "s/ *$//; s/.* //")"
  [ -r /proc/cpuinfo ] && say soc "$(grep -m1 "^model name" /proc/cpuinfo | cut -d: -f2-)"
fi
for node in /dev/dri/renderD* /dev/kgsl-3d0 /dev/mali0; do [ -e "$node" ] && say accelerator gpu; done
for node in /dev/adsprpc-smd /dev/fastrpc-cdsp /dev/hailo0 /dev/rknpu /dev/accel/accel0; do
  [ -e "$node" ] && say accelerator npu
done
[ -e /dev/apex_0 ] && say accelerator edgetpu
grep -qsE "^(1a6e|18d1)" /sys/bus/usb/devices/*/idVendor &&
  grep -qsE "^(089a|9302)" /sys/bus/usb/devices/*/idProduct && say accelerator edgetpu
for tool in benchmark_model /data/local/tmp/benchmark_model; do
  has "$tool" && say runtime.benchmark_model "$(command -v "$tool")"
done
shared=$HOME/$2
for own in "${shared%/bin/python}"-*/bin/python; do
  [ -x "$own" ] && name=${own%/bin/python} && say "environment.${name##*/env-}" "$own"
done
if [ -n "$1" ]; then set -- "$1"; else set -- "$HOME/$2" python3 python; fi
for python in "$@"; do
  has "$python" && say python "$(command -v "$python")" && break
done
exit 0
"""

#: runs on any Python 3; one without importlib.metadata (3.7) has no runtime of ours
_PYTHON = """
import importlib.metadata as metadata
import sys
pairs = [("litert", "ai-edge-litert"), ("tflite-runtime",) * 2, ("onnxruntime",) * 2, ("numpy",) * 2]
pairs += [("coreml", "coremltools")] if sys.platform == "darwin" else []
for name, package in pairs:
    try:
        print("runtime." + name + "=" + metadata.version(package))
        if name == "litert" and int(metadata.version(package).split(".")[0]) >= 2:
            print("runtime.litert-compiled=" + metadata.version(package))
    except metadata.PackageNotFoundError:
        pass
"""


class _Runs(Protocol):
    address: str

    def run(self, argv: Sequence[str], *, timeout_s: float) -> CompletedRun: ...


def read_facts(device: _Runs, *, python: str = "") -> DeviceFacts:
    """Ask a device; `python` is the interpreter that devices.toml names for it.

    Raises DeviceError where that interpreter is not there.
    """
    run = device.run(["sh", "-c", _SCRIPT, "edgekit", python, SETUP_PYTHON], timeout_s=_TIMEOUT_S)
    said = _parse(run.stdout)
    found = said.get("python", [None])[0]
    if python and not found:
        message = f"{device.address} has no {python}, which devices.toml names as its python: correct it there"
        raise DeviceError(message, address=device.address, state="no python")
    if found:
        for key, values in _parse(device.run([found, "-c", _PYTHON], timeout_s=_TIMEOUT_S).stdout).items():
            said.setdefault(key, values)
    numpy = said.pop("runtime.numpy", [])
    runtimes = {key.removeprefix("runtime."): value[0] for key, value in said.items() if key.startswith("runtime.")}
    return DeviceFacts(
        address=device.address,
        advice=_advice(found, runtimes, has_numpy=bool(numpy)),
        model=_first(said, "model"),
        soc=_first(said, "soc"),
        machine=_first(said, "machine"),
        cores=int(said["cores"][0]) if "cores" in said else None,
        memory_bytes=int(said["memory_kib"][0]) * 1024 if "memory_kib" in said else None,
        os=_first(said, "os"),
        python=found,
        runtimes=runtimes,
        environments={name: said[f"environment.{name}"][0] for name in SEPARATE if f"environment.{name}" in said},
        accelerators=("cpu", *dict.fromkeys(said.get("accelerator", []))),
        cpu_flags=tuple(_first(said, "cpu_flags").split()),
    )


def _advice(python: str | None, runtimes: dict[str, str], *, has_numpy: bool) -> str:
    if "benchmark_model" in runtimes or (runtimes and has_numpy):
        return ""
    if python is None:
        return "no Python there: bench needs Google's benchmark_model"
    return "no runtime there: edgekit devices setup NAME"


def _parse(text: str) -> dict[str, list[str]]:
    said: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals and value.strip():
            said.setdefault(key, []).append(value.strip())
    return said


def _first(said: dict[str, list[str]], key: str) -> str:
    return said.get(key, [""])[0]

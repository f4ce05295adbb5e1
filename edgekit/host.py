"""Facts about this machine: processor features, installed libraries, and tools for devices."""

import os
import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from edgekit import extras

#: feature → (the flag that Linux or macOS reports, what it is good for), by machine type
CPU_FEATURES: dict[str, dict[str, tuple[str, str]]] = {
    "x86_64": {
        "AVX2": ("avx2", "float32 and int8 kernels of XNNPACK and ONNX Runtime"),
        "F16C": ("f16c", "float16 weights unpacked in hardware"),
        "AVX-512": ("avx512f", "wider float32 kernels"),
        "AVX-512 VNNI": ("avx512_vnni", "int8 products without saturation, the fast path of int8"),
        "AVX-VNNI": ("avx_vnni", "the same on processors without AVX-512"),
        "AMX int8": ("amx_int8", "int8 matrix tiles"),
    },
    "aarch64": {
        "NEON": ("asimd", "float32 and int8 kernels"),
        "fp16": ("asimdhp", "float16 arithmetic"),
        "dotprod": ("asimddp", "the fast path of int8 (Cortex-A75 and later; not on a Raspberry Pi 4)"),
        "i8mm": ("i8mm", "int8 matrix products"),
        "SVE": ("sve", "scalable vectors"),
    },
}
TOOLS = {
    "ssh": ("boards by ssh", "sudo apt-get install openssh-client"),
    "adb": ("Android phones", "sudo apt-get install adb (or Android SDK platform-tools)"),
}


@dataclass(frozen=True, kw_only=True)
class Check:
    """One line of `edgekit doctor`: what was looked for, what was found (None: missing), and how to get it."""

    group: str
    name: str
    found: str | None
    purpose: str
    fix: str = ""


def run_checks() -> list[Check]:
    """Look at everything that edgekit can use here; imports no framework and starts no process."""
    return [*_libraries(), *_cpu(), *_tools()]


def _libraries() -> list[Check]:
    checks = [Check(group="python", name="python", found=platform.python_version(), purpose=sys.platform)]
    for module, (extra, _) in extras.EXTRAS.items():
        found = extras.installed_version(module) or ("installed" if extras.is_installed(module) else None)
        fix = "" if found else f"pip install 'edgekit-toolkit[{extra}]'"
        checks.append(Check(group="library", name=module, found=found, purpose=f"extra [{extra}]", fix=fix))
    return checks


def _cpu() -> list[Check]:
    machine = {"arm64": "aarch64", "amd64": "x86_64"}.get(platform.machine().lower(), platform.machine())
    flags = cpu_flags()
    checks = [Check(group="cpu", name="cores", found=str(os.cpu_count()), purpose=machine)]
    for name, (flag, purpose) in CPU_FEATURES.get(machine, {}).items():
        found = "yes" if flag in flags else None
        fix = "" if found else "this processor has none (or its system does not report it)"
        checks.append(Check(group="cpu", name=name, found=found, purpose=purpose, fix=fix))
    return checks


def cpu_flags() -> frozenset[str]:
    """The processor's feature flags as Linux reports them; empty where there is no /proc/cpuinfo."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return frozenset()
    values = (line.partition(":")[2] for line in lines if line.partition(":")[0].strip() in ("flags", "Features"))
    return frozenset(next(values, "").split())


def _tools() -> list[Check]:
    return [
        Check(group="tool", name=name, found=shutil.which(name), purpose=purpose, fix="" if shutil.which(name) else fix)
        for name, (purpose, fix) in TOOLS.items()
    ]

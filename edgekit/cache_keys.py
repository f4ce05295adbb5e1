"""Keys of the cache: a hash over what a result is made from, and over all that makes it here.

That is edgekit's own code, every installed distribution (a library that another one loads decides results too), Python,
and the processor: sums are rounded by its kernels.
"""

import hashlib
import importlib.util
import json
import os
import platform
import sys
from functools import cache
from pathlib import Path
from typing import Any

from edgekit.host import cpu_flags

#: packages whose code has a part in results, and those of their parts that have none
_PACKAGES = ("edgekit", "edgekit.export", "edgekit.devices.runner")
_WITHOUT = {"assets", "cli", "report"}
_SUFFIXES = {".py", ".json", ".md", ".jinja"}


def cache_key(kind: str, **made_from: Any) -> str:
    """The key of a result of this kind; `made_from` is JSON, with the sha256 of every file that is read."""
    parts = {"kind": kind, "from": made_from, "code": code_sha256(), "here": environment_sha256()}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@cache
def code_sha256() -> str:
    """The sha256 of edgekit's own code, without what only shows."""
    digest = hashlib.sha256()
    for package in _PACKAGES:
        spec = importlib.util.find_spec(package)
        for folder in spec.submodule_search_locations or () if spec else ():
            for file in _code_files(Path(folder)):
                digest.update(f"{package} {file.relative_to(folder)} ".encode())
                digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _code_files(folder: Path) -> list[Path]:
    """The files of a package; packages of `_PACKAGES` that are inside another are met twice, which does no harm."""
    found: list[Path] = []
    for path, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in _WITHOUT and name != "__pycache__"]
        found += (Path(path, name) for name in names if Path(name).suffix in _SUFFIXES)
    return sorted(found)


@cache
def environment_sha256() -> str:
    """The sha256 of what else decides results here: installed distributions, Python, system and processor."""
    folders = [folder for folder in sys.path if folder.endswith("-packages") and Path(folder).is_dir()]
    installed = sorted({entry.name for folder in folders for entry in os.scandir(folder) if _is_info(entry)})
    machine = [platform.system(), platform.machine(), _processor(), sorted(cpu_flags())]
    python = [sys.version, os.environ.get("PYTHONPATH", "")]
    return hashlib.sha256(json.dumps([python, machine, installed]).encode()).hexdigest()


def _is_info(entry: os.DirEntry[str]) -> bool:
    """Whether an entry of a folder of packages tells name and version of a distribution."""
    return entry.name.endswith((".dist-info", ".egg-info"))


def _processor() -> str:
    """The processor's name: Linux has it in /proc/cpuinfo alone."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")

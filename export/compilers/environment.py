"""Where the compilers' packages are: in the environments that `edgekit devices setup local` makes."""

import importlib.metadata
from pathlib import Path

from edgekit.environments import environment_python
from edgekit.errors import DeviceError


def compiler_python(runtime: str, needed_for: str) -> Path:
    """The interpreter of a runtime's environment; raises DeviceError, which names the command, without one."""
    python = environment_python(runtime)
    if python is None:
        command = f"edgekit devices setup local --runtime {runtime}"
        raise DeviceError(f"{needed_for} needs {runtime}, which is not set up here: {command}", address="local")
    return python


def environment_packages(runtime: str, needed_for: str) -> Path:
    """The folder of packages of a runtime's environment; raises as `compiler_python`."""
    root = compiler_python(runtime, needed_for).parent.parent
    return next(iter(sorted(root.glob("lib/python*/site-packages"))), root / "packages")


def package_version(packages: Path, name: str) -> str:
    """The version of a distribution in a folder of packages."""
    found = importlib.metadata.distributions(name=name, path=[str(packages)])
    return next((each.version for each in found), "unknown")

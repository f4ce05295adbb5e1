"""Environments of their own on this machine, for packages that can't live beside onnxruntime.

Each provider package installs a runtime of its own, into the folder of onnxruntime or beside it in another version, and
the last one wins silently: each has its own virtual environment, made by `edgekit devices setup local --runtime NAME`.
"""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from edgekit.errors import DeviceError, UnknownNameError
from edgekit.outputs import atomic_directory
from edgekit.processes import CompletedRun, OnLine, run_process

_MARKER = "pyvenv.cfg"
_TIMEOUT_S = 3600.0
_PIP = ("--disable-pip-version-check", "--progress-bar", "off", "--only-binary=:all:")


@dataclass(frozen=True, kw_only=True)
class Provider:
    """A runtime with an accelerator's provider: what pip installs, pinned, and what is imported to see it work."""

    requirements: tuple[str, ...]
    module: str
    package: str


#: runtime → what its environment holds
PROVIDERS: dict[str, Provider] = {
    "onnxruntime-qnn": Provider(
        requirements=("onnxruntime==1.31.1", "onnxruntime-qnn==2.7.0", "numpy==2.4.6"),
        module="onnxruntime_qnn",
        package="onnxruntime-qnn",
    ),
    "onnxruntime-openvino": Provider(
        requirements=("onnxruntime-openvino==1.24.1", "numpy==2.4.6"),
        module="onnxruntime",
        package="onnxruntime-openvino",
    ),
    "onnxruntime-webgpu": Provider(
        requirements=("onnxruntime-webgpu==1.27.0", "numpy==2.4.6"),
        module="onnxruntime",
        package="onnxruntime-webgpu",
    ),
}


def environments_folder() -> Path:
    """Where the environments are: EDGEKIT_ENVIRONMENTS, or a folder in the user's data."""
    given = os.environ.get("EDGEKIT_ENVIRONMENTS")
    return Path(given) if given else Path(platformdirs.user_data_dir("edgekit")) / "environments"


def setup_command(runtime: str) -> str:
    """What to type to get the environment of `runtime`."""
    return f"edgekit devices setup local --runtime {runtime}"


def environment_python(runtime: str, needed_for: str = "this") -> Path:
    """The interpreter of an environment.

    Raises UnknownNameError for a runtime that needs none, DeviceError, which names the command, where it was not made.
    """
    python = _folder(runtime) / "bin" / "python"
    if not python.exists():
        raise DeviceError(f"{needed_for} needs {runtime}, which is not set up here: {setup_command(runtime)}")
    return python


def has_environment(runtime: str) -> bool:
    """Whether the environment of `runtime` was made here."""
    return (_folder(runtime) / "bin" / "python").exists()


def site_packages(runtime: str, needed_for: str = "this") -> Path:
    """The folder of packages of an environment; raises as `environment_python`."""
    root = environment_python(runtime, needed_for).parent.parent
    return next(root.glob("lib/python*/site-packages"))


def make_environment(runtime: str, on_progress: Callable[[str], None] = lambda text: None) -> dict[str, str]:
    """Make the environment of `runtime` anew, and put it in place once it works; return the versions that it holds.

    Raises UnknownNameError, OutputError where the folder can't be written, DeviceError where pip or the import fails.
    """
    folder = _folder(runtime)
    provider = PROVIDERS[runtime]
    with atomic_directory(folder, force=True, marker=_MARKER) as new:
        _checked(runtime, run_process([sys.executable, "-m", "venv", str(new)], timeout_s=_TIMEOUT_S))
        on_progress(f"installing {', '.join(provider.requirements)}")
        python = str(new / "bin" / "python")
        install = [python, "-m", "pip", "install", *_PIP, *provider.requirements]
        _checked(runtime, run_process(install, timeout_s=_TIMEOUT_S, on_line=_last_of(on_progress)))
        names = ("numpy", provider.package)
        program = f"import importlib.metadata as m, {provider.module}; [print(m.version(n)) for n in {names!r}]"
        run = _checked(runtime, run_process([python, "-c", program], timeout_s=_TIMEOUT_S))
    return dict(zip(names, run.stdout.split(), strict=True))


def _folder(runtime: str) -> Path:
    if runtime not in PROVIDERS:
        raise UnknownNameError("runtime with an environment of its own", runtime, PROVIDERS)
    return environments_folder() / runtime


def _last_of(on_progress: Callable[[str], None]) -> OnLine:
    def say(line: str) -> None:
        if line.startswith(("Downloading", "Installing")):
            on_progress(line[:100])

    return say


def _checked(runtime: str, run: CompletedRun) -> CompletedRun:
    if run.returncode == 0:
        return run
    lines = [line.strip() for line in run.stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")]
    why = (errors or lines or [f"exit code {run.returncode}"])[-1]
    raise DeviceError(f"{runtime} could not be set up here: {why}", stdout=run.stdout, stderr=run.stderr)

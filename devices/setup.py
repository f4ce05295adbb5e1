"""Prepares a board: an environment of its own with numpy and one runtime. No root, nothing else installed.

Runtimes of `environments.SEPARATE` get one each, on this machine as well.
"""

import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.devices.device import Device
from edgekit.devices.setup_scripts import CHECK, EXCHANGE, MAKE, PROBE, SAID
from edgekit.environments import SEPARATE, environment_folder
from edgekit.errors import DeviceError, RefusedError, UnknownNameError
from edgekit.processes import CompletedRun, OnLine, run_process

#: runtime → (what pip installs, what is imported to see that it works)
RUNTIMES: dict[str, tuple[tuple[str, ...], str]] = {
    "litert": (("ai-edge-litert", "numpy"), "ai_edge_litert.interpreter"),
    # 2.14, the last of its name, was built against numpy 1 and can't be imported beside numpy 2
    "tflite-runtime": (("tflite-runtime", "numpy<2"), "tflite_runtime.interpreter"),
    "onnxruntime": (("onnxruntime", "numpy"), "onnxruntime"),
    # pinned: how each tells of what it took was read from these versions
    # onnx and litert: contexts compiled into TFLite files are taken out and run there as well
    "onnxruntime-qnn": (
        ("onnxruntime-qnn==2.7.0", "onnxruntime==1.31.1", "onnx==1.23.2", "ai-edge-litert==2.3.0", "numpy"),
        "onnxruntime_qnn",
    ),
    "onnxruntime-webgpu": (("onnxruntime-webgpu==1.27.0", "numpy"), "onnxruntime"),
    "onnxruntime-openvino": (("onnxruntime-openvino==1.24.1", "numpy"), "onnxruntime"),
    "litert-openvino": (("ai-edge-litert==2.3.0", "openvino==2026.3.1", "numpy"), "openvino"),
}
_PIP_TIMEOUT_S = 3600.0
_PIP = ("--disable-pip-version-check", "--no-cache-dir", "--progress-bar", "off", "--retries", "2", "--timeout", "20")


@dataclass(frozen=True, kw_only=True)
class Board:
    """What matters of a board for choosing wheels: `version` of its Python, `libc` as in "glibc 2.36"."""

    python: str
    version: tuple[int, int]
    machine: str
    libc: str
    home: str
    modules: tuple[str, ...]

    @property
    def version_text(self) -> str:
        """The version of its Python as people write it."""
        return ".".join(map(str, self.version))

    @property
    def platforms(self) -> list[str]:
        """pip's names for the platforms whose wheels run there, the newest first.

        Raises DeviceError for one without glibc: no runtime has wheels for it.
        """
        name, _, number = self.libc.partition(" ")
        minor = number.partition(".")[2].partition(".")[0]
        if name != "glibc" or not minor.isdigit():
            raise DeviceError("no wheels can be chosen for a system without glibc: set the board up by hand")
        tags = [f"manylinux_2_{version}_{self.machine}" for version in range(int(minor), 16, -1)]
        return [*tags, f"manylinux2014_{self.machine}"]


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What was set up: the interpreter's path there, the runtime and the versions of what was imported from it."""

    python: str
    runtime: str
    versions: dict[str, str]


def set_up(
    device: Device,
    *,
    runtime: str | None = None,
    offline: bool = False,
    wheels: Path | None = None,
    on_progress: Callable[[str], None] = lambda text: None,
) -> Prepared:
    """Make a runtime's environment on an entered device; what was there before is replaced once the new one works.

    `offline`: wheels are fetched on this machine for the board's platform and copied; `wheels` is a folder of such.
    Without `runtime`, litert, or tflite-runtime where litert has no wheel for the board.

    Raises DeviceError, UnknownNameError for a runtime that is none, RefusedError for this machine itself.
    """
    if runtime is not None and runtime not in RUNTIMES:
        raise UnknownNameError("runtime", runtime, RUNTIMES)
    if device.address == "local" and runtime not in SEPARATE:
        raise RefusedError(
            "this machine is no board to set up: pip install 'edgekit-toolkit[devices]' here; with --runtime, "
            f"{', '.join(SEPARATE)} get an environment of their own"
        )
    board = _probe(device)
    on_progress(f"Python {board.version_text} on {board.machine}, {board.libc or 'no glibc'}")
    environment = _Environment(device, board, on_progress, environment_folder(runtime or "litert"))
    environment.make()
    names = [runtime] if runtime else ["litert", "tflite-runtime"]
    for name in names:
        requirements = RUNTIMES[name][0]
        on_progress(f"installing {', '.join(requirements)}")
        run = environment.bring(requirements, wheels) if offline or wheels else environment.fetch(requirements)
        if run.returncode == 0:
            return environment.finish(name)
        if not _has_no_wheel(run):
            raise _explain(run, device.address, offline=offline or wheels is not None)
        on_progress(f"no wheel for this board: {_last(run)}")
    wanted = f"{' or '.join(names)} for Python {board.version_text} on {board.machine} ({board.libc})"
    raise DeviceError(f"{device.address}: there is no wheel of {wanted}: {_last(run)}", address=device.address)


def _probe(device: Device) -> Board:
    python = sys.executable if device.address == "local" else "python3"  # whose version the wheels are chosen for
    run = device.run([python, "-c", PROBE], timeout_s=120)
    if run.returncode in (126, 127):
        raise DeviceError(
            f"{device.address} has no python3: install it there (on a phone, bench needs benchmark_model instead)",
            address=device.address,
            state="no python",
        )
    answer = _said(run, f"python3 of {device.address} does not work")
    board = Board(**{**answer, "version": tuple(answer["version"]), "modules": tuple(answer["modules"])})
    if board.version < (3, 9):
        message = f"{device.address} has Python {board.version_text}: the runner needs 3.9"
        raise DeviceError(message, address=device.address)
    return board


class _Environment:
    """The environment while it is made, beside the one that is in use."""

    def __init__(self, device: Device, board: Board, on_progress: OnLine, folder: str) -> None:
        self._device, self._board, self._on_progress = device, board, on_progress
        self._root = f"{board.home}/{folder}"
        self._new = f"{self._root}.new"
        self._packages = ""

    def make(self) -> None:
        """A virtual environment without pip; without the venv module, a folder of packages and a script."""
        run = self._run([self._board.python, "-c", MAKE, self._new])
        self._packages = _said(run, f"{self._device.address}: can't make {self._new}")

    def fetch(self, requirements: Sequence[str]) -> CompletedRun:
        """Install on the board, from its package index, with the pip that it has."""
        pip = [self._board.python, "-m", "pip"]
        if "pip" not in self._board.modules:
            pip = [f"{self._new}/bin/python", "-m", "pip"]
            if self._run([*pip[:-1], "ensurepip"]).returncode != 0:
                message = f"{self._device.address} has no pip: use --offline (wheels are fetched here and copied)"
                raise DeviceError(message, address=self._device.address)
        command = [
            *pip,
            "install",
            *_PIP,
            "--only-binary=:all:",
            "--upgrade",
            "--target",
            self._packages,
            *requirements,
        ]
        return self._run(command)

    def bring(self, requirements: Sequence[str], wheels: Path | None) -> CompletedRun:
        """Install on this machine, for the board's platform, and copy the result."""
        with tempfile.TemporaryDirectory(prefix="edgekit-wheels-") as folder:
            run = self._install_here(requirements, wheels, Path(folder, "packages"))
            if run.returncode != 0:
                return run
            self._on_progress("copying")
            archive = Path(shutil.make_archive(f"{folder}/packages", "zip", f"{folder}/packages"))
            there = self._device.push(archive, "packages.zip")
            return self._run([self._board.python, "-m", "zipfile", "-e", there, self._packages])

    def _install_here(self, requirements: Sequence[str], wheels: Path | None, target: Path) -> CompletedRun:
        major, minor = self._board.version
        source = ["--no-index", "--find-links", str(wheels.absolute())] if wheels else []
        platforms = [f"--platform={platform}" for platform in self._board.platforms]
        python = [f"--python-version={major}.{minor}", "--implementation=cp", f"--abi=cp{major}{minor}"]
        command = [sys.executable, "-m", "pip", "install", *_PIP, "--only-binary=:all:", *source, *platforms, *python]
        return run_process([*command, "--target", str(target), *requirements], timeout_s=_PIP_TIMEOUT_S)

    def finish(self, runtime: str) -> Prepared:
        """See that it works, then put it in the place of the old one."""
        run = self._run([f"{self._new}/bin/python", "-c", CHECK, RUNTIMES[runtime][1], runtime])
        versions = _said(run, f"{runtime} was installed on {self._device.address} but can't be imported there")
        run = self._run([self._board.python, "-c", EXCHANGE, self._new, self._root])
        _said(run, f"{self._device.address}: can't put {self._new} in place")
        return Prepared(python=f"{self._root}/bin/python", runtime=runtime, versions=versions)

    def _run(self, argv: Sequence[str]) -> CompletedRun:
        return self._device.run(argv, timeout_s=_PIP_TIMEOUT_S)


def _said(run: CompletedRun, failure: str) -> Any:
    """What a program of setup_scripts answered; raises DeviceError where it did not."""
    for line in run.stdout.splitlines():
        if run.returncode == 0 and line.startswith(SAID):
            return json.loads(line.removeprefix(SAID))
    ended = f"it died of signal {-run.returncode}" if run.returncode < 0 else _last(run)
    raise DeviceError(f"{failure}: {ended}", stdout=run.stdout, stderr=run.stderr, returncode=run.returncode)


def _has_no_wheel(run: CompletedRun) -> bool:
    return "No matching distribution found" in run.stderr and not _is_cut_off(run)


def _is_cut_off(run: CompletedRun) -> bool:
    signs = (
        "Failed to establish a new connection",
        "name resolution",
        "Network is unreachable",
        "timed out",
        "ProxyError",
    )
    return any(sign in run.stdout + run.stderr for sign in signs)


def _explain(run: CompletedRun, address: str, *, offline: bool) -> DeviceError:
    where = "here" if offline else "there"
    if "No space left on device" in run.stderr:
        advice = "its disk is full: make room there"
    elif _is_cut_off(run):
        advice = "no package index can be reached " + (
            "from here: --wheels FOLDER takes wheels that you have" if offline else "from it: use --offline"
        )
    elif "No module named pip" in run.stderr:
        advice = f"there is no pip {where}: python -m ensurepip"
    else:
        advice = f"pip failed {where}: {_last(run)}"
    return DeviceError(f"{address}: {advice}", address=address, stdout=run.stdout, stderr=run.stderr)


def _last(run: CompletedRun) -> str:
    lines = [line.strip() for line in run.stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")]
    return (errors or lines or [f"exit code {run.returncode}"])[-1]

"""Preparing a board: a real sshd, a real pip, and wheels that are small; the real ones come in test_arm_board.py."""

import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from edgekit.devices.fake import FakeDevice
from edgekit.devices.registry import open_device
from edgekit.devices.setup import Board, set_up
from edgekit.environments import environment_python
from edgekit.errors import DeviceError, RefusedError, UnknownNameError
from tests.rigs.adb_phone import AdbPhone
from tests.rigs.ssh_board import SshBoard

TAG = "cp311-cp311-manylinux_2_17_x86_64"


def write_wheel(folder: Path, package: str, version: str, files: dict[str, str]) -> Path:
    """A wheel that only this board's Python takes."""
    name = package.replace("-", "_")
    info = f"{name}-{version}.dist-info"
    path = folder / f"{name}-{version}-{TAG}.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for file, text in files.items():
            wheel.writestr(file, text)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
        wheel.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: {TAG}\n")
        wheel.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    folder = tmp_path / "wheels"
    folder.mkdir()
    write_wheel(folder, "numpy", "1.26.9", {"numpy/__init__.py": "__version__ = '1.26.9'"})
    files = {"tflite_runtime/__init__.py": "__version__ = '2.14.0'", "tflite_runtime/interpreter.py": ""}
    write_wheel(folder, "tflite-runtime", "2.14.0", files)
    return folder


@pytest.fixture
def board(ssh_board: SshBoard) -> Iterator[SshBoard]:
    """A board without an environment, before and after."""
    yield ssh_board
    ssh_board.machine.run("--pid", "--mount", "rm", "-rf", "/mnt/home/.edgekit", "/mnt/home/.config")


def home(board: SshBoard) -> list[str]:
    return sorted(path.name for path in board.machine.path("/mnt/home").iterdir())


def test_wheels_of_this_machine_and_the_runtime_that_has_one(board: SshBoard, wheels: Path) -> None:
    said: list[str] = []
    before = home(board)
    with open_device(board.bare) as device:
        assert device.facts().runtimes == {}
        prepared = set_up(device, wheels=wheels, on_progress=said.append)
    assert prepared.runtime == "tflite-runtime"
    assert prepared.versions == {"numpy": "1.26.9", "tflite-runtime": "2.14.0"}
    assert any("no wheel for this board" in text and "ai-edge-litert" in text for text in said)
    with open_device(board.bare) as device:
        facts = device.facts()
        assert facts.python == prepared.python == "/mnt/home/.edgekit/env/bin/python"
        assert facts.runtimes == {"tflite-runtime": "2.14.0"}
        run = device.run([prepared.python, "-c", "import sys; print(sys.prefix != sys.base_prefix)"], timeout_s=60)
        assert run.stdout == "True\n"  # a virtual environment
    assert home(board) == sorted([*before, ".edgekit"])  # nothing else
    assert [path.name for path in board.machine.path("/mnt/home/.edgekit").iterdir()] == ["env"]


def test_one_that_does_not_work_leaves_the_old_one(board: SshBoard, wheels: Path) -> None:
    used = board.machine.path("/mnt/home/.edgekit/env/bin/python")
    used.parent.mkdir(parents=True)
    used.write_text("in use")
    board.machine.run("--pid", "--mount", "chown", "-R", "2001", "/mnt/home/.edgekit")
    broken = "import os, signal; os.kill(os.getpid(), signal.SIGILL)"
    write_wheel(wheels, "onnxruntime", "1.0", {"onnxruntime/__init__.py": broken})
    with open_device(board.bare) as device, pytest.raises(DeviceError, match="imported there: it died of signal 4"):
        set_up(device, wheels=wheels, runtime="onnxruntime")
    assert used.read_text() == "in use"


def test_no_wheel_for_the_board(board: SshBoard, wheels: Path) -> None:
    with (
        open_device(board.bare) as device,
        pytest.raises(DeviceError, match="there is no wheel of onnxruntime for Python"),
    ):
        set_up(device, wheels=wheels, runtime="onnxruntime")


def test_no_package_index_in_reach_of_the_board(board: SshBoard) -> None:
    with open_device(board.bare) as device, pytest.raises(DeviceError, match="can be reached from it: use --offline"):
        set_up(device)


@pytest.mark.slow
def test_the_boards_own_pip_and_index(board: SshBoard, wheels: Path) -> None:
    for wheel in wheels.iterdir():
        package = wheel.name.partition("-")[0].replace("_", "-")
        (wheels / package).mkdir()
        wheel.rename(wheels / package / wheel.name)
    server = ThreadingHTTPServer((board.machine.gateway, 0), partial(SimpleHTTPRequestHandler, directory=str(wheels)))
    Thread(target=server.serve_forever, daemon=True).start()
    config = board.machine.path("/mnt/home/.config/pip")
    config.mkdir(parents=True)
    index = f"http://{board.machine.gateway}:{server.server_port}/"
    (config / "pip.conf").write_text(f"[global]\nindex-url = {index}\ntrusted-host = {board.machine.gateway}\n")
    try:
        with open_device(board.bare) as device:
            prepared = set_up(device, runtime="tflite-runtime")
    finally:
        server.shutdown()
        server.server_close()
    assert prepared.versions == {"numpy": "1.26.9", "tflite-runtime": "2.14.0"}
    with open_device(board.bare) as device:
        assert device.facts().runtimes == {"tflite-runtime": "2.14.0"}


@pytest.mark.slow
def test_a_python_without_venv(board: SshBoard, wheels: Path) -> None:
    """As Debian without python3-venv's parts: a folder of packages and a script."""
    hidden = board.machine.path("/mnt/no-venv/venv.py")
    hidden.parent.mkdir()
    hidden.write_text("raise ImportError")
    profile = board.machine.path("/mnt/home/.bashrc")
    profile.write_text("export PYTHONPATH=/mnt/no-venv\n")
    try:
        with open_device(board.bare) as device:
            prepared = set_up(device, wheels=wheels, runtime="tflite-runtime")
    finally:
        profile.unlink()
        hidden.unlink()
        hidden.parent.rmdir()
    assert board.machine.path("/mnt/home/.edgekit/env/packages/numpy").is_dir()
    with open_device(board.bare) as device:
        assert device.facts().python == prepared.python
        assert device.facts().runtimes == {"tflite-runtime": "2.14.0"}
        run = device.run([prepared.python, "-c", "import sys; print(sys.argv[1:])", "a b", "$x"], timeout_s=60)
        assert run.stdout == "['a b', '$x']\n"


def test_a_full_disk(board: SshBoard, wheels: Path) -> None:
    write_wheel(wheels, "onnxruntime", "1.0", {"onnxruntime/big": "".join(map(str, range(400_000)))})
    with open_device(board.small) as device, pytest.raises(DeviceError, match="its disk is full"):
        set_up(device, wheels=wheels, runtime="onnxruntime")


def test_a_phone_without_python(adb_phone: AdbPhone) -> None:
    with open_device(adb_phone.address) as device, pytest.raises(DeviceError, match=r"has no python3.*benchmark_model"):
        set_up(device)


def test_what_is_refused() -> None:
    with open_device("local") as device, pytest.raises(RefusedError, match=r"edgekit-toolkit\[devices\]"):
        set_up(device)
    with FakeDevice() as device, pytest.raises(UnknownNameError, match="did you mean litert"):
        set_up(device, runtime="litter")


def test_an_old_python_is_named() -> None:
    said = (
        'edgekit-said:{"python": "/usr/bin/python3", "version": [3, 7], "machine": "armv7l", "libc": "glibc 2.28", '
        '"home": "/home/pi", "modules": []}\n'
    )
    with (
        FakeDevice(answers={("python3",): said}) as device,
        pytest.raises(DeviceError, match=r"has Python 3\.7: the runner needs 3\.9"),
    ):
        set_up(device)


def test_platforms_of_a_board() -> None:
    board = Board(python="p", version=(3, 11), machine="aarch64", libc="glibc 2.31", home="/home/pi", modules=())
    assert board.platforms[0] == "manylinux_2_31_aarch64"
    assert board.platforms[-2:] == ["manylinux_2_17_aarch64", "manylinux2014_aarch64"]
    with pytest.raises(DeviceError, match="without glibc"):
        Board(python="p", version=(3, 11), machine="aarch64", libc="", home="/", modules=()).platforms  # noqa: B018


def test_an_environment_of_its_own_on_this_machine(
    tmp_path: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Provider packages overwrite each other in one folder: each gets its own, and facts tell where."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    write_wheel(wheels, "onnxruntime-webgpu", "1.27.0", {"onnxruntime/__init__.py": "__version__ = '1.27.0'"})
    with open_device("local") as device:
        prepared = set_up(device, runtime="onnxruntime-webgpu", wheels=wheels)
    python = tmp_path / "home" / ".edgekit" / "env-onnxruntime-webgpu" / "bin" / "python"
    assert prepared.python == str(python)
    assert prepared.versions == {"numpy": "1.26.9", "onnxruntime-webgpu": "1.27.0"}
    assert environment_python("onnxruntime-webgpu") == python
    assert environment_python("onnxruntime-qnn") is None
    with open_device("local") as device:
        facts = device.facts()
    assert facts.environments == {"onnxruntime-webgpu": str(python)}
    assert facts.python != str(python)

"""Measuring on a board with the real sshd and on a phone with the real adbd, and what goes wrong on the way."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekit.bundle import Bundle
from edgekit.devices.benchmark_model import open_benchmark_tool
from edgekit.devices.measure import Interrupted, measure_bundle
from edgekit.devices.registry import open_device
from edgekit.errors import DeviceLostError, RefusedError
from edgekit.measurement import Measurement, Settings
from tests.devices.benchmark_tool import write_tool
from tests.devices.bundles import STEPS, write_bundle
from tests.rigs.adb_phone import AdbPhone
from tests.rigs.machine import PYTHON, wait_for
from tests.rigs.ssh_board import SshBoard

QUICK = Settings(num_runs=60, min_secs=0, max_secs=20, cold_starts=1)
LONG = Settings(num_runs=10**9, min_secs=0, max_secs=30, cold_starts=0)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    folder = tmp_path_factory.mktemp("bundles")
    return {target: write_bundle(folder, target) for target in ("tflite", "onnx")}


def measure_until(board: SshBoard, bundle: Bundle, fault: Callable[[], None]) -> Measurement:
    """Measure on, and let something happen once samples have come."""
    happened = threading.Event()

    def on_progress(said: str) -> None:
        if said.startswith("measuring") and not happened.is_set():
            happened.set()
            fault()

    with open_device(board.name) as device:
        return measure_bundle(device, bundle, settings=LONG, on_progress=on_progress)


@pytest.mark.parametrize("target", ["tflite", "onnx"])
def test_a_board_by_ssh(target: str, ssh_board: SshBoard, bundles: dict[str, Bundle]) -> None:
    with open_device(ssh_board.name) as device:
        found = measure_bundle(device, bundles[target], settings=QUICK.model_copy(update={"op_profile": True}))
        again = measure_bundle(device, bundles[target], settings=QUICK)
    assert found.parity.verdict == "within-tolerance"
    assert found.parity.steps == STEPS
    assert found.verdict in ("valid", "noisy")
    assert len(found.samples.latency_ms) == 60
    assert 0 < found.samples.load_ms[0] < found.samples.cold_start_ms[0]
    assert (found.samples.peak_memory_bytes or 0) > (found.samples.baseline_memory_bytes or 0) > 0
    assert len(found.operators) >= 3
    assert found.before.load_1min is not None
    assert found.device.address == ssh_board.address
    assert found.fingerprint == again.fingerprint


def test_a_runtime_that_is_killed_on_the_board(ssh_board: SshBoard, bundles: dict[str, Bundle]) -> None:
    found = measure_until(ssh_board, bundles["tflite"], lambda: ssh_board.machine.kill("base/bin/python3"))
    assert found.fault == "model.tflite could not be run: the runtime died of signal 9 (SIGKILL)"
    assert found.samples.latency_ms
    assert found.parity.verdict == "within-tolerance"
    assert found.verdict == "unproven"


@pytest.mark.slow  # until both ends have noticed
def test_a_link_that_drops_while_measuring(ssh_board: SshBoard, bundles: dict[str, Bundle]) -> None:
    kept: list[Measurement] = []

    def run() -> None:
        kept.append(measure_until(ssh_board, bundles["tflite"], ssh_board.machine.link_down))

    with pytest.raises(DeviceLostError):  # leaving the device tells that its folder could not be removed
        run()
    ssh_board.machine.link_up()
    wait_for(lambda: not ssh_board.left_behind(), "the board's own tidying up", timeout_s=60)


def test_ctrl_c_leaves_nothing_on_the_board(ssh_board: SshBoard, bundles: dict[str, Bundle]) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(Interrupted) as raised:
        measure_until(ssh_board, bundles["tflite"], interrupt)
    assert raised.value.measurements[0].samples.latency_ms
    assert not [line for line in ssh_board.machine.processes() if "start.py" in line]


def test_a_board_without_a_runtime(ssh_board: SshBoard, bundles: dict[str, Bundle]) -> None:
    with open_device(ssh_board.bare) as device, pytest.raises(RefusedError, match="devices setup"):
        measure_bundle(device, bundles["tflite"])


def test_a_phone_by_adb(adb_phone: AdbPhone, bundles: dict[str, Bundle], tmp_path: Path) -> None:
    """No Python for us there; the stand-in of benchmark_model brings its own."""
    adb_phone.program("getprop", 'case "$1" in ro.build.version.sdk) echo 34;; ro.product.model) echo Pixel;; esac')
    adb_phone.program(
        "dumpsys", 'case "$1" in battery) printf "  USB powered: true\\n  level: 80\\n  scale: 100\\n";; esac'
    )
    tool = write_tool(tmp_path / "benchmark_model")
    tool.write_text(tool.read_text().replace(tool.read_text().splitlines()[0], f"#!{PYTHON}", 1))
    with open_device(adb_phone.address) as device:
        found = measure_bundle(device, bundles["tflite"], benchmark_tool=open_benchmark_tool(tool))
        with pytest.raises(RefusedError, match=r"onnx files can't be run on adb:.*no Python"):
            measure_bundle(device, bundles["onnx"], benchmark_tool=open_benchmark_tool(tool))
        with pytest.raises(RefusedError, match="--benchmark-model"):
            measure_bundle(device, bundles["tflite"])
    assert found.runtime == "benchmark_model"
    assert len(found.samples.latency_ms) == 10
    assert found.parity.verdict == "within-tolerance"
    assert (found.before.charging, found.before.battery_percent) == (True, 80)

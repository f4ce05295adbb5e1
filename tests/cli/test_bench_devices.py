"""`edgekit bench` on an emulated aarch64 board and on a phone by adb: tables whose numbers come from raw samples."""

from pathlib import Path
from statistics import median

import pytest

from edgekit.results import Results
from tests.cli.conftest import Edgekit
from tests.devices.benchmark_tool import write_tool
from tests.devices.bundles import write_bundle
from tests.devices.test_measure_remote import PYTHON
from tests.rigs.adb_phone import AdbPhone
from tests.rigs.arm_board import ArmBoard

QUICK = ("--num-runs", "5", "--min-secs", "0.1", "--cold-starts", "1")


@pytest.mark.slow
def test_an_arm_board_with_all_three_runtimes(edgekit: Edgekit, arm_board: ArmBoard, tmp_path: Path) -> None:
    for target in ("tflite", "onnx"):
        write_bundle(tmp_path / "bundles", target)
    here = edgekit("bench", "--device", arm_board.name, *QUICK, "--json")
    old = edgekit("bench", "bundles/divide.tflite-none.edgekit", "--device", arm_board.old, *QUICK, "--json")
    assert (here.code, old.code) == (0, 0), here.err + old.err
    made = [outcome["measurement"] for shown in (here, old) for outcome in shown.json()["outcomes"]]
    assert {each["runtime"] for each in made} == {"litert", "onnxruntime", "tflite-runtime"}
    for each in made:
        assert each["device"]["machine"] == "aarch64"
        assert each["parity"]["verdict"] == "within-tolerance"
        assert len(each["samples"]["latency_ms"]) >= 5
        assert len(each["samples"]["cold_start_ms"]) == 1


def test_a_phone_by_adb_and_the_table_of_its_samples(edgekit: Edgekit, adb_phone: AdbPhone, tmp_path: Path) -> None:
    write_bundle(tmp_path / "bundles", "tflite")
    tool = write_tool(tmp_path / "benchmark_model")
    tool.write_text(tool.read_text().replace(tool.read_text().splitlines()[0], f"#!{PYTHON}", 1))
    shown = edgekit("bench", "--device", adb_phone.address, "--benchmark-model", tool, *QUICK)
    assert shown.code == 0, shown.err
    assert "divide.tflite-none" in shown.out
    with Results(tmp_path / "results.sqlite") as results:
        (run,) = results.find()
    samples = run.measurement.samples.latency_ms
    assert len(samples) == 10
    assert f"{median(samples):.3g}"[:4] in shown.out
    assert edgekit("runs", "show", run.measurement.id, "--json").json()["samples"]["latency_ms"] == list(samples)

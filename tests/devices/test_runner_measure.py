"""The runner's measuring, as a process of its own, in real runtimes."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.bundle import Bundle
from edgekit.devices.operators import read_profile
from edgekit.devices.runner.energy import Energy
from edgekit.devices.runner.sensors import temperature
from tests.devices.bundles import STEPS, write_bundle
from tests.devices.models import write_tflite

START = Path(__file__).parents[2] / "devices" / "runner" / "start.py"
RUNTIMES = {"litert": "tflite", "litert-compiled": "tflite", "onnxruntime": "onnx"}
QUICK = {"num_runs": 40, "min_secs": 0, "max_secs": 20}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    folder = tmp_path_factory.mktemp("bundles")
    return {target: write_bundle(folder, target) for target in ("tflite", "onnx")}


def run(bundle: Bundle, folder: Path, runtime: str, operation: str, *argv: str, **fields: Any) -> list[dict[str, Any]]:
    """The events of one run that ended well."""
    code, events, errors = start(bundle, folder, runtime, operation, *argv, **fields)
    assert code == 0, (events, errors)
    return events


def start(
    bundle: Bundle, folder: Path, runtime: str, operation: str, *argv: str, **fields: Any
) -> tuple[int, list[dict[str, Any]], str]:
    paths = {"model": str(bundle.model_path), "steps": str(bundle.golden_path)}
    return start_job(folder, *argv, runtime=runtime, operation=operation, **paths, **fields)


def start_job(folder: Path, *argv: str, **fields: Any) -> tuple[int, list[dict[str, Any]], str]:
    (folder / "job.json").write_text(json.dumps({"schema": 1, "outputs": str(folder / "outputs.npz"), **fields}))
    command = [sys.executable, str(START), str(folder / "job.json"), *argv]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def of(events: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [event for event in events if event["event"] == name]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_it_proves_then_warms_up_then_measures(runtime: str, bundles: dict[str, Bundle], tmp_path: Path) -> None:
    events = run(bundles[RUNTIMES[runtime]], tmp_path, runtime, "measure", **QUICK)
    order = list(dict.fromkeys(event["event"] for event in events))
    assert order == ["loaded", "memory", "assignment", "replayed", "warmup", "samples", "done"]
    assert events[0]["runtime"] == runtime
    memory, warmup, samples = of(events, "memory")[0], of(events, "warmup")[0], of(events, "samples")
    assert 10_000_000 < memory["baseline_bytes"] < memory["peak_bytes"]
    assert len(warmup["ms"]) >= 10
    taken = [value for batch in samples for value in batch["ms"]]
    steps = [step for batch in samples for step in batch["steps"]]
    assert len(taken) == len(steps) == 40
    assert all(0 < value < 1000 for value in taken)
    assert sum(len(batch["transfer_ms"]) for batch in samples) == 40
    assert np.all(np.diff(steps) % STEPS == 1)  # all real texts, in turn
    with np.load(tmp_path / "outputs.npz") as outputs, np.load(bundles["tflite"].golden_path) as golden:
        for key in outputs.files:
            np.testing.assert_allclose(outputs[key], golden[key])
        assert len(outputs.files) == STEPS


def test_a_fixed_length_is_one_step(bundles: dict[str, Bundle], tmp_path: Path) -> None:
    fields = QUICK | {"real_lengths": False, "prove": False, "num_threads": 2}
    events = run(bundles["tflite"], tmp_path, "litert", "measure", **fields)
    assert {step for batch in of(events, "samples") for step in batch["steps"]} == {0}
    assert not of(events, "replayed")
    assert not (tmp_path / "outputs.npz").exists()


@pytest.mark.parametrize("runtime", ["litert", "litert-compiled"])
def test_texts_go_through_the_signature_they_belong_to(runtime: str, tmp_path: Path) -> None:
    """Two lengths in one file; a fixed length is the largest."""
    model = write_tflite(tmp_path / "model.tflite", {"short": (1, 4), "long": (1, 16)})
    arrays = {}
    for number, (name, length) in enumerate((("short", 4), ("long", 16), ("short", 4))):
        arrays[f"{number:05d}/{name}/in/ids"] = np.full((1, length), 6, np.int32) * (number + 1)
        arrays[f"{number:05d}/{name}/in/mask"] = np.full((1, length), 2, np.int32)
    np.savez(tmp_path / "steps.npz", **arrays)
    paths = {"model": str(model), "steps": str(tmp_path / "steps.npz")}
    for real_lengths, expected in ((True, {0, 1, 2}), (False, {1})):
        fields = paths | QUICK | {"real_lengths": real_lengths}
        code, events, errors = start_job(tmp_path, runtime=runtime, operation="measure", **fields)
        assert code == 0, errors
        assert {step for batch in of(events, "samples") for step in batch["steps"]} == expected
        with np.load(tmp_path / "outputs.npz") as outputs:
            shapes = {key: value.shape for key, value in outputs.items()}
            assert shapes["00001/long/out/logits"] == (1, 16)
            np.testing.assert_allclose(outputs["00001/long/out/logits"], 6)
            np.testing.assert_allclose(outputs["00002/short/out/logits"], 9)


def test_at_least_so_many_seconds_and_at_most(bundles: dict[str, Bundle], tmp_path: Path) -> None:
    for fields, low, high in (
        ({"num_runs": 1, "min_secs": 1.2, "max_secs": 20}, 1.15, 5),
        ({"num_runs": 10**9, "min_secs": 0, "max_secs": 0.7}, 0.6, 4),
    ):
        events = run(bundles["tflite"], tmp_path, "litert", "measure", prove=False, **fields)
        batches = of(events, "samples")
        assert len(batches) >= 2  # what came before a fault would be kept
        spent = sum(sum(batch["ms"]) + sum(batch["transfer_ms"]) for batch in batches) / 1e3
        assert 0.2 * low < spent < high


def test_a_sustained_run_is_a_curve(bundles: dict[str, Bundle], tmp_path: Path) -> None:
    events = run(bundles["tflite"], tmp_path, "litert", "measure", sustained_secs=2.2, **QUICK)
    windows = of(events, "window")
    assert len(windows) == 3
    assert [round(window["t_s"]) for window in windows] == [1, 2, 3]
    assert all(window["median_ms"] > 0 for window in windows)


@pytest.mark.parametrize("runtime", ["litert", "onnxruntime"])
def test_a_cold_start_counts_the_whole_process(runtime: str, bundles: dict[str, Bundle], tmp_path: Path) -> None:
    began = time.monotonic()
    events = run(bundles[RUNTIMES[runtime]], tmp_path, runtime, "cold", "--cold")
    outside_ms = 1e3 * (time.monotonic() - began)
    (cold,) = of(events, "cold")
    assert 0 < cold["load_ms"] < cold["start_ms"] < outside_ms
    assert cold["start_ms"] > 20  # an interpreter, numpy and a runtime
    assert cold["first_ms"] > 0


def test_operators_from_the_runtimes_own_profiles(bundles: dict[str, Bundle], tmp_path: Path) -> None:
    (event,) = of(run(bundles["onnx"], tmp_path, "onnxruntime", "profile"), "profile")
    operators = read_profile(event)
    assert sorted(operator.kind for operator in operators) == ["Cast", "Cast", "Div"]
    assert all(operator.ms >= 0 for operator in operators)
    (event,) = of(run(bundles["tflite"], tmp_path, "litert", "profile"), "profile")
    kinds = [operator.kind for operator in read_profile(event)]
    assert len([kind for kind in kinds if kind.upper() == "CAST"]) == 2
    assert any("DIV" in kind.upper() for kind in kinds)


def test_cores_are_pinned_or_refused(bundles: dict[str, Bundle], tmp_path: Path) -> None:
    """Pinned to one core, two threads can't use more than one."""
    core = min(os.sched_getaffinity(0))
    events = run(bundles["tflite"], tmp_path, "litert", "measure", pin_cores=[core], **QUICK)
    assert of(events, "done")
    script = f"import os, sys; sys.path.insert(0, {str(START.parents[1])!r}); from runner.threads import pin; "
    script += f"pin(({core},)); print(os.sched_getaffinity(0))"
    pinned = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert pinned.stdout.strip() == str({core})
    code, events, _ = start(bundles["tflite"], tmp_path, "litert", "measure", pin_cores=[4000])
    assert code == 3
    assert events[-1]["kind"] == "refused"
    assert "no core 4000" in events[-1]["message"]


def test_an_accelerator_that_is_not_offered(bundles: dict[str, Bundle], tmp_path: Path) -> None:
    code, events, _ = start(bundles["tflite"], tmp_path, "litert", "measure", accelerator="coreml")
    assert code == 3
    assert events[-1]["kind"] == "refused"
    assert "coreml is not offered with litert" in events[-1]["message"]


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"operation": "fly"}, "'fly'"),
        ({"num_runs": 0}, "num_runs"),
        ({"max_secs": -1}, "max_secs"),
        ({"min_secs": float("nan")}, "min_secs"),
        ({"pin_cores": ["0"]}, "pin_cores"),
        ({"energy": 1}, "energy"),
    ],
)
def test_a_job_that_is_none(fields: dict[str, Any], word: str, bundles: dict[str, Bundle], tmp_path: Path) -> None:
    operation = fields.pop("operation", "measure")
    code, events, _ = start(bundles["tflite"], tmp_path, "litert", operation, **fields)
    assert code == 2
    assert events[-1]["kind"] == "bad-job"
    assert word in events[-1]["message"]


def tree(root: Path, files: dict[str, str]) -> str:
    """Files of sysfs, as recorded on real machines."""
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content + "\n")
    return str(root)


def test_energy_of_counters_that_wrap(tmp_path: Path) -> None:
    package = tmp_path / "class/powercap/intel-rapl:0"
    files = {"energy_uj": "262143000000", "max_energy_range_uj": "262143328850", "name": "package-0"}
    core = {"class/powercap/intel-rapl:0:0/energy_uj": "5"}
    root = tree(tmp_path, {f"class/powercap/intel-rapl:0/{name}": text for name, text in files.items()} | core)
    energy = Energy(root)
    assert energy.refusal == ""
    energy.start()
    (package / "energy_uj").write_text("1671150\n")  # 2 J later, it has started again
    energy.sample(100)
    assert energy.stop()["method"] == "counters"
    assert energy.stop()["mj_per_inference"] == pytest.approx(20)


def test_energy_of_a_power_sensor_and_of_a_battery(tmp_path: Path) -> None:
    sensor = tree(
        tmp_path / "board", {"class/hwmon/hwmon2/name": "ina219", "class/hwmon/hwmon2/power1_input": "4000000"}
    )
    supply = "class/power_supply/battery"
    cell = {"type": "Battery", "status": "Discharging", "current_now": "-500000", "voltage_now": "4000000"}
    phone = tree(tmp_path / "phone", {f"{supply}/{name}": text for name, text in cell.items()})
    for root, watts, method in ((sensor, 4, "power sensors"), (phone, 2, "battery")):
        energy = Energy(root)
        assert energy.refusal == ""
        energy.start()
        time.sleep(0.05)
        energy.sample(10)
        told = energy.stop()
        assert told["method"] == method
        assert told["mj_per_inference"] == pytest.approx(1e3 * watts * told["seconds"] / 10)


def test_energy_is_refused_with_the_reason(tmp_path: Path) -> None:
    assert "no readable energy counter" in Energy(str(tmp_path)).refusal
    supply = "class/power_supply/battery"
    charging = tree(tmp_path, {f"{supply}/type": "Battery", f"{supply}/status": "Charging"})
    assert "charging" in Energy(charging).refusal
    assert "unplug" in Energy(charging).refusal


def test_the_highest_temperature(tmp_path: Path) -> None:
    assert temperature(str(tmp_path)) is None
    zones = {"class/thermal/thermal_zone0/temp": "48312", "class/thermal/thermal_zone1/temp": "61000"}
    assert temperature(tree(tmp_path, zones)) == 61

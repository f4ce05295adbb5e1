"""Campaigns: two bundles × two devices, devices that vanish, what is kept, and what --resume does."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from edgekit.bundle import Bundle
from edgekit.devices import campaign
from edgekit.devices.campaign import Cell, Outcome, Plan, run_campaign
from edgekit.devices.device import Device
from edgekit.devices.fake import FakeDevice, Faults
from edgekit.devices.local import LocalDevice
from edgekit.devices.measure import Interrupted, measure_bundle
from edgekit.errors import DeviceError, ResultsError
from edgekit.measurement import DeviceFacts, Measurement, Settings
from edgekit.results import Results
from tests.conftest import lacking
from tests.devices.bundles import write_bundle
from tests.measurements import measurement

QUICK = Settings(num_runs=10, min_secs=0, max_secs=20, cold_starts=0)
DEVICES = ("fake:a", "fake:b")


class Told:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self.started: list[list[str]] = []
        self.session = ""

    def on_session(self, session: str) -> None:
        self.session = session

    def on_start(self, cells: Sequence[Cell]) -> None:
        self.started.append([cell.name for cell in cells])

    def on_progress(self, text: str) -> None:
        assert text

    def on_outcome(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)

    def by_cell(self) -> dict[tuple[str, str], Outcome]:
        return {(each.cell.device, each.cell.bundle.manifest.target): each for each in self.outcomes}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Bundle]:
    folder = tmp_path_factory.mktemp("bundles")
    return [write_bundle(folder, target) for target in ("tflite", "onnx")]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "results.sqlite"


def plan(bundles: list[Bundle], devices: Sequence[str] = DEVICES, **changes: Any) -> Plan:
    cells = tuple(Cell(bundle=bundle, device=device) for device in devices for bundle in bundles)
    return Plan(**{"cells": cells, "settings": QUICK} | changes)


@cache
def facts() -> DeviceFacts:
    """This machine's, asked once."""
    with LocalDevice() as here:
        return here.facts()


def opening(faults: dict[str, Faults] | None = None) -> Callable[[str], Device]:
    def open_device(name: str) -> Device:
        told = facts().model_copy(update={"address": name})
        return FakeDevice(
            address=name, facts_told=told, faults=(faults or {}).get(name, Faults()), answers={("grep",): ""}
        )

    return open_device


def run(store: Path, todo: Plan, open_device: Callable[[str], Device], **options: Any) -> Told:
    told = Told()
    with Results(store) as results:
        run_campaign(todo, results, told, open_device=open_device, **options)
    return told


def kept(store: Path) -> list[Measurement]:
    with Results(store) as results:
        return [run.measurement for run in results.find()]


def test_a_device_that_vanishes_loses_only_its_own_and_resume_does_the_rest(bundles: list[Bundle], store: Path) -> None:
    lines = _lines_of_one(bundles[0])
    vanishing = opening({"fake:a": Faults(vanish_after_lines=lines + 2)})
    told = run(store, plan(bundles), vanishing, label="nightly")
    cells = told.by_cell()
    assert cells["fake:a", "tflite"].complete
    assert "vanished in the middle" in cells["fake:a", "onnx"].error
    assert cells["fake:b", "tflite"].complete
    assert cells["fake:b", "onnx"].complete
    before = {each.id for each in kept(store)}
    assert len(before) == 3

    again = run(store, plan(bundles), opening(), resume=True)
    assert again.session == told.session
    assert again.started == [["divide.onnx-none · cpu · fake:a"]]
    assert [outcome.resumed for outcome in again.outcomes] == [True, True, True, False]
    assert all(outcome.complete for outcome in again.outcomes)
    assert {each.id for each in kept(store)} == {each.measurement.id for each in again.outcomes if each.measurement}
    with Results(store) as results:
        assert {run.label for run in results.find(id_prefix="")} == {"nightly", ""}
        with pytest.raises(ResultsError, match="nothing to resume"):
            run_campaign(plan(bundles), results, Told(), resume=True, open_device=opening())


def _lines_of_one(bundle: Bundle) -> int:
    """How many lines the commands of one measurement print."""

    class Counting(FakeDevice):
        def _counting(self, on_line: Any) -> Any:
            take = super()._counting(on_line)

            def count(line: str) -> None:
                self.lines = getattr(self, "lines", 0) + 1
                take(line)

            return count

    with Counting(address="fake:a", facts_told=facts(), answers={("grep",): ""}) as device:
        measure_bundle(device, bundle, settings=QUICK)
        return int(device.lines)  # type: ignore[attr-defined]


def test_what_came_before_a_fault_is_kept_with_it_and_measured_again(bundles: list[Bundle], store: Path) -> None:
    long = Settings(num_runs=10**9, max_secs=1, cold_starts=0)  # several batches of samples, a line each
    one = plan(bundles[:1], ["fake:a"], settings=long)
    seven = Faults(vanish_after_lines=7)  # loaded, memory, assignment, replayed, warmup, and two batches of samples
    (cut,) = run(store, one, opening({"fake:a": seven})).outcomes
    assert cut.measurement
    assert "vanished" in cut.error
    assert cut.measurement.fault == cut.error
    assert cut.measurement.samples.latency_ms
    assert kept(store) == [cut.measurement]
    (whole,) = run(store, one, opening(), resume=True).outcomes
    assert whole.complete
    assert not whole.resumed
    assert len(kept(store)) == 2


def test_a_device_that_is_not_there_does_not_stop_the_others(bundles: list[Bundle], store: Path) -> None:
    def open_device(name: str) -> Device:
        if name == "fake:a":
            raise DeviceError("fake:a does not answer: is it on?", address=name)
        return opening()(name)

    cells = run(store, plan(bundles), open_device).by_cell()
    assert cells["fake:a", "tflite"].error == cells["fake:a", "onnx"].error == "fake:a does not answer: is it on?"
    assert cells["fake:b", "tflite"].complete


def test_a_cell_that_is_refused_does_not_stop_the_others(bundles: list[Bundle], store: Path) -> None:
    cells = (Cell(bundle=bundles[0], device="fake:a", accelerator="coreml"), Cell(bundle=bundles[1], device="fake:a"))
    refused, good = run(store, plan([], cells=cells), opening()).outcomes
    assert "coreml is not offered" in refused.error
    assert good.complete


def test_turns_are_taken_on_each_device_and_resumed_together(bundles: list[Bundle], store: Path) -> None:
    turns = plan(bundles, interleave=True, settings=QUICK.model_copy(update={"rounds": 2}))
    none = Faults(no_runtime=True)
    told = run(store, turns, opening({"fake:a": none, "fake:b": none}))
    assert [len(cells) for cells in told.started] == [2, 2]
    assert not any(outcome.measurement for outcome in told.outcomes)
    again = run(store, turns, opening({"fake:b": none}), resume=True)
    made = [outcome.measurement for outcome in again.outcomes if outcome.measurement]
    assert [sorted(set(each.samples.rounds)) for each in made] == [[0, 1], [0, 1]]
    with Results(store) as results:  # one of two that took turns is lost: neither counts
        results.add(made[0].model_copy(update={"id": ""}), session=again.session, cell=turns.cells[2].key)
    last = run(store, turns, opening({"fake:b": none}), resume=True)
    assert last.started == [[cell.name for cell in turns.cells[2:]]]


def test_another_plan_is_not_resumed(bundles: list[Bundle], store: Path) -> None:
    run(store, plan(bundles[:1]), opening({"fake:a": Faults(no_runtime=True)}))
    threads = plan(bundles[:1], settings=QUICK.model_copy(update={"num_threads": 2}))
    with Results(store) as results, pytest.raises(ResultsError, match="nothing to resume"):
        run_campaign(threads, results, Told(), resume=True, open_device=opening())


def test_ctrl_c_keeps_what_was_measured(bundles: list[Bundle], store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def interrupted_at_third(device: Device, bundle: Bundle, **_: Any) -> Measurement:
        calls.append(1)
        made = measurement(bundle=bundle.manifest.name, fault="interrupted" if len(calls) == 3 else "")
        if made.fault:
            raise Interrupted((made,))
        return made

    monkeypatch.setattr(campaign, "measure_bundle", interrupted_at_third)
    told = Told()
    with Results(store) as results, pytest.raises(KeyboardInterrupt):
        run_campaign(plan(bundles), results, told, open_device=opening())
    assert [outcome.error for outcome in told.outcomes] == ["", "", "interrupted"]
    assert len(kept(store)) == 3
    again = run(store, plan(bundles), opening(), resume=True)
    assert [outcome.resumed for outcome in again.outcomes] == [True, True, False, False]


FILL_AND_MEASURE = """
import sys
from pathlib import Path
from edgekit.bundle import open_bundle
from edgekit.devices.campaign import Cell, Plan, run_campaign
from edgekit.devices.fake import FakeDevice
from edgekit.measurement import Measurement
from edgekit.results import Results
from tests.devices.test_campaign import QUICK, Told
full, bundle = Path(sys.argv[1]), open_bundle(Path(sys.argv[2]))
told = Told()
with Results(full / "results.sqlite") as results:
    session = results.start_session("")
    with open(full / "filler", "wb", buffering=0) as filler:
        try:
            while filler.write(bytes(4096)): pass
        except OSError: pass
    results.start_session = lambda *_, **__: session
    plan = Plan(cells=(Cell(bundle=bundle, device="fake:a"),), settings=QUICK)
    run_campaign(plan, results, told, open_device=lambda name: FakeDevice(address=name))
(outcome,) = told.outcomes
print(outcome.store_error)
print(Measurement.model_validate_json(outcome.beside.read_text()) == outcome.measurement, outcome.beside)
"""


def test_where_the_disk_is_full_the_measurement_is_written_beside(bundles: list[Bundle], tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    isolate = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-rm"]
    command = 'mount -t tmpfs -o size=128k tmpfs "$1" && exec "$3" -c "$4" "$1" "$2"'
    argv = [*isolate, "sh", "-c", command, "sh", tmp_path / "full", bundles[0].path, sys.executable, FILL_AND_MEASURE]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "TMPDIR": str(tmp_path)}
    run = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path, env=environment)
    if run.returncode and "unshare" in run.stderr:
        lacking(f"mount namespaces: {run.stderr.strip()}")
    assert run.returncode == 0, run.stderr
    error, written = run.stdout.splitlines()
    assert "the disk is full" in error
    assert written.startswith("True ")

"""`edgekit runs`: listed, shown, exported, imported."""

import csv
import io
import json
from pathlib import Path

import pytest

from edgekit.measurement import Measurement
from edgekit.results import Results, save_beside
from tests.cli.conftest import Edgekit
from tests.measurements import fallen_back, measurement, samples, sustained


@pytest.fixture
def kept(edgekit: Edgekit) -> list[Measurement]:
    """Three runs in the store of the command."""
    with Results() as results:
        return [
            results.add(measurement(time="2026-01-01T00:00:00.000+00:00"), label="main", session="s1"),
            results.add(fallen_back(time="2026-01-02T00:00:00.000+00:00"), label="main", session="s1"),
            results.add(sustained(time="2026-01-03T00:00:00.000+00:00"), session="s2"),
        ]


def ids(shown: str) -> list[str]:
    return [run["measurement"]["id"] for run in json.loads(shown)]


def test_runs_are_listed_newest_first_and_filtered(edgekit: Edgekit, kept: list[Measurement]) -> None:
    first, second, third = (each.id for each in kept)
    assert ids(edgekit("runs", "--json").out) == [third, second, first]
    assert ids(edgekit("runs", "--json", "--limit", "1").out) == [third]
    assert ids(edgekit("runs", "--json", "--verdict", "valid,fell-back").out) == [second, first]
    assert ids(edgekit("runs", "--json", "--label", "main", "--accelerator", "gpu").out) == [second]
    assert ids(edgekit("runs", "--json", "--session", "s2").out) == [third]
    assert ids(edgekit("runs", "--json", "--device", "ssh:pi@board", "--bundle", "tiny.tflite-none").out) == [
        third,
        second,
        first,
    ]
    shown = edgekit("runs").out
    assert all(each.id in shown for each in kept)
    assert "3.00 ms (2.99–3.02)" in shown


def test_nothing_is_said_as_nothing(edgekit: Edgekit) -> None:
    shown = edgekit("runs")
    assert shown.code == 0
    assert "edgekit bench" in shown.out
    assert edgekit("runs", "--json").json() == []


def test_a_run_is_shown_whole(edgekit: Edgekit, kept: list[Measurement]) -> None:
    shown = edgekit("runs", "show", kept[1].id[:6])
    assert shown.code == 0
    for part in (
        "CPU, 41 of 60 nodes",
        "41 of 60",
        "2 GATHER (int64 indices)",
        "gpu was asked for",
        "48.2 °C → 51.6 °C",
        "c" * 64,
    ):
        assert part in shown.out
    assert Measurement.model_validate_json(edgekit("runs", "show", kept[1].id, "--json").out) == kept[1]


def test_a_run_that_is_not_there_is_one_line(edgekit: Edgekit, kept: list[Measurement]) -> None:
    shown = edgekit("runs", "show", "nope")
    assert shown.code == 1
    assert shown.err.startswith("edgekit: error: no run 'nope' in ")
    assert shown.err.count("\n") == 1


def test_samples_are_exported_unrounded(edgekit: Edgekit, kept: list[Measurement], tmp_path: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(edgekit("runs", "samples", kept[2].id).out)))
    measured = kept[2].samples
    warm = [row for row in rows if row["series"] == "latency_ms"]
    assert tuple(float(row["value"]) for row in warm) == measured.latency_ms
    assert tuple(int(row["step"]) for row in warm) == measured.steps
    curve = [row for row in rows if row["series"] == "curve"]
    assert [(float(r["seconds"]), float(r["value"]), float(r["temperature_c"])) for r in curve] == list(measured.curve)
    assert edgekit("runs", "samples", kept[2].id, "-o", "samples.json").code == 0
    assert json.loads((tmp_path / "samples.json").read_text())["latency_ms"] == list(measured.latency_ms)
    assert edgekit("runs", "samples", kept[2].id, "-o", "samples.xlsx").code == 2


def test_turns_are_exported(edgekit: Edgekit) -> None:
    turns = samples(count=4, rounds=(0, 0, 1, 1))
    with Results() as results:
        made = results.add(measurement(samples=turns))
    rows = csv.DictReader(io.StringIO(edgekit("runs", "samples", made.id).out))
    assert [row["round"] for row in rows if row["series"] == "latency_ms"] == ["0", "0", "1", "1"]


def test_what_was_written_beside_is_imported_once(edgekit: Edgekit, tmp_path: Path) -> None:
    path = save_beside(measurement())
    assert path.parent == tmp_path
    assert edgekit("runs", "import", path, "--label", "rescued").code == 0
    assert len(ids(edgekit("runs", "--json", "--label", "rescued").out)) == 1


@pytest.mark.parametrize("content", ["", "[]", '{"id": 1}', "\x00"])
def test_what_is_no_measurement_is_not_imported(edgekit: Edgekit, tmp_path: Path, content: str) -> None:
    (tmp_path / "x.json").write_text(content)
    shown = edgekit("runs", "import", "x.json")
    assert shown.code == 1
    assert "x.json holds no measurement" in shown.err
    assert edgekit("runs", "import", "nowhere.json").code == 1


def test_a_damaged_store_is_one_clear_line(edgekit: Edgekit, tmp_path: Path) -> None:
    (tmp_path / "results.sqlite").write_bytes(b"x" * 5000)
    shown = edgekit("runs")
    assert shown.code == 1
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert "move it away, or name another place in EDGEKIT_DB" in shown.err

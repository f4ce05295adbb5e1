"""`edgekit report`: which runs it shows, in which format, and what it says where there are none."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from edgekit.bundle import GOLDEN, MANIFEST, MANIFEST_SUM, file_sha256, seal_bundle
from edgekit.measurement import Measurement
from edgekit.proof.golden import Golden, read_golden, write_golden
from edgekit.report.document import report_schema
from edgekit.results import Results
from tests.cli.conftest import Edgekit
from tests.devices.bundles import write_bundle
from tests.measurements import fallen_back, measurement


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundles", "onnx").path


@pytest.fixture
def kept(edgekit: Edgekit, bundle: Path) -> list[Measurement]:
    """An older and a newer run of the bundle on one device, one on an accelerator, and a run of something else."""
    of_bundle = {"bundle": "divide.onnx-none", "bundle_sha256": file_sha256(bundle / MANIFEST)}
    made = [
        measurement(time="2026-01-01T00:00:00.000+00:00", **of_bundle),
        measurement(time="2026-01-02T00:00:00.000+00:00", **of_bundle),
        fallen_back(time="2026-01-01T12:00:00.000+00:00", **of_bundle),
        measurement(time="2026-01-03T00:00:00.000+00:00", bundle="other"),
    ]
    with Results() as results:
        return [results.add(each, session=f"session{n}", label=f"label{n}") for n, each in enumerate(made)]


def shown_ids(document: str) -> set[str]:
    return {run["measurement"]["id"] for run in json.loads(document)["devices"]["runs"]}


def test_the_newest_run_of_each_kind_is_shown(edgekit: Edgekit, kept: list[Measurement], bundle: Path) -> None:
    newest = {kept[1].id, kept[2].id}
    assert shown_ids(edgekit("report", "--only", "devices", "--json").out) == newest
    assert shown_ids(edgekit("report", bundle, "--only", "devices", "--format", "json").out) == newest


def test_runs_are_chosen_by_id_session_and_label(edgekit: Edgekit, kept: list[Measurement]) -> None:
    chosen = edgekit("report", "--runs", f"{kept[0].id[:6]},session1", "--runs", "label2", "--json")
    assert shown_ids(chosen.out) == {kept[0].id, kept[1].id, kept[2].id}
    assert shown_ids(edgekit("report", "--runs", "last", "--json").out) == {kept[3].id}
    assert shown_ids(edgekit("report", "--runs", "all", "--json").out) == {each.id for each in kept}
    assert edgekit("report", "--runs", "nothing").code == 1


def test_the_suffix_chooses_the_format(edgekit: Edgekit, kept: list[Measurement], tmp_path: Path) -> None:
    beginnings = {"report.html": "<!doctype html>", "report.md": "# Mine\n", "report.json": "{"}
    for name, beginning in beginnings.items():
        shown = edgekit("report", "--only", "devices", "-o", name, "--title", "Mine")
        assert (shown.code, shown.out) == (0, "")
        assert (tmp_path / name).read_text().startswith(beginning)
    assert edgekit("report", "--runs", "all", "-o", "report.txt", "--format", "markdown", "--title", "Mine").code == 0
    assert (tmp_path / "report.txt").read_text().startswith("# Mine\n")
    assert edgekit("report", "-o", "report.pdf").code == 2
    assert edgekit("report", "--format", "pdf").code == 1
    assert edgekit("report", "--only", "devices", "-o", "no/report.html").code == 1


def test_the_terminal_shows_the_tables(edgekit: Edgekit, kept: list[Measurement]) -> None:
    shown = edgekit("report", "--only", "devices")
    assert shown.code == 0
    for part in ("Latency", "Cold and warm", "Coverage", "Verdicts", "Conditions", "41 of 60 nodes", kept[1].id):
        assert part in shown.out


def test_a_bundle_that_was_exported_again_is_said_and_not_shown(
    edgekit: Edgekit, kept: list[Measurement], tmp_path: Path
) -> None:
    again = write_bundle(tmp_path / "again", "onnx", shift=0.1).path
    alone = edgekit("report", again, "--only", "devices")
    assert alone.code == 1
    assert "was exported again since it was measured" in alone.err
    shutil.copytree(again, tmp_path / "bundles" / "again.edgekit")
    remarks = json.loads(edgekit("report", "--only", "devices", "--json").out)["devices"]["remarks"]
    assert len(remarks) == 1
    assert "was exported again since it was measured: `edgekit bench" in remarks[0]


def test_nothing_measured_says_how(edgekit: Edgekit, bundle: Path) -> None:
    shown = edgekit("report", "--only", "devices")
    assert shown.code == 1
    assert "edgekit bench" in shown.err
    assert edgekit("report", "--runs", "last").code == 1


def test_the_schema_is_published(edgekit: Edgekit) -> None:
    assert json.loads(edgekit("report", "--schema").out) == json.loads(json.dumps(report_schema()))


def test_bundles_are_run_here_and_compared(edgekit: Edgekit, bundle: Path, tmp_path: Path) -> None:
    shown = edgekit("report", "-o", "report.json")
    assert shown.code == 0, shown.err
    document = json.loads((tmp_path / "report.json").read_text())
    (group,) = document["quantization"]["groups"]
    (row,) = group["rows"]
    samples = row["measurement"]["samples"]["latency_ms"]
    assert row["latency"]["p50_ms"] == pytest.approx(float(np.median(samples)))
    assert row["accuracy"]["accuracy"] == 1.0
    assert row["parity"]["labels_changed"] == 0
    assert group["advice"][0]["text"].startswith("Ship divide.onnx-none (")
    assert document["devices"] is None
    assert "No run on a device is kept" in document["quantization"]["remarks"][0]


def test_models_and_test_sets_are_kept_apart_and_changed_files_are_not_measured(
    edgekit: Edgekit, bundle: Path, tmp_path: Path
) -> None:
    other = write_bundle(tmp_path / "other", "tflite").path
    other_set = write_bundle(tmp_path / "third", "onnx").path
    golden = read_golden(other_set / GOLDEN)
    write_golden(other_set / GOLDEN, Golden(steps=golden.steps[:4], labels=golden.labels[:4]))
    reseal(other_set)
    (other / "model.tflite").write_bytes(b"changed" + (other / "model.tflite").read_bytes()[7:])
    shown = edgekit("report", bundle, other, other_set, "--no-latency", "--json")
    part = json.loads(shown.out)["quantization"]
    assert len(part["groups"]) == 3
    assert any("are of 1 model and 3 combinations of model and test set" in remark for remark in part["remarks"])
    rows = {row["bundle"]: row for group in part["groups"] for row in group["rows"]}
    changed = rows["divide.tflite-none"]
    assert changed["note"].startswith("not measured: ")
    assert "model.tflite was changed since it was written" in changed["note"]
    assert (changed["parity"], changed["accuracy"], changed["latency"]) == (None, None, None)


def reseal(path: Path, **changes: object) -> None:
    manifest = json.loads((path / MANIFEST).read_text()) | changes
    manifest.pop("files"), manifest.pop("edgekit")
    for name in (MANIFEST, MANIFEST_SUM):
        (path / name).unlink()
    seal_bundle(path, **manifest)


def test_different_models_are_kept_apart_and_it_is_said(edgekit: Edgekit, bundle: Path, tmp_path: Path) -> None:
    other = write_bundle(tmp_path / "other", "tflite").path
    source = json.loads((other / MANIFEST).read_text())["source"]
    reseal(other, source=source | {"sha256": "1" * 64, "path": "another"})
    part = edgekit("report", bundle, other, "--no-latency", "--json").json()["quantization"]
    assert [group["model"] for group in part["groups"]] == ["tiny", "another"]
    assert any("are of 2 models and 2 combinations of model and test set" in remark for remark in part["remarks"])
    assert [len(group["advice"]) for group in part["groups"]] == [1, 1]
    shown = edgekit("report", bundle, other, "--no-latency", "--format", "markdown").out
    assert "tiny (00000000): Ship divide.onnx-none" in shown
    assert "another (11111111): Ship divide.tflite-none" in shown


def test_without_held_out_data_there_is_parity_only(edgekit: Edgekit, bundle: Path) -> None:
    golden = read_golden(bundle / GOLDEN)
    write_golden(bundle / GOLDEN, Golden(steps=golden.steps, labels=np.full_like(golden.labels, -1)))
    reseal(bundle, accuracy={"accuracy": None, "samples": 0, "note": "not measured: the data is not here"})
    part = edgekit("report", bundle, "--no-latency", "--json").json()["quantization"]
    (row,) = part["groups"][0]["rows"]
    assert (row["accuracy"], row["parity"]["labels_changed"]) == (None, 0)
    assert row["note"] == "parity only: not measured: the data is not here"
    assert part["remarks"][-1].endswith(row["note"])
    assert "no held-out labels: accuracy is not known" in part["groups"][0]["advice"][0]["text"]


def test_a_bundle_that_does_not_run_here_is_told_of_and_the_others_are_timed(
    edgekit: Edgekit, bundle: Path, tmp_path: Path
) -> None:
    core_ml = write_bundle(tmp_path / "other", "onnx", shift=0.0).path
    reseal(core_ml, target="coreml", runtime="coreml", name="divide.coreml-none")
    rows = edgekit("report", bundle, core_ml, "--json").json()["quantization"]["groups"][0]["rows"]
    assert rows[0]["latency"]["count"] >= 30
    assert rows[1]["latency"] is None
    assert "no latency: local runs no Core ML: bench such bundles on a Mac" in rows[1]["note"]


def test_wrong_paths_and_parts_are_refused(edgekit: Edgekit, bundle: Path, tmp_path: Path) -> None:
    assert "is not a bundle" in edgekit("report", tmp_path).err
    assert edgekit("report", "--only", "nothing").code == 2
    assert edgekit("report", bundle, "--runs", "all").code == 2

"""Calibration texts: real, chosen the same way every time, and compared with the data of the checkpoint."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from edgekit.bundle import open_bundle
from edgekit.checkpoint import Checkpoint
from edgekit.errors import DataError, RefusedError
from edgekit.export.quantize.calibration import choose_calibration, jensen_shannon
from edgekit.proof.golden import read_golden
from edgekit.text.datasets import reload_data
from tests.export.quantized import trained_checkpoint
from tests.export.test_pipeline import edgekit, refuses
from tests.tiny import tiny_checkpoint

RUSSIAN = "text\n" + "".join(f"Проверьте подключение к сети номер {number}\n" for number in range(60))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    return tiny_checkpoint(tmp_path)


def test_texts_are_of_the_training_part_and_always_the_same(checkpoint: Checkpoint, tmp_path: Path) -> None:
    assert checkpoint.data is not None
    training = {example.text for example in reload_data(checkpoint.data).train}
    first, second = (choose_calibration(checkpoint, samples=40) for _ in range(2))
    np.testing.assert_array_equal(first.ids, second.ids)
    encoded = {tuple(row) for row in checkpoint.processor.encode_padded(sorted(training), 16)[0].tolist()}
    assert {tuple(row) for row in first.ids.tolist()} <= encoded
    assert first.record.samples == len(first.ids) == 40
    assert first.record.remarks == ()
    first.write_steps(tmp_path / "steps.npz")
    steps = read_golden(tmp_path / "steps.npz").steps
    assert [step.inputs["ids"].shape for step in steps] == [(1, 16)] * 40


def test_fewer_than_asked_is_said(checkpoint: Checkpoint) -> None:
    record = choose_calibration(checkpoint, samples=5000).record
    assert 50 < record.samples < 128
    assert f"calibrated with {record.samples} texts, not 5000" in record.remarks[0]


def test_another_language_is_said(checkpoint: Checkpoint, tmp_path: Path) -> None:
    (tmp_path / "ru.csv").write_text(RUSSIAN)
    record = choose_calibration(checkpoint, data=tmp_path / "ru.csv", samples=50).record
    assert record.samples == 50
    assert record.divergence is not None
    assert record.own_divergence is not None
    assert record.divergence > 0.5 > record.own_divergence
    assert "another language?" in record.remarks[0]


def test_labels_of_calibration_data_do_not_matter(checkpoint: Checkpoint, tmp_path: Path) -> None:
    rows = [{"text": f"open the file {n}", "label": "klingon"} for n in range(30)]
    (tmp_path / "texts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert choose_calibration(checkpoint, data=tmp_path / "texts.jsonl", samples=20).record.samples == 20


@pytest.mark.parametrize(("content", "message"), [("", "is empty"), ("text\n", "has no rows"), ("a\nb\n", "column")])
def test_empty_data_is_an_error(checkpoint: Checkpoint, tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "texts.csv").write_text(content)
    with pytest.raises(DataError, match=message):
        choose_calibration(checkpoint, data=tmp_path / "texts.csv")


def test_data_that_is_gone_asks_for_texts(checkpoint: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--calibration-data FILE"):
        choose_calibration(dataclasses.replace(checkpoint, data=None))
    (tmp_path / "data.tsv").unlink()
    with pytest.raises(DataError, match="--calibration-data FILE"):
        choose_calibration(checkpoint)
    (tmp_path / "ru.csv").write_text(RUSSIAN)
    record = choose_calibration(checkpoint, data=tmp_path / "ru.csv", samples=10).record
    assert record.divergence is None
    assert "were not compared" in record.remarks[0]


def test_no_texts_at_all_is_refused(checkpoint: Checkpoint) -> None:
    with pytest.raises(RefusedError, match="at least one"):
        choose_calibration(checkpoint, samples=0)


def test_divergence_of_distributions() -> None:
    p, q = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    assert jensen_shannon(p, p) == 0
    assert jensen_shannon(p, q) == 1
    assert jensen_shannon(p, np.array([0.5, 0.5])) == pytest.approx(0.3113, abs=1e-4)


def test_the_command_calibrates_warns_and_records(tmp_path: Path) -> None:
    trained_checkpoint(tmp_path)
    (tmp_path / "ru.csv").write_text(RUSSIAN)
    argv = ("export", "tiny", "--target", "onnx", "--quantize", "w8a8,dynamic_wi8_afp32")
    run = edgekit(*argv, "--calibration-data", "ru.csv", "--num-calibration-samples", "30", cwd=tmp_path)
    assert "edgekit: warning: the calibration texts of ru.csv are unlike the data" in run.stderr
    manifest = open_bundle(tmp_path / "bundles" / "tiny.onnx-int8.edgekit").manifest
    assert manifest.scheme == "int8"
    assert manifest.requires == {"onnx": "opset 18"}
    details = manifest.scheme_details
    assert details["becomes"].startswith("int8 weights by channel")
    assert details["calibration"]["samples"] == 30
    assert details["calibration"]["remarks"]
    assert details["evidence"]["quantized_tensors"] > 10
    assert details["weights"]["int8"]["elements"] > 0.5 * details["source_weights"]["float32"]["elements"]
    assert details["operators"]["QuantizeLinear"] > 0
    assert manifest.parity.labels_changed_tolerance == 0.04
    assert (
        "calibration"
        not in open_bundle(tmp_path / "bundles" / "tiny.onnx-int8-dynamic.edgekit").manifest.scheme_details
    )


def test_refusals_of_the_command(tmp_path: Path) -> None:
    tiny_checkpoint(tmp_path)
    base = ("export", "tiny", "--target")
    refuses(*base, "coreml", "--quantize", "int8", cwd=tmp_path, message="coreml does not offer int8: its quantizer")
    refuses(*base, "tflite", "--quantize", "int8-dynamc", cwd=tmp_path, message="did you mean int8-dynamic?")
    refuses(*base, "tflite", "--quantize", "dynamic_wi8b32_afp32", cwd=tmp_path, message="changes nothing with it")
    refuses(*base, "tflite", "--calibration-data", "data.tsv", cwd=tmp_path, message="--calibration-data has no use")
    missing = ("--quantize", "int8", "--calibration-data", "gone.csv")
    refuses(*base, "tflite", *missing, cwd=tmp_path, message="there is no data file gone.csv")


def test_schemes_lists_every_cell(tmp_path: Path) -> None:
    rows = json.loads(edgekit("schemes", "--json", cwd=tmp_path).stdout)
    assert [row["scheme"] for row in rows][:2] == ["none", "fp16"]
    cells = {(row["scheme"], target): cell for row in rows for target, cell in row["targets"].items()}
    assert cells["int8", "coreml"]["offered"] is False
    assert "macOS only" in cells["int8", "coreml"]["reason"]
    assert cells["int8", "tflite"]["becomes"].startswith("int8 weights")
    assert "not offered: palettes are a format" in " ".join(edgekit("schemes", cwd=tmp_path).stdout.split())

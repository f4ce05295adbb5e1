"""Sensitivity: every module of a scheme, measured; crashes, NaN, cut lines and two processes at once."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from edgekit.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from edgekit.errors import CheckpointError, DataError, OutputError, RefusedError
from edgekit.export.quantize.calibration import choose_calibration
from edgekit.export.quantize.local_engine import run_batch, run_batches
from edgekit.export.quantize.metrics import measure_distance
from edgekit.export.quantize.scores import Score
from edgekit.export.quantize.sensitivity import measure_sensitivity
from edgekit.export.quantize.sweep import Sweep, prepare_sweep, run_sweep
from edgekit.export.recipes import Recipe, Rule
from tests.export.sweeps import self_labelled_checkpoint
from tests.tiny import tiny_writer

NONE = Recipe(name="none", scheme="none")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return self_labelled_checkpoint(tmp_path_factory.mktemp("sensitivity"))


@pytest.fixture(scope="module")
def sweep(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    folder = tmp_path_factory.mktemp("sweep")
    calibration = choose_calibration(checkpoint, samples=50)
    return prepare_sweep(checkpoint, "tflite", eval_samples=120, calibration=calibration, parent=folder)


def only(module: str, scheme: str) -> Recipe:
    return Recipe(name="only", scheme="none", rules=(Rule(modules=module, scheme=scheme),))


def test_each_module_is_measured_alone_and_left_out(sweep: Sweep) -> None:
    (measured,) = measure_sensitivity(sweep, ["int8"], run_batches)
    assert [m.module for m in measured.modules][:2] == ["embed.tokens", "embed.positions"]
    named = {m.module: m for m in measured.modules}
    for product in ("blocks.0.attention.scores", "blocks.0.attention.heads", "final_norm"):
        assert named[product].alone.max_abs_difference
    for module in measured.modules:
        assert not module.alone.error, module
        assert not module.all_but.error, module
        assert module.alone.texts == module.all_but.texts == 120
        assert module.alone.snr_db is not None
        assert measured.whole.snr_db is not None
        assert module.alone.snr_db > measured.whole.snr_db - 3, "one module alone is no worse than all"
    assert measured.unquantized.drop == 0
    assert measured.unquantized.snr_db is not None
    assert measured.unquantized.snr_db > 100
    assert named["embed.tokens"].alone.size_bytes < measured.unquantized.size_bytes
    assert named["embed.tokens"].all_but.size_bytes > measured.whole.size_bytes
    assert named["embed.tokens"].elements == 259 * 32


def test_modules_of_a_model_that_writes_cost_bits_per_byte(tmp_path: Path) -> None:
    checkpoint = tiny_writer(tmp_path, "generate", num_layers=1)
    sweep = prepare_sweep(checkpoint, "tflite", eval_samples=None, calibration=None, parent=tmp_path)
    (measured,) = measure_sensitivity(sweep, ["int4-weight"], run_batches)
    unquantized, whole = measured.unquantized, measured.whole
    assert unquantized.bits_per_byte == pytest.approx(unquantized.reference_bits_per_byte, rel=1e-6)
    assert unquantized.texts == sweep.num_texts > 1
    assert {m.module for m in measured.modules} >= {"embed.tokens", "blocks.0.attention.query", "blocks.0.ffn.down"}
    for module in measured.modules:
        for score in (module.alone, module.all_but):
            assert not score.error, module
            assert score.reference_bits_per_byte == unquantized.reference_bits_per_byte
            assert score.bits_per_byte not in (None, unquantized.bits_per_byte, whole.bits_per_byte)
            assert whole.size_bytes < score.size_bytes < unquantized.size_bytes


def test_a_translators_encoder_has_its_part(tmp_path: Path) -> None:
    checkpoint = tiny_writer(tmp_path, "translate", num_layers=1)
    sweep = prepare_sweep(checkpoint, "tflite", eval_samples=None, calibration=None, parent=tmp_path)
    encoder, decoder, plain = run_sweep(
        sweep,
        [only(f"{side}.blocks.0.ffn.up", "int4-weight") for side in ("encoder", "decoder")] + [NONE],
        run_batches,
    )
    assert (encoder.error, decoder.error) == ("", "")
    assert len({encoder.bits_per_byte, decoder.bits_per_byte, plain.bits_per_byte}) == 3
    assert plain.bits_per_byte == pytest.approx(plain.reference_bits_per_byte, rel=1e-6)
    lost = Checkpoint(**{**vars(checkpoint), "data": None})
    with pytest.raises(DataError, match="does not say what data it was trained on; candidates are compared"):
        prepare_sweep(lost, "tflite", eval_samples=2, calibration=None, parent=tmp_path)


def test_schemes_of_whole_files_are_refused(sweep: Sweep) -> None:
    with pytest.raises(RefusedError, match="fp16 is no scheme of single modules of a tflite file: choose of int8-dyn"):
        measure_sensitivity(sweep, ["fp16"], run_batches)
    with pytest.raises(RefusedError, match="tflite does not offer palette4"):
        measure_sensitivity(sweep, ["palette4"], run_batches)


def test_a_module_name_that_does_not_exist_is_the_candidates_error(sweep: Sweep) -> None:
    (score,) = run_sweep(sweep, [only("blocks.9.ffn.up", "int8")], run_batches)
    assert "no module matches 'blocks.9.ffn.up'" in score.error


def test_a_crash_costs_one_candidate_and_is_named(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A runtime that dies of a signal on the second candidate: put before the real one on the worker's path."""
    fake = tmp_path / "sitecustomize.py"
    fake.write_text(
        "import ctypes, importlib, os, sys\n"
        "def trace(frame, event, argument):\n"
        "    if frame.f_code.co_name == '_make' and 'ffn.up' in str(frame.f_locals.get('recipe')):\n"
        "        ctypes.string_at(0)\n"
        "if any('part-' in argument for argument in sys.argv) or 'part-' in ' '.join(sys.orig_argv):\n"
        "    sys.setprofile(trace)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    batch = [only("classifier", "int8"), only("blocks.0.ffn.up", "int8"), only("embed.tokens", "int8")]
    first, crashed, last = run_batch(sweep, batch, timed=False)
    assert "died of signal 11" in crashed.error
    assert not first.error
    assert not last.error
    assert not list(sweep.folder.glob("part-*.jsonl"))


def test_a_line_that_was_cut_is_done_again(sweep: Sweep) -> None:
    candidate = only("blocks.0.ffn.down", "int4-weight")
    (score,) = run_sweep(sweep, [candidate], run_batches)
    store = sweep.folder / "scores.jsonl"
    lines = store.read_text().splitlines(keepends=True)
    store.write_text("".join(lines[:-1]) + lines[-1][:40])
    asked: list[Recipe] = []

    def counting(sweep: Sweep, batches: list[list[Recipe]], timed: bool, keep: object) -> None:
        asked.extend(recipe for batch in batches for recipe in batch)
        run_batches(sweep, batches, timed, keep)  # type: ignore[arg-type]

    assert run_sweep(sweep, [candidate], counting) == [score]  # type: ignore[arg-type]
    assert asked == [candidate]
    assert run_sweep(sweep, [candidate], counting) == [score]  # type: ignore[arg-type]
    assert asked == [candidate]


def test_two_processes_do_not_fill_one_sweep(sweep: Sweep) -> None:
    with FileLock(sweep.folder / "lock"), pytest.raises(OutputError, match="is being filled by another edgekit"):
        run_sweep(sweep, [NONE], run_batches)


def test_a_model_that_overflows_names_the_module(checkpoint: Checkpoint, tmp_path: Path) -> None:
    weights = dict(checkpoint.weights)
    weights["blocks.0.ffn.up.weight"] = np.full_like(weights["blocks.0.ffn.up.weight"], 3e38)
    broken = Checkpoint(**{**vars(checkpoint), "weights": weights, "path": tmp_path / "broken", "name": "broken"})
    save_checkpoint(broken, broken.path)
    with pytest.raises(CheckpointError, match=r"before any quantization; the first module .* is blocks\.0\.ffn\.up"):
        prepare_sweep(load_checkpoint(broken.path), "tflite", eval_samples=20, calibration=None, parent=tmp_path)


def test_data_that_is_gone_is_an_error(checkpoint: Checkpoint, tmp_path: Path) -> None:
    lost = Checkpoint(**{**vars(checkpoint), "data": None})
    with pytest.raises(DataError, match="does not say what data it was trained on; candidates are compared"):
        prepare_sweep(lost, "tflite", eval_samples=20, calibration=None, parent=tmp_path)


def test_distances_by_hand() -> None:
    reference = np.array([[3.0, 4.0], [0.0, 2.0]])
    same = measure_distance(reference, reference.copy())
    assert (same.snr_db, same.kl, same.labels_changed, same.max_abs_difference) == (None, 0.0, 0, 0.0)
    turned = measure_distance(reference, np.array([[4.0, 3.0], [0.0, 2.0]]))
    assert turned.labels_changed == 1
    assert turned.snr_db == pytest.approx(10 * np.log10(29 / 2))
    assert turned.cosine == pytest.approx((24 / 25 + 1) / 2)
    p = 1 / (1 + np.e)
    assert turned.kl == pytest.approx((p * np.log(p / (1 - p)) + (1 - p) * np.log((1 - p) / p)) / 2)
    broken = measure_distance(reference, np.array([[np.nan, 0.0], [np.inf, 1.0]]))
    assert (broken.non_finite, broken.snr_db, broken.kl) == (2, None, None)


def test_the_command_prints_json_and_goes_on_where_it_was(checkpoint: Checkpoint, tmp_path: Path) -> None:
    command = [sys.executable, "-P", "-m", "edgekit", "sensitivity", checkpoint.path, "--target", "onnx"]
    command += ["--quantize", "int4-weight", "--eval-samples", "40", "-o", "out.json", "--json"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    document = json.loads(run.stdout)
    assert json.loads((tmp_path / "out.json").read_text()) == document
    assert {m["module"] for m in document[0]["modules"]} >= {"embed.tokens", "blocks.0.ffn.up", "classifier"}
    scores = next((tmp_path / ".edgekit" / "sweeps").glob("own.onnx-*/scores.jsonl"))
    before = scores.read_text()
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(again.stdout) == document
    assert scores.read_text() == before
    assert all(Score.model_validate_json(line) for line in before.splitlines())

"""`edgekit report CHECKPOINT`, whole and real: exported files, measured here, and the model by module."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgekit.bundle import open_bundle
from edgekit.checkpoint import load_checkpoint
from edgekit.export.diagnosis.slow import family
from edgekit.export.diagnosis.times import module_times
from edgekit.export.quantize.modules import source_modules
from edgekit.measurement import Measurement
from edgekit.report.build import render_report
from edgekit.report.document import Report
from tests.conftest import keeping
from tests.export.sweeps import self_labelled_checkpoint
from tests.report.sentences import check_sentences


def edgekit(folder: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "edgekit", *argv]
    env = os.environ | {"EDGEKIT_DB": str(folder / "results.sqlite")}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, kept_exports: Path) -> Path:
    folder = tmp_path_factory.mktemp("report-command")
    longest = self_labelled_checkpoint(folder).config.max_length
    for target, lengths in (("tflite", ("--sequence-length", str(longest))), ("onnx", ())):  # padded, and not
        with keeping(kept_exports):
            argv = ("--target", target, "--quantize", "none,int8", *lengths, "--json")
            exported = edgekit(folder, "export", "own", *argv)
        assert len(json.loads(exported.stdout)) == 2, exported.stderr  # int8 of random weights may miss its tolerance
    return folder


@pytest.fixture(scope="module")
def document(folder: Path) -> Any:
    options = ("--target", "tflite", "--quantize", "int8,int4-weight", "--eval-samples", "60")
    run = edgekit(folder, "report", "own", *options, "-o", "report.json")
    assert run.returncode == 0, run.stderr
    return json.loads((folder / "report.json").read_text())


def test_the_files_and_the_modules_are_measured(document: Any) -> None:
    part = document["quantization"]
    (group,) = part["groups"]
    assert {row["bundle"] for row in group["rows"]} == {
        f"own.{target}-{scheme}" for target in ("tflite", "onnx") for scheme in ("none", "int8")
    }
    assert all(row["latency"] and row["accuracy"] and row["parity"] for row in group["rows"])
    modules = part["modules"]
    assert modules["schemes"] == ["int8", "int4-weight"]
    assert {cost["scheme"] for module in modules["modules"] for cost in module["costs"]} == {"int8", "int4-weight"}
    assert sum(module["share_of_bytes"] for module in modules["modules"]) == pytest.approx(1)
    assert "own.tflite-none" in modules["times"]


@pytest.mark.parametrize("target", ["tflite", "onnx"])
def test_the_runtimes_operators_are_put_to_modules(document: Any, folder: Path, target: str) -> None:
    """Real profiles, with times that are easy to add up: LiteRT prints no less than a microsecond."""
    row = next(row for row in document["quantization"]["groups"][0]["rows"] if row["bundle"] == f"own.{target}-none")
    told = Measurement.model_validate(row["measurement"]).operators
    operators = [each.model_copy(update={"ms": 0.01}) for each in told]
    bundle, checkpoint = open_bundle(folder / "bundles" / f"own.{target}-none.edgekit"), load_checkpoint(folder / "own")
    times = module_times(bundle, operators, checkpoint)
    assert f"one inference of own.{target}-none in float32" in times.origin
    assert set(times.shares) == set(source_modules(checkpoint.config))
    assert 0.5 < sum(times.shares.values()) <= 1.000001
    kinds = [family(each.kind) for each in operators]
    products = sum(kinds.count(kind) for kind in ("fully_connected", "gemm", "matmul", "batch_matmul", "fused_mat_mul"))
    assert products == 9  # seven with weights and two in attention: each was found
    nothing = module_times(bundle, [each.model_copy(update={"ms": 0.0}) for each in told], checkpoint)
    assert (nothing.shares, "has no times" in nothing.origin) == ({}, True)
    other = [each.model_copy(update={"name": "another:0", "kind": "Delegate/Another"}) for each in operators]
    strange = module_times(bundle, other, checkpoint)
    assert (strange.shares, "could not be put to those of the file" in strange.origin) == ({}, True)


def test_every_sentence_follows_from_the_numbers_beside_it(document: Any) -> None:
    kinds = check_sentences(document["quantization"])
    assert {"advice", "why", "headroom"} <= set(kinds)


def test_without_a_float_file_it_is_said_that_time_by_module_is_not_told(folder: Path) -> None:
    """What the sweep has done is read, not done again."""
    options = ("--target", "tflite", "--quantize", "int8,int4-weight", "--eval-samples", "60", "--no-latency", "--json")
    run = edgekit(folder, "report", "own", "bundles/own.tflite-int8.edgekit", *options)
    assert run.returncode == 0, run.stderr
    part = json.loads(run.stdout)["quantization"]
    assert "no float32 tflite bundle of own was measured" in part["modules"]["times"]
    assert "`edgekit export" in part["modules"]["times"]
    assert all(module["share_of_time"] is None for module in part["modules"]["modules"])
    assert "Time by module is not told" in render_report(Report.model_validate(json.loads(run.stdout)), "html")

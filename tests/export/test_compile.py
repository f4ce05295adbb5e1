"""Bundles compiled for one device by the real compilers, proven on what stands in for it, and refused elsewhere."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from edgekit.bundle import GOLDEN, MANIFEST, MANIFEST_SUM, Bundle, Manifest, open_bundle, seal_bundle
from edgekit.devices.accelerators import plan_run
from edgekit.errors import (
    BundleError,
    DeviceError,
    EdgekitError,
    ExportError,
    OutputError,
    RefusedError,
    UnknownNameError,
)
from edgekit.export.compilers.contexts import read_contexts
from edgekit.export.compilers.pipeline import compile_bundle, prove_again
from edgekit.export.compilers.targets import QUALCOMM_SOCS, CompileTarget, parse_target
from edgekit.export.describe_tflite import describe_tflite
from edgekit.export.schemes import TOLERANCES
from edgekit.measurement import DeviceFacts
from edgekit.proof.golden import read_golden, stack_outputs
from edgekit.proof.parity import compare_outputs
from edgekit.proof.replay import replay_steps
from tests.cli.test_main import run
from tests.devices.bundles import write_bundle as divide_bundle
from tests.export.compilable import write_bundle
from tests.export.routes import Routes

SM8650 = parse_target("qnn:SM8650")
ETHOS_U = parse_target("ethos-u85-256")


@pytest.fixture(scope="module")
def plain(routes: Routes, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The float32 file of the tiny checkpoint."""
    return write_bundle(tmp_path_factory.mktemp("plain"), routes, routes.convert("tflite", "torch")[0])


@pytest.fixture(scope="module")
def int8(routes: Routes, int8_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The same in int8, whose token table QNN leaves to the CPU."""
    return write_bundle(tmp_path_factory.mktemp("int8-bundle"), routes, int8_file, "int8")


@pytest.fixture(scope="module")
def for_sm8650(plain: Bundle, qnn_environment: None, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return compile_bundle(plain, SM8650, parent=tmp_path_factory.mktemp("sm8650")).bundle


def reseal(bundle: Bundle, folder: Path, device: str) -> Bundle:
    """The same bundle with another device in its manifest, and sums that fit."""
    path = folder / bundle.path.name
    shutil.copytree(bundle.path, path)
    (path / MANIFEST).unlink()
    (path / MANIFEST_SUM).unlink()
    fields = {name: getattr(bundle.manifest, name) for name in Manifest.model_fields if name != "files"}
    assert bundle.manifest.compiled is not None
    fields["compiled"] = bundle.manifest.compiled.model_copy(update={"device": device})
    seal_bundle(path, **fields)
    return open_bundle(path)


def test_names_of_devices() -> None:
    assert len(QUALCOMM_SOCS) == 10
    assert parse_target("qnn:sm8650") == CompileTarget(compiler="qnn", device="SM8650")
    assert [parse_target(text).name for text in ("qnn:SM8550", "openvino", "ethos-u55-128")] == [
        "qnn-SM8550",
        "openvino-CPU",
        "ethos-u55-128",
    ]
    with pytest.raises(UnknownNameError, match=r"did you mean SM8650\? known are SA8255, SA8295, .* SM8850"):
        parse_target("qnn:SM8660")
    with pytest.raises(UnknownNameError, match="known are SA8255"):
        parse_target("qnn")
    with pytest.raises(UnknownNameError, match="did you mean ethos-u85-256"):
        parse_target("ethos-u85-257")
    with pytest.raises(UnknownNameError, match=r"unknown device to compile for 'hexagon'"):
        parse_target("hexagon")
    with pytest.raises(RefusedError, match="openvino compiles for the CPU here"):
        parse_target("openvino:NPU")


def test_a_context_for_a_soc_is_a_bundle_of_its_own(plain: Bundle, for_sm8650: Bundle) -> None:
    manifest, compiled = for_sm8650.manifest, for_sm8650.manifest.compiled
    assert for_sm8650.path.name == "tiny.tflite-none.qnn-SM8650.edgekit"
    assert compiled is not None
    assert (compiled.device, compiled.device_number, compiled.accelerator) == ("SM8650", 57, "npu")
    assert compiled.compiler_version == "2.7.0"
    assert compiled.source_sha256 == plain.manifest.files["model.tflite"].sha256
    operators = sum(describe_tflite(plain.model_path).operators.values())
    assert (compiled.report.operators, compiled.report.partitions) == (
        operators,
        len(list(read_contexts(for_sm8650.model_path))),
    )
    left = sum(each.count for each in compiled.report.left)
    assert compiled.report.operators_taken == operators - left > operators / 2
    assert manifest.proven
    assert manifest.parity.max_abs_difference  # really computed: not the golden outputs again
    assert "simulator" in manifest.parity.note
    assert (for_sm8650.path / GOLDEN).read_bytes() == plain.golden_path.read_bytes()
    assert plain.manifest.compiled is None


def test_it_is_verified_and_shown(for_sm8650: Bundle) -> None:
    verified = run("verify", str(for_sm8650.path), "--json")
    assert verified.returncode == 0, verified.stderr
    assert json.loads(verified.stdout)[0]["parity"]["verdict"] == "within-tolerance"
    shown = run("inspect", str(for_sm8650.path))
    assert "SM8650, and nothing else" in shown.stdout
    assert "DISPATCH_OP" in shown.stdout


def test_what_is_left_to_the_cpu_runs_between_two_contexts(int8: Bundle, qnn_environment: None, tmp_path: Path) -> None:
    made = compile_bundle(int8, SM8650, parent=tmp_path).bundle
    compiled = made.manifest.compiled
    assert compiled is not None
    assert [(left.operator, left.count) for left in compiled.report.left] == [("EMBEDDING_LOOKUP", 1)]
    assert "does not take SFIXED_POINT_8, INT_32 → FLOAT_32" in compiled.report.left[0].reason
    assert compiled.report.partitions == 2
    golden = read_golden(made.golden_path)
    there = stack_outputs(replay_steps(made.model_path, "qnn-simulator", made.golden_path).produced.steps, "logits")
    here = stack_outputs(replay_steps(int8.model_path, "litert", int8.golden_path).produced.steps, "logits")
    scale = np.max(np.abs(stack_outputs(golden.steps, "logits")))
    assert np.max(np.abs(there - here)) < 0.2 * scale


def test_a_context_compiled_for_another_soc_is_not_fooled_by(for_sm8650: Bundle, tmp_path: Path) -> None:
    """The simulator runs it and gives the right numbers: only what edgekit looks at can tell."""
    liar = reseal(for_sm8650, tmp_path, "SM8550")
    produced = replay_steps(liar.model_path, liar.manifest.runtime, liar.golden_path).produced
    assert compare_outputs(read_golden(liar.golden_path), produced, TOLERANCES["fp16"].relative).verdict != "failed"
    with pytest.raises(BundleError, match=r"was compiled for SM8650, not for SM8550 as its manifest says"):
        prove_again(liar)
    verified = run("verify", str(liar.path))
    assert verified.returncode == 1
    assert "was compiled for SM8650, not for SM8550" in verified.stderr


def test_a_manifest_that_was_edited_is_refused(for_sm8650: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "edited.edgekit"
    shutil.copytree(for_sm8650.path, path)
    (path / MANIFEST).write_text((path / MANIFEST).read_text().replace("SM8650", "SM8550"))
    with pytest.raises(BundleError, match=r"was changed since it was written"):
        open_bundle(path)


@pytest.mark.parametrize(
    ("soc", "accelerator", "message"),
    [
        ("SM8550", "npu", r"was compiled for SM8650, not for adb:X, whose SoC is SM8550; here, edgekit verify runs it"),
        ("SM86501", "npu", r"was compiled for SM8650, not for adb:X"),
        ("", "npu", r"not for adb:X, which names no SoC"),
        ("Qualcomm SM8650", "cpu", r"was compiled for SM8650: --accelerator npu runs it"),
    ],
)
def test_other_devices_refuse_it_by_name(for_sm8650: Bundle, soc: str, accelerator: str, message: str) -> None:
    facts = DeviceFacts(address="adb:X", soc=soc, python="python3", runtimes={"litert": "2.3.0"})
    with pytest.raises(RefusedError, match=message):
        plan_run(for_sm8650.manifest, facts, accelerator=accelerator)


def test_bench_on_this_machine_refuses_it_by_name(for_sm8650: Bundle) -> None:
    benched = run("bench", str(for_sm8650.path), "--accelerator", "npu")
    assert benched.returncode == 1
    assert "was compiled for SM8650, not for local" in benched.stderr


def test_existing_ones_are_kept(plain: Bundle, for_sm8650: Bundle) -> None:
    before = (for_sm8650.path / MANIFEST).read_bytes()
    with pytest.raises(OutputError, match="use --force"):
        compile_bundle(plain, SM8650, parent=for_sm8650.path.parent)
    assert (for_sm8650.path / MANIFEST).read_bytes() == before


@pytest.mark.parametrize("bundle", ["compiled", "onnx"])
def test_what_can_not_be_compiled(bundle: str, for_sm8650: Bundle, tmp_path: Path) -> None:
    if bundle == "compiled":
        given, message = for_sm8650, "is compiled already, for SM8650"
    else:
        given = divide_bundle(tmp_path, "onnx")
        message = r"is a onnx bundle: --for qnn-SM8650 compiles TFLite files; edgekit export --target tflite"
    with pytest.raises(RefusedError, match=message):
        compile_bundle(given, SM8650, parent=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_compiler_that_fails_or_hangs_leaves_nothing(plain: Bundle, qnn_environment: None, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"SM8350: the compiler ended with 6.*those of SM8450 and later SoCs"):
        compile_bundle(plain, parse_target("qnn:SM8350"), parent=tmp_path)
    with pytest.raises(ExportError, match="did not finish within 0 s and was ended"):
        compile_bundle(plain, SM8650, parent=tmp_path, timeout_s=0.01)
    assert [path.name for path in tmp_path.iterdir()] == [".edgekit"]
    assert not list((tmp_path / ".edgekit").glob("*.new-*"))


def test_without_the_compiler_the_error_names_the_command(
    plain: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(DeviceError, match=r"which is not set up here: edgekit devices setup local --runtime onnxrunti"):
        compile_bundle(plain, SM8650, parent=tmp_path / "out")


def test_ethos_u_takes_integers_and_is_not_run_here(int8: Bundle, tmp_path: Path) -> None:
    outcome = compile_bundle(int8, ETHOS_U, parent=tmp_path)
    manifest = outcome.bundle.manifest
    assert outcome.ok
    assert not manifest.proven
    assert (manifest.parity.verdict, manifest.parity.note.partition(":")[0]) == ("not-run", "not run here")
    assert manifest.compiled is not None
    report = manifest.compiled.report
    reasons = {left.operator: left.reason for left in report.left}
    assert reasons["EMBEDDING_LOOKUP"] == "Unsupported opType"
    assert report.operators == report.operators_taken + sum(left.count for left in report.left)
    assert report.operators_taken > report.operators / 2
    assert describe_tflite(outcome.bundle.model_path).operators["ethos-u"] == report.partitions
    with pytest.raises(EdgekitError, match="no such file runs here: it is for Ethos-U"):
        replay_steps(outcome.bundle.model_path, manifest.runtime, outcome.bundle.golden_path)


def test_float_files_are_not_compiled_for_ethos_u(plain: Bundle, tmp_path: Path) -> None:
    compiled = run("compile", str(plain.path), "--for", "ethos-u85-256", "-o", str(tmp_path / "out"))
    assert compiled.returncode == 1
    assert "no matrix product" in compiled.stderr
    assert "export with --quantize int8" in compiled.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".edgekit"]


def test_the_command_says_what_it_did(int8: Bundle, qnn_environment: None, tmp_path: Path) -> None:
    done = run("compile", str(int8.path), "--for", "ethos-u55-128,qnn:SM8550", "-o", str(tmp_path), "--json")
    assert done.returncode == 0, done.stderr
    first, second = json.loads(done.stdout)
    assert first["manifest"]["parity"]["verdict"] == "not-run"
    assert second["manifest"]["compiled"]["device"] == "SM8550"
    assert second["ok"] is True
    assert "not run here: Ethos-U runs in microcontrollers" in done.stderr
    assert sorted(path.name for path in tmp_path.glob("*.edgekit")) == [
        ".edgekit",
        "tiny.tflite-int8.ethos-u55-128.edgekit",
        "tiny.tflite-int8.qnn-SM8550.edgekit",
    ]


def test_what_openvino_compiled_for_the_cpu_is_measured_here(
    int8: Bundle, openvino_environment: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = compile_bundle(int8, parse_target("openvino"), parent=tmp_path).bundle
    compiled = made.manifest.compiled
    assert compiled is not None
    assert (compiled.device, compiled.report.left) == ("CPU", ())
    assert made.manifest.parity.max_abs_difference
    assert "OpenVINO on this machine's CPU" in made.manifest.parity.note
    monkeypatch.setenv("EDGEKIT_DB", str(tmp_path / "results.sqlite"))
    options = ("--min-secs", "0.1", "--num-runs", "5", "--json")
    benched = run("bench", str(made.path), "--accelerator", "npu", *options)
    answer = json.loads(benched.stdout)
    (npu,) = answer["outcomes"]  # and none beside it on the CPU, which can't run it
    measured = npu["measurement"]
    assert measured["verdict"] != "fell-back"
    assert "OpenVINO" in measured["coverage"]["actual"]

"""What lint says of files before any hardware: by the real compilers, checkers and accelerators."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgekit.bundle import Bundle
from edgekit.errors import DeviceError, RefusedError, UnknownNameError
from edgekit.export.describe_tflite import describe_tflite
from edgekit.export.lint.findings import Finding, LintReport
from edgekit.export.lint.run import check_accelerator, file_to_lint, lint_file
from tests.cli.test_main import run
from tests.conftest import lacking
from tests.export.compilable import write_bundle
from tests.export.hand_made import Op, write_tflite
from tests.export.routes import Routes

SWIFTSHADER = Path("/usr/lib/chromium/vk_swiftshader_icd.json")


@pytest.fixture(scope="module")
def plain(routes: Routes) -> Path:
    return routes.convert("tflite", "torch")[0]


@pytest.fixture(scope="module")
def int8(int8_file: Path) -> Path:
    return int8_file


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No driver for Vulkan, whatever the machine has."""
    monkeypatch.setenv("VK_ICD_FILENAMES", str(tmp_path / "none.json"))
    monkeypatch.setenv("VK_DRIVER_FILES", str(tmp_path / "none.json"))


@pytest.fixture
def swiftshader(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU of software: the driver that Debian's Chromium carries."""
    if not SWIFTSHADER.is_file():
        lacking("SwiftShader (Debian's chromium-common)")
    monkeypatch.setenv("VK_ICD_FILENAMES", str(SWIFTSHADER))


def rules(report: LintReport) -> dict[tuple[str, str], Finding]:
    return {(finding.rule, finding.operation): finding for finding in report.findings}


def hand_made(path: Path) -> Path:
    """int64 ids into a table, a mask of -inf, a tensor of rank 5, a length that is not fixed."""
    tensors = {
        "ids": ("int64", (1, 4)),
        "table": ("float32", (8, 4)),
        "found": ("float32", (1, 4, 4)),
        "mask": ("float32", (1, 4, 4)),
        "masked": ("float32", (1, 4, 4)),
        "shape": ("int32", (5,)),
        "split": ("float32", (1, 1, 4, 2, 2)),
        "text": ("float32", (1, -1)),
        "loud": ("float32", (1, -1)),
    }
    ops = [
        Op(kind="GATHER", inputs=("table", "ids"), outputs=("found",)),
        Op(kind="ADD", inputs=("found", "mask"), outputs=("masked",)),
        Op(kind="RESHAPE", inputs=("masked", "shape"), outputs=("split",)),
        Op(kind="EXP", inputs=("text",), outputs=("loud",)),
    ]
    constants = {"table": np.zeros((8, 4)), "mask": np.full((1, 4, 4), -np.inf), "shape": [1, 1, 4, 2, 2]}
    names = {"inputs": ("ids", "text"), "outputs": ("split", "loud")}
    return write_tflite(path, tensors, ops, constants=constants, **names)


def test_values_that_keep_a_tflite_file_from_gpus_and_nnapi(tmp_path: Path, no_gpu: None) -> None:
    file = hand_made(tmp_path / "model.tflite")
    for accelerator in ("gpu", "nnapi"):
        found = rules(lint_file(file, accelerator))
        assert found["int64", "GATHER"].where == ("ids",)
        assert "int32" in found["int64", "GATHER"].advice
        assert found["float16-range", "ADD"].effect == "wrong"
        assert "magnitude inf is infinite in float16" in found["float16-range", "ADD"].why
        assert found["rank", "RESHAPE"].where == ("split",)
        assert found["dynamic-shape", "EXP"].count == 2
        assert all(finding.source and finding.advice for finding in found.values())


def test_the_largest_float16_is_no_finding(tmp_path: Path) -> None:
    tensors = {"x": ("float32", (1, 4)), "mask": ("float32", (1, 4)), "y": ("float32", (1, 4))}
    for value, effects in ((-65504.0, set()), (-65505.0, {"wrong"})):
        ops = [Op(kind="ADD", inputs=("x", "mask"), outputs=("y",))]
        constants = {"mask": np.full((1, 4), value)}
        file = write_tflite(tmp_path / "m.tflite", tensors, ops, inputs=("x",), outputs=("y",), constants=constants)
        assert {finding.effect for finding in lint_file(file, "nnapi").findings} == effects


def test_what_tflites_nnapi_delegate_maps(plain: Path, tmp_path: Path) -> None:
    report = lint_file(plain, "nnapi")
    found = rules(report)
    operators = describe_tflite(plain).operators
    assert found["left-to-the-cpu", "BATCH_MATMUL"].count == operators["BATCH_MATMUL"]
    assert "does not map" in found["left-to-the-cpu", "BATCH_MATMUL"].why
    assert ("left-to-the-cpu", "FULLY_CONNECTED") not in found
    left = sum(finding.count for finding in report.findings if finding.rule == "left-to-the-cpu")
    assert (report.operators, report.operators_taken) == (sum(operators.values()), sum(operators.values()) - left)
    assert report.partitions is not None
    assert report.partitions > 1
    types = {"a": ("int32", (1, 4)), "b": ("float32", (1, 4)), "c": ("int32", (1, 4)), "d": ("float32", (1, 4))}
    ops = [Op(kind="ABS", inputs=("a",), outputs=("c",)), Op(kind="ABS", inputs=("b",), outputs=("d",))]
    file = write_tflite(tmp_path / "abs.tflite", types, ops, inputs=("a", "b"), outputs=("c", "d"))
    only = lint_file(file, "nnapi")
    assert [(finding.count, finding.where) for finding in only.findings] == [(1, ("c",))]
    assert "not of int32" in only.findings[0].why


def write_onnx(path: Path) -> Path:
    """int64 ids into a table, a norm of its own operator, Erf, a mask beyond float16."""
    mask = helper.make_tensor("mask", TensorProto.FLOAT, (1, 4, 4), [-1e30] * 16)
    table = helper.make_tensor("table", TensorProto.FLOAT, (8, 4), [0.0] * 32)
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["found"], name="look-up"),
        helper.make_node("Add", ["found", "mask"], ["masked"], name="mask"),
        helper.make_node("Erf", ["masked"], ["y"], name="erf"),
    ]
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, (1, 4))
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 4, 4))
    graph = helper.make_graph(nodes, "g", [ids], [y], [mask, table])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def test_onnx_files_by_onnxruntimes_own_checker(tmp_path: Path, routes: Routes) -> None:
    report = lint_file(write_onnx(tmp_path / "model.onnx"), "nnapi")
    found = rules(report)
    assert (report.operators, report.operators_taken, report.partitions) == (3, 2, 1)
    assert "no such operator" in found["left-to-the-cpu", "Erf"].why
    assert found["int64", "Gather"].where == ("ids",)
    assert "should be constant if not int32" in found["left-to-the-cpu", "Gather"].why
    assert found["float16-range", "Add"].effect == "wrong"
    real = lint_file(routes.convert("onnx", "torch")[0], "nnapi")
    assert real.operators_taken is not None
    assert 0 < real.operators_taken < (real.operators or 0)


def test_norms_by_tensorflow_are_simple_operators_as_the_advice_says(routes: Routes) -> None:
    by = {via: lint_file(routes.convert("onnx", via)[0], "nnapi") for via in ("torch", "tensorflow")}  # type: ignore[arg-type]
    advice = rules(by["torch"])["left-to-the-cpu", "LayerNormalization"].advice
    assert "--via tensorflow" in advice
    assert ("left-to-the-cpu", "LayerNormalization") not in rules(by["tensorflow"])


def test_qnn_by_its_own_compiler(plain: Path, int8: Path, qnn_environment: None) -> None:
    report = lint_file(plain, "qnn:SM8550")
    assert report.operators == sum(describe_tflite(plain).operators.values())
    assert "for SM8550" in report.judge
    table = rules(lint_file(int8, "qnn"))["left-to-the-cpu", "EMBEDDING_LOOKUP"]
    assert "does not take SFIXED_POINT_8, INT_32 → FLOAT_32" in table.why
    assert "keep the token table in float" in table.advice


def test_a_compiler_that_says_yes_to_each_and_fails_on_the_whole(plain: Path, qnn_environment: None) -> None:
    report = lint_file(plain, "qnn:SM8350")
    assert [(finding.rule, finding.effect) for finding in report.findings] == [("compiler-failed", "refused")]
    assert "fails on the whole" in report.findings[0].why
    assert report.operators_taken is None


def test_qnn_by_onnxruntimes_provider(tmp_path: Path, routes: Routes, qnn_environment: None) -> None:
    report = lint_file(routes.convert("onnx", "torch")[0], "qnn")
    assert (report.operators_taken, report.partitions) == (report.operators, 1)
    found = rules(lint_file(write_onnx(tmp_path / "model.onnx"), "qnn"))
    assert "`Erf` are not supported by QNN" in found["left-to-the-cpu", "Erf"].why
    assert found["float16-range", "Add"].effect == "wrong"


def test_ethos_u_by_vela(plain: Path, int8: Path, routes: Routes) -> None:
    report = lint_file(int8, "ethos-u")
    assert "ethos-u-vela 5.2.0 for ethos-u85-256" in report.judge
    assert rules(report)["left-to-the-cpu", "EMBEDDING_LOOKUP"].why == "Unsupported opType"
    whole = lint_file(plain, "ethos-u55-64")
    assert [(finding.rule, finding.effect) for finding in whole.findings] == [("float", "refused")]
    assert "--quantize int8" in whole.findings[0].advice
    other = lint_file(routes.convert("onnx", "torch")[0], "ethos-u")
    assert other.findings[0].advice == "edgekit export --target tflite --quantize int8"


def test_gpu_by_litert_where_there_is_a_driver(plain: Path, int8: Path, swiftshader: None) -> None:
    report = lint_file(plain, "gpu")
    assert "SwiftShader" in report.judge
    assert report.operators_taken == report.operators
    found = {finding.rule: finding for finding in lint_file(int8, "gpu").findings}
    assert found["integer-activations"].effect == "wrong"  # which this accelerator compiles without a word
    assert "--quantize none or fp16" in found["integer-activations"].advice


def test_gpu_by_the_published_list_where_there_is_none(plain: Path, no_gpu: None) -> None:
    report = lint_file(plain, "gpu")
    assert "LiteRT found no Vulkan driver here" in report.judge
    assert "not on the published list" in rules(report)["left-to-the-cpu", "GELU"].why
    assert report.operators_taken is not None
    assert 0 < report.operators_taken < (report.operators or 0)


def test_rfft2d_which_the_analyzer_calls_compatible(tmp_path: Path, no_gpu: None) -> None:
    tensors = {"x": ("float32", (1, 4)), "size": ("int32", (2,)), "y": ("float32", (1, 4))}
    ops = [Op(kind="RFFT2D", inputs=("x", "size"), outputs=("y",))]
    constants = {"size": [1, 4]}
    file = write_tflite(tmp_path / "m.tflite", tensors, ops, inputs=("x",), outputs=("y",), constants=constants)
    assert lint_file(file, "gpu").operators_taken == 0
    assert lint_file(file, "nnapi").operators_taken == 0


def test_what_an_accelerator_can_not_take(routes: Routes, plain: Path, tmp_path: Path) -> None:
    bundle: Bundle = write_bundle(tmp_path, routes, plain)
    with pytest.raises(RefusedError, match=r"is a tflite bundle, and coreml runs \.mlpackage files: edgekit export"):
        file_to_lint(bundle.path, "coreml")
    with pytest.raises(RefusedError, match=r"neither a bundle nor a \.tflite or \.onnx file"):
        file_to_lint(tmp_path / "weights.bin", "gpu")
    with pytest.raises(UnknownNameError, match="did you mean nnapi"):
        check_accelerator("nnap")
    with pytest.raises(UnknownNameError, match="did you mean SM8650"):
        check_accelerator("qnn:SM865")


def test_without_the_compiler_the_error_names_the_command(
    plain: Path, routes: Routes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for file in (plain, routes.convert("onnx", "torch")[0]):
        with pytest.raises(DeviceError, match=r"edgekit devices setup local --runtime onnxruntime-qnn"):
            lint_file(file, "qnn")


def test_the_command(plain: Path, int8: Path, routes: Routes, tmp_path: Path) -> None:
    bundles = [write_bundle(tmp_path, routes, plain), write_bundle(tmp_path, routes, int8, "int8")]
    paths = [str(bundle.path) for bundle in bundles]
    told = run("lint", *paths, "--for", "nnapi", "--json", "--strict")
    assert told.returncode == 1
    reports = json.loads(told.stdout)
    assert [Path(report["file"]).name for report in reports] == ["model.tflite"] * 2
    assert {"rule", "effect", "operation", "count", "where", "why", "advice", "source"} <= reports[0]["findings"][
        0
    ].keys()
    shown = run("lint", paths[0], "--for", "nnapi")
    assert shown.returncode == 0
    assert "[1] https://github.com/tensorflow" in shown.stdout
    assert f"nnapi would take {reports[0]['operators_taken']} of" in shown.stderr

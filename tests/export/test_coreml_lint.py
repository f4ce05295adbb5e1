"""Rules for the Neural Engine: each finds what it is for, and nothing in a program of Apple's own layout."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import pytest
from coremltools.converters.mil import Builder
from coremltools.converters.mil.mil import types

from edgekit.errors import BundleError
from edgekit.export.lint_coreml import RULES, Finding, lint_mlpackage
from tests.cli.test_main import run
from tests.export.routes import Routes

Body = Callable[..., Any]


def package(folder: Path, body: Body, *shapes: tuple[Any, ...], dtype: Any = types.fp16, inputs: Any = None) -> Path:
    """A program of one function, written as it stands: no pass of coremltools changes it."""
    specs = [Builder.TensorSpec(shape=shape, dtype=dtype) for shape in shapes]
    program = Builder.program(input_specs=specs, opset_version=ct.target.iOS17)(body)
    model = ct.convert(
        program,
        inputs=inputs,
        minimum_deployment_target=ct.target.iOS17,
        compute_precision=ct.precision.FLOAT32,
        pass_pipeline=ct.PassPipeline.EMPTY,
        skip_model_load=True,
    )
    model.save(str(folder / "model.mlpackage"))
    return folder / "model.mlpackage"


def rules(findings: list[Finding]) -> set[tuple[str, str]]:
    return {(finding.rule, finding.operation) for finding in findings}


def half(*shape: int) -> np.ndarray:
    return np.full(shape, 0.5, np.float16)


def test_apples_own_layout_has_no_findings(tmp_path: Path) -> None:
    def body(x: Any) -> Any:
        hidden = Builder.conv(x=x, weight=half(8, 4, 1, 1), pad_type="valid")
        return Builder.add(x=Builder.gelu(x=hidden, mode="EXACT"), y=np.float16(1))

    assert lint_mlpackage(package(tmp_path, body, (1, 4, 1, 64))) == []


def linear(x: Any) -> Any:
    return Builder.linear(x=x, weight=half(8, x.shape[-1]))


CASES: list[tuple[str, str, Body, tuple[tuple[int, ...], ...], Any]] = [
    ("layout", "linear", linear, ((1, 4, 64),), types.fp16),
    ("memory-copies", "transpose", lambda x: Builder.transpose(x=x, perm=[0, 3, 1, 2]), ((1, 2, 64, 64),), types.fp16),
    ("heads", "matmul", lambda x, y: Builder.matmul(x=x, y=y), ((1, 2, 64, 64), (1, 2, 64, 64)), types.fp16),
    ("last-axis", "expand_dims", lambda x: Builder.expand_dims(x=x, axes=[3]), ((1, 2, 64),), types.fp16),
    (
        "unsupported-operation",
        "gather",
        lambda x: Builder.gather(x=x, indices=[1], axis=1),
        ((1, 2, 1, 64),),
        types.fp16,
    ),
    (
        "unsupported-operation",
        "conv",
        lambda x: Builder.conv(x=x, weight=half(4, 4, 3, 3), pad_type="same", dilations=[2, 2]),
        ((1, 4, 64, 64),),
        types.fp16,
    ),
    ("integers", "mul", lambda x: Builder.mul(x=x, y=np.int32(2)), ((1, 64),), types.int32),
    ("float32", "exp", lambda x: Builder.exp(x=x), ((1, 4, 1, 64),), types.fp32),
]


@pytest.mark.parametrize(("rule", "operation", "body", "shapes", "dtype"), CASES)
def test_a_rule_finds_its_operation(
    rule: str, operation: str, body: Body, shapes: tuple[tuple[int, ...], ...], dtype: Any, tmp_path: Path
) -> None:
    findings = lint_mlpackage(package(tmp_path, _named(body, len(shapes)), *shapes, dtype=dtype))
    found = [finding for finding in findings if finding.rule == rule]
    assert [(finding.operation, finding.count, finding.function) for finding in found] == [(operation, 1, "main")]
    assert all(finding.where for finding in found)
    assert all(finding.why and finding.advice and finding.source.startswith("https://") for finding in findings)


def test_a_rank_that_is_too_high(tmp_path: Path) -> None:
    """coremltools writes none; the package of another tool is made by hand."""
    path = package(tmp_path, lambda x: Builder.exp(x=x), (1, 1, 1, 1, 64))
    file = path / "Data/com.apple.CoreML/model.mlmodel"
    spec = ct.proto.Model_pb2.Model.FromString(file.read_bytes())
    main = spec.mlProgram.functions["main"]
    tensor = main.block_specializations[main.opset].operations[-1].outputs[0].type.tensorType
    tensor.dimensions.add().constant.size = 64
    file.write_bytes(spec.SerializeToString())
    (finding,) = [finding for finding in lint_mlpackage(path) if finding.rule == "rank"]
    assert finding.why == "a tensor of rank 6; Core ML's runtime takes up to 5"


def test_every_rule_is_tried() -> None:
    assert {rule.name for rule in RULES} == {case[0] for case in CASES} | {"rank"}


def _named(body: Body, inputs: int) -> Body:
    """MIL's builder reads the names of a function's parameters."""
    return (lambda x: body(x)) if inputs == 1 else (lambda x, y: body(x, y))


def test_a_range_of_lengths(tmp_path: Path) -> None:
    symbol = ct.converters.mil.mil.get_new_symbol()
    ranged = [ct.TensorType(name="x", shape=(1, 4, 1, ct.RangeDim(16, 128, default=64)), dtype=np.float16)]
    path = package(tmp_path, lambda x: Builder.exp(x=x), (1, 4, 1, symbol), inputs=ranged)
    (finding,) = lint_mlpackage(path)
    assert (finding.rule, finding.effect, finding.where) == ("range", "falls back", ("x",))
    assert "--sequence-length" in finding.advice


def test_more_enumerated_shapes_than_core_ml_takes(tmp_path: Path) -> None:
    symbol = ct.converters.mil.mil.get_new_symbol()
    shapes = ct.EnumeratedShapes(shapes=[(1, 4, 1, 32 * n) for n in range(1, 131)])
    inputs = [ct.TensorType(name="x", shape=shapes, dtype=np.float16)]
    path = package(tmp_path, lambda x: Builder.exp(x=x), (1, 4, 1, symbol), inputs=inputs)
    (finding,) = lint_mlpackage(path)
    assert (finding.rule, finding.why) == ("enumerated-shapes", "130 enumerated shapes; Core ML takes up to 128")


def test_our_own_packages(routes: Routes) -> None:
    half_, single = (lint_mlpackage(routes.convert("coreml", "torch", scheme)[0]) for scheme in ("fp16", "none"))
    assert {finding.rule for finding in single} - {finding.rule for finding in half_} == {"float32"}
    assert {("layout", "linear"), ("unsupported-operation", "gather"), ("heads", "matmul")} <= rules(half_)
    effects = [finding.effect for finding in single]
    assert effects == sorted(effects)  # what falls back comes first
    whole = next(finding for finding in single if finding.rule == "float32")
    assert "linear" in whole.operation
    assert whole.count > 20


def test_a_package_that_is_broken(routes: Routes, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(routes.convert("coreml", "torch")[0], tmp_path / "broken.mlpackage"))
    spec = broken / "Data/com.apple.CoreML/model.mlmodel"
    spec.write_bytes(spec.read_bytes()[:1000])
    with pytest.raises(BundleError, match="truncated or not a Core ML specification"):
        lint_mlpackage(broken)


def test_the_verb(routes: Routes, tmp_path: Path) -> None:
    path = str(routes.convert("coreml", "torch", "fp16")[0])
    shown = run("lint", path, "--for", "coreml")
    assert shown.returncode == 0
    assert "unsupported-operation" in shown.stdout
    assert re.search(r"^\[1\] https://", shown.stdout, re.MULTILINE)
    assert len(shown.stderr.strip().splitlines()) == 1  # nothing of coremltools
    strict = run("lint", path, "--for", "coreml", "--strict", "--json")
    assert strict.returncode == 1
    assert strict.stderr == ""
    findings = json.loads(strict.stdout)["findings"]
    assert {"rule", "effect", "operation", "where", "why", "advice", "source"} <= set(findings[0])


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["x.mlpackage", "--for", "npu"], 1, ["lint --for npu is not offered", "qnn, coreml, ethos-u"]),
        (["x.mlpackage", "--for", "corelm"], 1, ["unknown accelerator 'corelm'", "did you mean coreml"]),
        (["x.tflite", "--for", "coreml"], 1, ["neither a bundle nor an .mlpackage"]),
        (["x.mlpackage", "--for", "coreml"], 1, ["can't read x.mlpackage", "No such file"]),
        (["x.mlpackage"], 2, ["--for"]),
    ],
)
def test_the_verb_says_no(argv: list[str], code: int, words: list[str], tmp_path: Path) -> None:
    shown = run("lint", *argv, cwd=tmp_path)
    assert shown.returncode == code
    for word in words:
        assert word in shown.stderr
    if code == 1:
        assert len(shown.stderr.strip().splitlines()) == 1

"""Each trap of coremltools: a module that does not convert without its workaround, and does with it."""

import functools
import logging
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgekit.errors import ExportError
from edgekit.export import coreml_torch
from edgekit.export.coreml_torch import Capture, convert_torch_module
from edgekit.export.coreml_workarounds import WORKAROUNDS, workarounds
from edgekit.mil.evaluator import load_evaluator
from edgekit.mil.failures import MilError

X = torch.tensor([[1.0, -2.0, 3.0]])
TABLE = torch.arange(10.0)


class Calls(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Tensor) -> Any:
        return self.function(*args)


class Inside(nn.Module):
    """A module two levels down."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.layer = nn.ModuleList([Calls(function)])

    def forward(self, *args: Tensor) -> Any:
        return self.layer[0](*args)


#: (workaround, the capture that trips, what is captured, words of the error without it)
TRIPS: list[tuple[str, Capture, Callable[[Tensor], Tensor], str]] = [
    ("int", "trace", lambda x: x + TABLE[1 : x.shape[1] + 1], "only 0-dimensional arrays"),
    ("new_ones", "export", lambda x: x + x.new_ones(1, 3), "new_ones"),
    ("new_ones", "trace", lambda x: x + x.new_ones(()), "new_ones"),
    ("new_ones", "export", lambda x: x + x.new_ones(x.shape, dtype=torch.bool), "new_ones"),
    ("diff", "export", lambda x: torch.diff(x, n=2, prepend=x[:, :1]), "diff"),
    ("diff", "trace", lambda x: torch.diff(x, dim=0, append=2 * x), "diff"),
    ("diff", "export", lambda x: torch.diff(x > 0).float(), "diff"),
    ("alias", "export", lambda x: torch.ops.aten.alias(x) + 1, "alias"),
    ("and", "export", lambda x: ((x > 0) & (x < 2)).float(), "__and__"),
    ("or", "export", lambda x: ((x > 0) | (x < -3)).float(), "__or__"),
    ("or", "trace", lambda x: ((x > 0) | (x < -3)).float(), "__or__"),
    ("where", "export", lambda x: torch.where(x > 0, 0, x), "select"),
    ("where", "export", lambda x: torch.where(x > 0, x, 0), "where"),
]


@pytest.mark.parametrize(("name", "capture", "function", "words"), TRIPS)
def test_a_conversion_fails_without_the_workaround_and_not_with_it(
    name: str,
    capture: Capture,
    function: Callable[[Tensor], Tensor],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    convert_torch_module(Calls(function), {"x": X}, captures=(capture,)).save(str(tmp_path / "m.mlpackage"))
    (output,) = load_evaluator(tmp_path / "m.mlpackage", precision="fp32").run({"x": X.numpy()}).values()
    np.testing.assert_array_equal(output, function(X).numpy())
    monkeypatch.setattr(coreml_torch, "workarounds", functools.partial(workarounds, without=(name,)))
    with pytest.raises(ExportError, match=words):
        convert_torch_module(Calls(function), {"x": X}, captures=(capture,))


def test_every_workaround_has_a_conversion_that_needs_it() -> None:
    torch_s = {each.name for each in WORKAROUNDS if each.framework == "torch"}
    assert torch_s == {name for name, *_ in TRIPS} | {"gelu"}  # below
    assert [each.name for each in WORKAROUNDS if each.framework == "tensorflow"] == ["Erfc", "StridedSlice"]  # below
    for each in WORKAROUNDS:
        assert "coremltools 9.0" in each.versions
        assert each.failure


def test_erfc_of_tensorflow() -> None:
    import coremltools as ct
    import tensorflow as tf

    concrete = tf.function(
        lambda x: tf.math.erfc(x) * 2.0, input_signature=[tf.TensorSpec((1, 3), name="x")]
    ).get_concrete_function()

    def convert(**options: Any) -> Any:
        with workarounds("tensorflow", **options):
            return ct.convert(
                [concrete], source="tensorflow", convert_to="milinternal", compute_precision=ct.precision.FLOAT32
            )

    with pytest.raises(NotImplementedError, match="'Erfc' not implemented"):
        convert(without=("Erfc",))
    operations = [operation.op_type for operation in convert().functions["main"].operations]
    assert [kind for kind in operations if kind not in ("const", "identity")] == ["erf", "sub", "mul"]


@pytest.mark.parametrize("capture", ["export", "trace"])
def test_gelu_by_tanh(capture: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    function = functools.partial(nn.functional.gelu, approximate="tanh")

    def difference() -> float:
        path = tmp_path / "m.mlpackage"
        convert_torch_module(Calls(function), {"x": X}, captures=(capture,)).save(str(path))
        (output,) = load_evaluator(path, precision="fp32").run({"x": X.numpy()}).values()
        return float(np.max(np.abs(output - function(X).numpy())))

    assert difference() < 1e-6
    monkeypatch.setattr(coreml_torch, "workarounds", functools.partial(workarounds, without=("gelu",)))
    assert (difference() > 1e-5) == (capture == "export")


def test_slices_of_tensorflow_at_run_time(tmp_path: Path) -> None:
    import coremltools as ct
    import tensorflow as tf

    table = tf.constant(np.arange(12, dtype=np.float32).reshape(4, 3))
    concrete = tf.function(
        lambda x: table[: tf.shape(x)[1]] + table[-tf.shape(x)[1] :],
        input_signature=[tf.TensorSpec((1, None), name="x")],
    ).get_concrete_function()
    shapes = ct.EnumeratedShapes(shapes=[(1, 2), (1, 3)])

    def run(**options: Any) -> Any:
        with workarounds("tensorflow", **options):
            model = ct.convert(
                [concrete],
                source="tensorflow",
                inputs=[ct.TensorType(name="x", shape=shapes)],
                compute_precision=ct.precision.FLOAT32,
                minimum_deployment_target=ct.target.iOS18,
                skip_model_load=True,
            )
        model.save(str(tmp_path / "m.mlpackage"))
        (output,) = load_evaluator(tmp_path / "m.mlpackage").run({"x": np.ones((1, 2), np.float32)}).values()
        return output

    with pytest.raises(MilError, match="slice_by_index"):
        run(without=("StridedSlice",))
    np.testing.assert_array_equal(run(), [[6, 8, 10], [12, 14, 16]])


def test_nothing_is_left_behind() -> None:
    from coremltools.converters.mil.frontend.torch import ops
    from coremltools.converters.mil.frontend.torch.internal_graph import InternalTorchIRNode
    from coremltools.converters.mil.frontend.torch.torch_op_registry import _TORCH_OPS_REGISTRY

    def state() -> Any:
        registered = dict(_TORCH_OPS_REGISTRY.name_to_func_mapping)
        patched = ops._cast, ops.convert_single_node, vars(InternalTorchIRNode)["from_exir_node"]
        return registered, patched, logging.root.manager.disable, list(warnings.filters)

    before = state()
    with workarounds("torch"):
        assert state()[0] != before[0]
    with pytest.raises(ZeroDivisionError), workarounds("torch"):
        raise ZeroDivisionError
    assert state() == before


@pytest.mark.parametrize(("capture", "name"), [("export", r"layer\.0"), ("trace", "0")])  # a trace has no lists
def test_an_error_names_the_operation_and_its_module(capture: Capture, name: str) -> None:
    module = Inside(lambda x: torch.special.bessel_j0(x))
    with pytest.raises(ExportError, match=rf"operation '.*special_bessel_j0.*' in the module '{name}'"):
        convert_torch_module(module, {"x": X}, captures=(capture,))


def test_an_error_names_both_ways() -> None:
    with pytest.raises(
        ExportError, match=r"^by export: .* in the outermost module: .*; by trace: .*bessel_j0"
    ) as error:
        convert_torch_module(Calls(torch.special.bessel_j0), {"x": X})
    assert "\n" not in str(error.value)


def test_what_torch_export_refuses_is_traced() -> None:
    """A branch on a value can't be captured by torch.export; a trace takes the side that the example takes."""
    module = Calls(lambda x: x + 1 if x.sum() > 0 else x - 1)
    metadata = convert_torch_module(module, {"x": X}).get_spec().description.metadata.userDefined
    assert metadata["com.github.apple.coremltools.source_dialect"] == "TorchScript"
    with pytest.raises(ExportError, match=r"^by export: GuardOnDataDependent") as error:
        convert_torch_module(module, {"x": X}, captures=("export",))
    assert "by trace" not in str(error.value)


def test_outputs_have_names_and_types() -> None:
    module = Calls(lambda x, n: {"scores": x * n, "nested": (x > 0, [n + 1])})
    model = convert_torch_module(module, {"x": X, "n": torch.ones(1, dtype=torch.int64)})
    assert [feature.name for feature in model.get_spec().description.input] == ["x", "n"]
    assert [feature.name for feature in model.get_spec().description.output] == ["scores", "nested_0", "nested_1_0"]


QUIET = """
import torch
from edgekit.export.coreml_torch import convert_torch_module
class Branch(torch.nn.Module):
    def forward(self, x):
        return x + 1 if x.sum() > 0 else x - 1
convert_torch_module(Branch(), {"x": torch.ones(1, 3)})
"""


@pytest.mark.slow
def test_it_says_nothing() -> None:
    run = subprocess.run([sys.executable, "-P", "-c", QUIET], capture_output=True, text=True, timeout=120, check=True)
    assert run.stdout == ""
    assert run.stderr == ""

"""Advice follows from evidence: each rule from a measurement that shows it, and none from one that shows nothing."""

from typing import Any

import pytest

from edgekit.bundle import Accuracy, Manifest, Parity
from edgekit.devices.advice import Evidence, Suggestion, remark, suggest
from edgekit.measurement import Coverage, DeviceParity, LeftBehind, Measurement
from edgekit.program import SourceRef
from tests.measurements import measurement, samples

WHOLE = Coverage(actual="GPU", nodes=60, nodes_on_accelerator=60, partitions=1)
WRONG = DeviceParity(verdict="failed", steps=50, max_abs_difference=1.48, tolerance=0.1)


def manifest(scheme: str = "none", rewrites: tuple[str, ...] = ()) -> Manifest:
    return Manifest(
        name="tiny",
        task="classify",
        target="tflite",
        via="torch",
        scheme=scheme,
        scheme_details={},
        rewrites=rewrites,
        model="model.tflite",
        runtime="litert",
        signatures=(),
        source=SourceRef(kind="checkpoint", path="tiny", framework="torch", task="classify", sha256="0" * 64),
        tools={},
        parity=Parity(verdict="within-tolerance", steps=1),
        accuracy=Accuracy(accuracy=None),
        golden_texts="",
        files={},
    )


def gpu(median_ms: float = 1.0, **changes: Any) -> Measurement:
    return measurement(median_ms, **{"accelerator": "gpu", "coverage": WHOLE} | changes)


def advised(
    made: Measurement | None, scheme: str = "none", rewrites: tuple[str, ...] = (), **known: Any
) -> list[tuple[str, tuple[str, ...]]]:
    accelerator = made.accelerator if made else known.pop("accelerator")
    evidence = Evidence(manifest=manifest(scheme, rewrites), accelerator=accelerator, measurement=made, **known)
    found = suggest(evidence)
    assert all(isinstance(each, Suggestion) and each.because for each in found)
    return [(each.scheme, each.rewrites) for each in found]


def test_what_runs_whole_right_and_faster_needs_nothing() -> None:
    assert advised(gpu(1.0), cpu=measurement(3.0)) == []
    assert advised(measurement(3.0)) == []


def test_integers_that_answer_wrongly_on_the_gpu_become_floats() -> None:
    assert advised(gpu(parity=WRONG), "int8") == [("fp16", ()), ("none", ())]


def test_integers_that_crash_the_gpu_become_floats() -> None:
    found = advised(None, "int8-weight", accelerator="gpu", error="model.tflite died of SIGSEGV")
    assert found == [("fp16", ()), ("none", ())]


def test_floats_that_answer_wrongly_get_masks_and_norms_for_float16() -> None:
    assert advised(gpu(parity=WRONG), "fp16")[0] == ("fp16", ("fp16-mask", "fp16-norm"))
    assert ("none", ()) in advised(gpu(parity=WRONG), "fp16")
    assert advised(gpu(parity=WRONG))[:2] == [("fp16", ()), ("fp16", ("fp16-mask", "fp16-norm"))]


@pytest.mark.parametrize(
    ("left", "rewrites"),
    [
        (("CAST",), ("float-mask",)),
        (("Erf", "CAST"), ("float-mask", "gelu-tanh")),
        (("BATCH_MATMUL", "TRANSPOSE"), ("split-heads",)),
    ],
)
def test_operators_left_behind_are_rewritten(left: tuple[str, ...], rewrites: tuple[str, ...]) -> None:
    coverage = WHOLE.model_copy(update={"left_behind": tuple(LeftBehind(operator=name, count=2) for name in left)})
    assert advised(gpu(coverage=coverage))[0] == ("none", rewrites)


def test_an_operator_that_nothing_takes_away_asks_for_nothing() -> None:
    coverage = WHOLE.model_copy(update={"left_behind": (LeftBehind(operator="GATHER", count=1),)})
    assert advised(gpu(coverage=coverage), cpu=measurement(3.0)) == []


def test_weights_that_are_unpacked_on_the_cpu_become_float32() -> None:
    coverage = WHOLE.model_copy(update={"left_behind": (LeftBehind(operator="DEQUANTIZE", count=19),)})
    assert advised(gpu(coverage=coverage), "fp16") == [("none", ())]


def test_what_is_slower_than_the_cpu_gets_other_numbers_and_fewer_operators() -> None:
    assert advised(gpu(9.0), cpu=measurement(3.0)) == [("fp16", ()), ("none", ("fused-heads",))]
    npu = gpu(9.0, accelerator="npu")
    assert advised(npu, cpu=measurement(3.0))[0] == ("int8", ())
    assert advised(gpu(3.0), cpu=measurement(3.0)) == []  # no sure difference


def test_what_fell_back_gets_what_the_accelerator_computes() -> None:
    idle = Coverage(actual="CPU", nodes=60, nodes_on_accelerator=0)
    assert advised(gpu(accelerator="npu", coverage=idle, verdict="fell-back"))[0] == ("fp16", ())


def test_integers_that_lose_to_float32_on_the_cpu() -> None:
    slow, fast = measurement(5.0), measurement(3.0)
    assert advised(slow, "int8", float32=fast) == [("int8-dynamic", ()), ("fp16", ())]
    assert advised(fast, "int8", float32=slow) == []
    assert advised(slow, "int8")[0] == ("none", ())  # float32 first: nothing is known without


def test_rewrites_that_the_bundle_has_are_kept_and_not_suggested_again() -> None:
    coverage = WHOLE.model_copy(update={"left_behind": (LeftBehind(operator="CAST", count=1),)})
    assert advised(gpu(coverage=coverage), "none", ("float-mask",)) == []
    assert advised(gpu(coverage=coverage), "none", ("fp16-norm",)) == [("none", ("float-mask", "fp16-norm"))]
    split = WHOLE.model_copy(update={"left_behind": (LeftBehind(operator="TRANSPOSE", count=1),)})
    assert advised(gpu(coverage=split), "none", ("fused-heads",)) == [("none", ("split-heads",))]


def test_moving_data_is_told_where_it_is_much() -> None:
    moving = gpu(1.0, samples=samples(1.0, transfer_ms=(2.0,) * 200))
    assert "moving data takes 6" in remark(Evidence(manifest=manifest(), accelerator="gpu", measurement=moving))
    assert remark(Evidence(manifest=manifest(), accelerator="gpu", measurement=gpu(1.0))) == ""

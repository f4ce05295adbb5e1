"""The quantization report's evidence: numbers computed again from raw files, and sentences that follow from them."""

import json
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from safetensors.numpy import load_file

from edgekit.bundle import Bundle, open_bundle
from edgekit.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from edgekit.export.diagnosis.advice import advise, front_of
from edgekit.export.diagnosis.files import check_bundles, compare_bundles
from edgekit.export.diagnosis.modules import diagnose_modules
from edgekit.export.diagnosis.ranges import FLOAT16_MAX, activation_ranges, weight_range
from edgekit.export.diagnosis.slow import explain_speed, family, lacking_features
from edgekit.export.diagnosis.times import ModuleTimes
from edgekit.export.diagnosis.why import explain_modules
from edgekit.export.pipeline import export_checkpoint
from edgekit.export.plan import plan_exports
from edgekit.measurement import Measurement, OperatorTime
from edgekit.proof.intervals import paired_interval
from edgekit.report.quantization import Module, ModuleCost, SchemeGroup, SchemeRow
from tests.export.sweeps import self_labelled_checkpoint
from tests.measurements import measurement
from tests.report.quantizations import module, row


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return self_labelled_checkpoint(tmp_path_factory.mktemp("diagnosis"))


@pytest.fixture(scope="module")
def bundles(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> list[Bundle]:
    folder = tmp_path_factory.mktemp("bundles")
    schemes = ["none", "int4-weight"]
    plans = plan_exports("own", checkpoint.config, targets=["tflite"], schemes=schemes, output=folder)
    outcomes = export_checkpoint(checkpoint, plans, eval_samples=60)
    assert all(outcome.manifest for outcome in outcomes), outcomes
    return [open_bundle(outcome.plan.path) for outcome in outcomes]


def test_numbers_are_those_of_the_raw_files(bundles: list[Bundle]) -> None:
    """Accuracy, labels changed and size, computed again with nothing of edgekit's: numpy and the runtime."""
    (group,), remarks = compare_bundles(bundles, check_bundles(bundles), {}, {})
    assert not remarks
    shown = json.loads(group.model_dump_json())["rows"][1]
    path = bundles[1].path
    golden = np.load(path / "golden.npz")
    runner = Interpreter(str(path / "model.tflite")).get_signature_runner()
    steps = sorted({key.split("/out/")[0] for key in golden.files if "/out/" in key})
    answers = [runner(**{name: golden[f"{step}/in/{name}"] for name in ("ids", "mask")})["logits"] for step in steps]
    predicted = np.array([np.argmax(each) for each in answers])
    expected = np.array([np.argmax(golden[f"{step}/out/logits"]) for step in steps])
    labels = golden["labels"]
    assert shown["scheme"] == "int4-weight"
    assert shown["size_bytes"] == (path / "model.tflite").stat().st_size
    assert shown["parity"]["labels_changed"] == np.count_nonzero(predicted != expected)
    assert shown["accuracy"]["accuracy"] == pytest.approx(np.mean(predicted == labels))
    change = 100 * (np.mean(predicted == labels) - np.mean(expected == labels))
    assert shown["accuracy"]["change_points"] == pytest.approx(change)
    assert shown["accuracy"]["low_points"] < change < shown["accuracy"]["high_points"]
    assert shown["accuracy"]["lost"] > 0  # this model loses labels in int4: there is something to show
    for text in shown["changed_texts"]:
        assert text["from_label"] != text["to_label"]
        assert text["text"].split()[0] in ("open", "close", "save", "print", "send", "delete", "copy", "move")


def test_paired_intervals_cover_what_they_promise() -> None:
    random = np.random.default_rng(1)
    covered = 0
    for _ in range(2000):
        lost, won, _ = random.multinomial(200, (0.04, 0.02, 0.94))
        low, high = paired_interval(int(lost), int(won), 200)
        covered += low <= -0.02 <= high
    assert covered / 2000 > 0.93
    low, high = paired_interval(0, 0, 300)
    assert low < 0 < high


def outlier_checkpoint(checkpoint: Checkpoint, folder: Path) -> Checkpoint:
    """The same model with one channel of a weight 31 times as wide."""
    weights = dict(checkpoint.weights)
    name = "blocks.0.ffn.down.weight"
    widths = np.max(np.abs(weights[name]), axis=1)
    changed = weights[name].copy()
    changed[5] *= 31 * np.median(widths) / widths[5]
    made = Checkpoint(**{**vars(checkpoint), "weights": weights | {name: changed}, "path": folder / "wide"})
    save_checkpoint(made, made.path)
    return load_checkpoint(made.path)


def test_an_outlier_is_found_in_the_file_of_weights_and_said(checkpoint: Checkpoint, tmp_path: Path) -> None:
    wide = outlier_checkpoint(checkpoint, tmp_path)
    weight = load_file(wide.path / "model.safetensors")["blocks.0.ffn.down.weight"]
    part = diagnose_modules(wide, "tflite", [], ModuleTimes(origin="not told"), ["no sweep"])
    found = next(module for module in part.modules if module.name == "blocks.0.ffn.down")
    assert found.weight
    widths = np.abs(weight).max(axis=1)
    assert (found.weight.outlier_channel, found.weight.channels) == (5, 32)
    assert found.weight.outlier_ratio == pytest.approx(widths[5] / np.median(widths))
    noise = []
    for scale in (widths.max() / 127, widths[:, None] / 127):
        noise.append(np.mean((np.round(weight / scale) * scale - weight).astype(np.float64) ** 2))
    assert found.weight.channels_fix == pytest.approx(1 - noise[1] / noise[0], rel=1e-3)
    assert (part.why, part.remarks) == ((), ("no sweep",))
    cost = ModuleCost(scheme="int8", kl=0.1, snr_db=20, drop_points=1, labels_changed=3, texts=60, non_finite=0)
    costly = found.model_copy(update={"costs": (cost,)})
    (sentence,) = explain_modules([costly], "int8", "tflite")
    ratio = f"{widths[5] / np.median(widths):.1f}"
    assert f"weight channel 5 of 32 has {ratio}× the median range" in sentence.text
    assert sentence.evidence["weight"]["outlier_ratio"] == found.weight.outlier_ratio
    broken = cost.model_copy(update={"non_finite": 4, "kl": None})
    (sentence,) = explain_modules([found.model_copy(update={"costs": (broken,)})], "int8", "tflite")
    assert sentence.text == "int8 makes NaN or infinity here."


def sentence_of(module: Module, scheme: str, target: str = "tflite") -> str:
    cost = ModuleCost(scheme=scheme, kl=0.1, snr_db=20, drop_points=1, labels_changed=3, texts=60, non_finite=0)
    (sentence,) = explain_modules([module.model_copy(update={"costs": (cost,)})], scheme, target)
    return sentence.text


def test_a_sentence_says_only_what_its_scheme_does() -> None:
    """The module's widest weight channel has 31× the median range, and of its activations one 5×."""
    down, tokens = module("blocks.0.ffn.down", 0.1), module("embed.tokens", 0.1)
    by_channel = "the scheme's scales by channel fix 80 % of the squared error of int8 with one scale"
    assert by_channel in sentence_of(down, "int8")
    assert by_channel in sentence_of(down, "int8-weight", "coreml")
    assert "would fix" not in sentence_of(down, "int8")
    assert "one scale for all its rows: scales by channel would fix 80 %" in sentence_of(tokens, "int8")
    assert "scales by channel" not in sentence_of(down, "int4-weight")
    assert "rounded to int4 in blocks of 32 are off by 10.0 % of their size" in sentence_of(down, "int4-weight", "onnx")
    assert "all of them share one scale" in sentence_of(down, "int4-weight")
    for target in ("onnx", "coreml"):  # which compute in float32
        assert "activations" not in sentence_of(down, "int4-weight", target)
    assert "nothing else explains it: it holds 10 % of the weights" in sentence_of(down, "palette8", "coreml")


def test_activations_are_those_of_real_tokens(checkpoint: Checkpoint) -> None:
    seen = activation_ranges(checkpoint, ["open the file"])
    table = checkpoint.weights["embed.tokens.weight"]
    ids = checkpoint.processor.encode(["open the file"])[0]
    assert seen["embed.tokens"].low == pytest.approx(float(table[ids].min()))
    assert seen["embed.tokens"].high == pytest.approx(float(table[ids].max()))
    norm = seen["blocks.0.attention_norm"]
    assert norm.largest == pytest.approx(max(abs(norm.low), abs(norm.high)) ** 2)
    assert norm.headroom == pytest.approx(FLOAT16_MAX / norm.largest)
    assert seen["blocks.0.attention.scores"].largest > 0


def test_a_norm_that_overflows_float16_is_said(checkpoint: Checkpoint) -> None:
    weights = dict(checkpoint.weights)
    weights["embed.tokens.weight"] = weights["embed.tokens.weight"] * 3000
    part = diagnose_modules(Checkpoint(**{**vars(checkpoint), "weights": weights}), "onnx", [], ModuleTimes())
    norms = next(line for line in part.headroom if line.subject == "fp16 headroom of norms")
    assert "float16 overflows there: keep " in norms.text
    assert norms.evidence["headroom"] < 1


def test_a_matrix_of_equal_channels_gains_nothing() -> None:
    found = weight_range(np.tile(np.linspace(-1, 1, 64, dtype=np.float32), (8, 1)))
    assert found
    assert (found.outlier_ratio, found.channels_fix) == (1.0, 0.0)
    assert weight_range(np.ones(8, dtype=np.float32)) is None


def timed(name: str, scheme: str, ms: float, *operators: tuple[str, float]) -> SchemeRow:
    times = tuple(OperatorTime(name=kind, kind=kind, count=1, ms=each) for kind, each in operators)
    made: Measurement = measurement(ms, operators=times)
    return row(name, 1000, ms, 0, scheme=scheme, measurement=made)


def test_what_took_the_gain_away_is_named() -> None:
    rows = (
        timed("f", "none", 1.0, ("Delegate/Fully Connected (NC, F32) GEMM", 0.8), ("Delegate/Softmax (NC, F32)", 0.1)),
        timed("q", "int8", 1.4, ("Delegate/Fully Connected (NC, QS8, QC8W) GEMM", 0.3), ("SOFTMAX", 0.9)),
        timed("r", "int8-dynamic", 1.1, ("Delegate/Fully Connected (NC, F32) GEMM", 0.7), ("QUANTIZE", 0.4)),
        timed("fast", "int4-weight", 0.4, ("Delegate/Fully Connected (NC, QD8, F32, QB4W)", 0.4)),
    )
    slow = explain_speed(SchemeGroup(model="m", model_sha256="0", texts="t", rows=rows))
    assert [each.subject for each in slow] == ["q", "r"]
    assert "(XNNPACK) of float32 do not take softmax (0.900 ms, 75 % of its time)" in slow[0].text
    assert slow[0].evidence["outside_ms"] == {"softmax": 0.9}
    assert "products left in float32: fully_connected (0.700 ms" in slow[1].text
    assert "quantizing and dequantizing take 0.400 ms (36 % of its time)" in slow[1].text
    assert slow[0].evidence["lacking"] == lacking_features()


def test_operators_have_one_name_whatever_kernel_ran_them() -> None:
    kinds = ("Delegate/Batch Matrix Multiply (NC, F32) GEMM", "BATCH_MATMUL", "MatMul", "DynamicQuantizeLinear")
    assert [family(kind) for kind in kinds] == ["batch_matmul", "batch_matmul", "matmul", "dynamic_quantize_linear"]


def test_what_loses_accuracy_for_sure_is_not_advised() -> None:
    rows = (row("none", 4000, 1.0, 0), row("good", 1000, 0.5, 1), row("bad", 500, 0.2, 30))
    group = SchemeGroup(model="m", model_sha256="0", texts="t", rows=rows, front=("none", "good", "bad"))
    (advice,) = advise(group)
    assert advice.subject == "good"
    assert "of 2 files that lose at most 0.5 points of accuracy here" in advice.text
    assert advise(group.model_copy(update={"rows": rows[2:]})) == ()


def test_each_target_has_its_own_advice_and_what_was_not_timed_is_judged_by_size() -> None:
    rows = (
        row("t", 1000, 0.5, 0),
        row("c", 400, 0.5, 0, target="coreml", latency=None),
        row("d", 300, 0.5, 30, target="coreml", latency=None),
    )
    assert front_of(rows) == ("t", "c", "d")
    ship = advise(SchemeGroup(model="m", model_sha256="0", texts="t", rows=rows, front=front_of(rows)))
    assert [(each.evidence["target"], each.subject, each.evidence["timed"]) for each in ship] == [
        ("tflite", "t", True),
        ("coreml", "c", False),
    ]
    assert "size × latency" not in ship[1].text

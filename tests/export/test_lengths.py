"""Sequence lengths: which ones are chosen, files of several by every route and scheme, and bundles of them."""

import itertools
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.bundle import Manifest, open_bundle
from edgekit.cli.export_lengths import choose_lengths as printed_lengths
from edgekit.errors import RefusedError
from edgekit.export.describe import FileDescription, describe_file
from edgekit.export.lengths import choose_lengths, default_lengths, fit_each, fit_steps, length_name, length_signatures
from edgekit.export.operations import find_compressor
from edgekit.export.plan import ForeignModel, plan_exports
from edgekit.export.quantize.mixture import Mixture, mixture_of
from edgekit.export.recipes import Recipe, Rule
from edgekit.export.schemes import CALIBRATED, SCHEMES, tolerance_of
from edgekit.export.snippets import python_snippet
from edgekit.export.targets import TARGETS
from edgekit.predict import predict_texts
from edgekit.program import FRAMEWORKS, Framework, Signature
from edgekit.proof.golden import Golden, read_golden, stack_outputs, text_steps, write_golden
from edgekit.proof.replay import replay_steps
from edgekit.sources.checkpoint import SIGNATURE, encoder_signature
from tests.cli.conftest import Edgekit, edgekit  # noqa: F401  (a fixture)
from tests.export.routes import LENGTH, Routes
from tests.tiny import tiny_checkpoint, tiny_writer

LENGTHS = (4, 8, LENGTH)
QUANTIZED = [scheme for scheme, targets in SCHEMES.items() if "tflite" in targets and scheme != "none"]


def work(length: int) -> float:
    return length + length**2 / 32


@given(st.lists(st.integers(1, 32), min_size=1, max_size=60), st.integers(1, 4))
def test_no_other_lengths_need_less_work(tokens: list[int], most: int) -> None:
    def filled(length: int) -> float:
        """Rows that kernels compute: they take 4, 5, 6 or 7 at a time."""
        return sum(math.ceil(length / tile) * tile for tile in (4, 5, 6, 7)) / 4

    def needed(lengths: tuple[int, ...]) -> float:
        taken = [next(length for length in lengths if length >= count) for count in tokens]
        return sum(work(length) * filled(length) / length for length in taken)

    chosen = choose_lengths(tokens, 32, work, most)
    assert chosen == tuple(sorted(set(chosen)))
    assert chosen[-1] == 32
    assert len(chosen) <= most
    same_number = itertools.combinations(range(4, 32, 4), len(chosen) - 1)
    assert needed(chosen) <= min(needed((*shorter, 32)) for shorter in same_number) + 1e-9


def test_lengths_of_skewed_texts_and_of_equal_ones() -> None:
    assert choose_lengths([5] * 90 + [30] * 10, 64, work) == (5, 30, 64)
    assert choose_lengths([5] * 90 + [30] * 10, 64, work, most=2) == (5, 64)
    assert choose_lengths([63] * 10, 64, work) == (64,)


def test_default_lengths_are_those_of_the_data_that_can_be_proven(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(tmp_path, max_length=64)
    choice = default_lengths(checkpoint, None)
    assert choice.lengths == (17, 20, 64)  # texts of 14 to 20 bytes
    assert "validation texts of" in choice.reason
    assert "of the work of padding all to 64" in choice.reason
    assert default_lengths(checkpoint, 1).lengths == (64,)
    (tmp_path / "data.tsv").unlink()
    choice = default_lengths(checkpoint, None)
    assert choice.lengths == (64,)
    assert "its data's own lengths are not known: there is no data file" in choice.reason


def test_default_lengths_of_a_translator_are_those_of_its_source_texts(tmp_path: Path) -> None:
    checkpoint = tiny_writer(tmp_path, "translate")
    choice = default_lengths(checkpoint, None)
    assert choice.lengths == (16, 40)
    assert "validation texts to translate of 16 to 16 tokens" in choice.reason
    (tmp_path / "pairs.tsv").unlink()
    choice = default_lengths(checkpoint, None)
    assert choice.lengths == (40,)
    assert "its data's own lengths are not known: there is no data file" in choice.reason


def test_what_each_target_takes_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = tiny_writer(tmp_path, "translate")

    def said(**options: Any) -> tuple[tuple[int, ...], str]:
        plans = plan_exports("tiny", checkpoint.config, by_default=True, **options)
        return printed_lengths(checkpoint, plans, None, None), capsys.readouterr().err

    lengths, told = said(targets=["tflite", "onnx", "coreml"])
    assert lengths == (16, 40)
    assert "Sequence lengths of onnx: any, up to 40." in told
    assert "Sequence lengths of tflite: 16, 40 (chosen for" in told
    assert said(targets=["onnx"], kv_cache="static") == ((), "")  # source texts are padded to the longest there


def test_plans_name_what_a_target_makes_of_lengths(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(tmp_path)
    targets = ["tflite", "onnx", "savedmodel", "pt2"]
    own = encoder_signature(checkpoint, "torch")

    def shapes(**options: object) -> dict[str, list[tuple[str, int, bool]]]:
        plans = plan_exports("tiny", checkpoint.config, targets=targets, **options)  # type: ignore[arg-type]
        return {
            plan.target.name: [(s.name, s.inputs[0].shape[1], s.dynamic_length) for s in plan.signatures(own)]
            for plan in plans
        }

    one = [(SIGNATURE, 16, False)]
    free = [(SIGNATURE, 16, True)]
    assert shapes() == dict.fromkeys(targets, one)
    assert shapes(lengths=(16,)) == dict.fromkeys(targets, one)
    several = {"tflite": [*one, ("length_8", 8, False)], "onnx": free, "savedmodel": free, "pt2": one}
    assert shapes(lengths=(8, 16)) == several
    assert shapes(lengths=(16,), by_default=True) == several | {"tflite": one}


def test_a_model_that_no_graph_of_any_length_has() -> None:
    model = ForeignModel(frameworks=("torch",), parameters=0, max_length=16, any_length=False)
    targets = {"targets": ["tflite", "onnx"], "lengths": (8, 16)}
    plans = plan_exports("tiny", model, by_default=True, **targets)  # type: ignore[arg-type]
    assert [(plan.lengths, plan.problem) for plan in plans] == [((8, 16), None), ((), None)]
    several, one = plan_exports("tiny", model, **targets)  # type: ignore[arg-type]
    assert several.problem is None
    assert "onnx takes one sequence length: this model can't be captured with any" in str(one.problem)


@pytest.mark.parametrize(
    ("target", "lengths", "words"),
    [
        ("pt2", (8, 16), "pt2 takes one sequence length"),
        ("tflite", (8, 12), "must be the model's own, 16 tokens, not 12: add it"),
        ("onnx", (8, 32), "takes no more than 16"),
    ],
)
def test_lengths_that_can_not_be(target: str, lengths: tuple[int, ...], words: str, tmp_path: Path) -> None:
    config = tiny_checkpoint(tmp_path).config
    (plan,) = plan_exports("tiny", config, targets=[target], lengths=lengths)
    assert isinstance(plan.problem, RefusedError)
    assert words in str(plan.problem)


def test_a_bundle_tells_the_length_for_a_text(tmp_path: Path) -> None:
    own = encoder_signature(tiny_checkpoint(tmp_path), "torch")

    def made(*signatures: Signature, **options: object) -> Manifest:
        return Manifest.model_construct(signatures=signatures, target_options=options)

    several = made(*length_signatures(own, (4, 8, 16)))
    assert several.lengths == {4: "length_4", 8: "length_8", 16: SIGNATURE}
    assert [several.length_for(tokens) for tokens in (0, 4, 5, 16, 17)] == [4, 4, 8, 16, 16]
    shapes = made(own, sequence_lengths=[4, 16])
    assert shapes.lengths == {4: SIGNATURE, 16: SIGNATURE}
    free = made(own.model_copy(update={"dynamic_length": True}))
    assert [free.length_for(tokens) for tokens in (0, 5, 16, 17)] == [1, 5, 16, 16]
    assert [made(own).length_for(tokens) for tokens in (1, 99)] == [16, 16]


def several(routes: Routes, target: str, framework: Framework) -> tuple[Path, tuple[Signature, ...]]:
    """The file of a route that takes several lengths, and its signatures."""
    own = encoder_signature(routes.checkpoint, framework, LENGTH)
    signatures = length_signatures(own, LENGTHS)
    if TARGETS[target].lengths == "dynamic":
        signatures = (own.model_copy(update={"dynamic_length": True}),)
    made, _ = routes.convert(target, framework, name=f"lengths-{target}-{framework}", signatures=signatures)
    return made, signatures


def fitted(golden: Golden, target: str) -> Golden:
    if TARGETS[target].lengths == "dynamic":
        return fit_each(golden)
    return fit_steps(golden, LENGTHS, lambda length: SIGNATURE if length == LENGTH else length_name(length))


def replayed(model: Path, target: str, golden: Golden, runtime: str = "") -> np.ndarray:
    steps = model.parent / f"steps-{model.stem}.npz"
    write_golden(steps, golden)
    return stack_outputs(replay_steps(model, runtime or TARGETS[target].runtime, steps).produced.steps, "logits")


def weights(description: FileDescription) -> int:
    return sum(count.elements for dtype, count in description.weights.items() if dtype.startswith("float"))


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("target", ["tflite", "onnx"])
def test_every_length_answers_as_the_model_does(routes: Routes, target: str, framework: Framework) -> None:
    model, signatures = several(routes, target, framework)
    golden = fitted(routes.golden(framework), target)
    assert len({step.inputs["ids"].shape for step in golden.steps}) >= len(LENGTHS)
    reference = stack_outputs(golden.steps, "logits")
    tolerance = 1e-5 * max(1.0, float(np.abs(reference).max()))
    for runtime in ("litert", "litert-compiled") if target == "tflite" else ("onnxruntime",):
        assert np.abs(replayed(model, target, golden, runtime) - reference).max() <= tolerance
    padded, one = routes.golden(framework), routes.convert(target, framework)[0]
    apart = np.abs(replayed(one, target, padded) - replayed(model, target, golden)).max()
    assert apart <= 1e-6 * max(1.0, float(np.abs(reference).max()))
    tables = sum(LENGTHS[:-1]) * routes.checkpoint.config.hidden_size  # of positions, cut to each length
    assert weights(describe_file(model)) <= weights(describe_file(one)) + tables + 100
    assert {s.name for s in describe_file(model).signatures} == {s.name for s in signatures}


def test_a_savedmodel_takes_any_length(routes: Routes) -> None:
    model, _ = several(routes, "savedmodel", "tensorflow")
    golden = fitted(routes.golden("tensorflow"), "savedmodel")
    reference = stack_outputs(golden.steps, "logits")
    assert np.abs(replayed(model, "savedmodel", golden) - reference).max() <= 1e-5 * max(1, np.abs(reference).max())


def calibration(routes: Routes) -> Path:
    path = routes.folder / "lengths-calibration.npz"
    if not path.exists():
        ids = np.random.default_rng(1).integers(3, 259, (40, LENGTH)).astype(np.int32)
        mask = (np.arange(LENGTH) < np.arange(40)[:, None] % LENGTH + 1).astype(np.int32)
        write_golden(path, Golden(steps=text_steps({"ids": ids * mask, "mask": mask}, SIGNATURE), labels=np.zeros(40)))
    return path


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("scheme", [*QUANTIZED, "mixed"])
def test_every_scheme_takes_all_lengths(routes: Routes, scheme: str, framework: Framework) -> None:
    """Each weight once, in the scheme; and each text by its own length answers as padded to the longest."""
    model, _ = several(routes, "tflite", framework)
    output = model.with_name(f"{scheme}.tflite")
    steps = calibration(routes) if scheme in CALIBRATED else None
    rule = Rule(modules="classifier", scheme="int8-dynamic")
    recipe = Recipe(name="mixed", scheme="int4-weight", rules=(rule,))
    asked = mixture_of(recipe, routes.checkpoint, "tflite") if scheme == "mixed" else Mixture(scheme=scheme)
    evidence = find_compressor("tflite", "none" if scheme == "mixed" else scheme)(model, output, asked, steps)
    one, _ = routes.convert("tflite", framework)
    alone = output.with_name(f"{scheme}-alone.tflite")
    evidence_alone = find_compressor("tflite", "none" if scheme == "mixed" else scheme)(one, alone, asked, steps)
    if evidence and evidence_alone and scheme not in CALIBRATED:  # those take tables of positions too, one a length
        assert evidence.quantized_elements == evidence_alone.quantized_elements
    golden = routes.golden(framework)
    own, padded = (
        replayed(output, "tflite", fitted(golden, "tflite"), "litert-compiled"),
        replayed(alone, "tflite", golden),
    )
    within = tolerance_of(asked.used).relative / 2
    assert np.abs(own - padded).max() <= within * max(1.0, float(np.abs(padded).max()))


def test_equal_scales_are_stored_once(routes: Routes) -> None:
    """A table of int4 has a scale for each row: a copy for each length would be larger than the table itself."""
    from ai_edge_litert.tools import flatbuffer_utils

    source, _ = several(routes, "tflite", "torch")
    output = source.with_name("int4.tflite")
    find_compressor("tflite", "int4-weight")(source, output, Mixture(scheme="int4-weight"), None)
    tensors = [tensor for graph in flatbuffer_utils.read_model(str(output)).subgraphs for tensor in graph.tensors]
    scales = [t.quantization.scale for t in tensors if t.quantization is not None and t.quantization.scale is not None]
    rows = [np.asarray(each, np.float32).tobytes() for each in scales if len(each) == 259]
    assert len(rows) == len(LENGTHS)
    assert output.read_bytes().count(rows[0]) == 1
    assert output.read_bytes().count(b"\0" * 8 * 259) == 1  # zero points


def test_from_texts_to_bundles_that_answer(edgekit: Edgekit, tmp_path: Path) -> None:  # noqa: F811
    """Chosen lengths are said; predict takes the shortest that fits; a text that none holds is cut, with a warning."""
    tiny_checkpoint(tmp_path, max_length=32)
    shown = edgekit("export", "tiny", "--target", "tflite,onnx", "--quantize", "none", "--json")
    assert shown.code == 0, shown.err
    assert "Sequence lengths of onnx: any, up to 32." in shown.err
    assert "Sequence lengths of tflite: 17, 20, 32 (chosen for" in " ".join(shown.err.split())
    texts = ["open", "letterum deleteare", "a text of more than thirty-two bytes, all told"]
    expected = predict_texts(tmp_path / "tiny", texts)
    for row in shown.json():
        bundle = open_bundle(tmp_path / row["bundle"])
        assert bundle.manifest.parity.verdict == "within-tolerance"
        predicted = predict_texts(bundle.path, texts)
        assert [[label for label, _ in each] for each in predicted] == [
            [label for label, _ in each] for each in expected
        ]
        np.testing.assert_allclose([e[0][1] for e in predicted], [e[0][1] for e in expected], rtol=1e-4)
        call = [sys.executable, "-c", python_snippet(bundle.path)]  # as the bundle's README shows it
        assert "logits (1, 2) float32" in subprocess.run(call, cwd=bundle.path, capture_output=True, text=True).stdout
        shapes = {step.inputs["ids"].shape[1] for step in read_golden(bundle.golden_path).steps}
        assert shapes == {17, 20, 32} if bundle.manifest.target == "tflite" else len(shapes) > 2
    assert {row["manifest"]["runtime"] for row in shown.json()} == {"litert-compiled", "onnxruntime"}
    shown = edgekit("predict", tmp_path / "bundles" / "tiny.tflite-none.edgekit", *texts, "--json")
    assert "edgekit: warning: 1 of 3 texts cut to 32 tokens" in shown.err
    assert len(json.loads(shown.out)) == 3
    shown = edgekit("verify")
    assert shown.code == 0, shown.err
    shown = edgekit("bench", "--device", "local", "--num-runs", "50", "--min-secs", "0", "--cold-starts", "0", "--json")
    assert shown.code == 0, shown.err
    assert {each["measurement"]["parity"]["verdict"] for each in shown.json()["outcomes"]} == {"within-tolerance"}

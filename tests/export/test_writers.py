"""Models that write, exported to TFLite: one copy of the weights, proven by what they write, and what is refused."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.tools import flatbuffer_utils

from edgekit.bundle import Bundle, WrittenTexts, check_files, open_bundle
from edgekit.checkpoint import load_checkpoint
from edgekit.devices.runner.litert_states import updated_in_place
from edgekit.errors import RefusedError, RunnerError
from edgekit.export.describe import describe_file
from edgekit.export.operations import find_compressor
from edgekit.export.placing import place_golden
from edgekit.export.plan import plan_exports
from edgekit.export.quantize.mixture import Mixture
from edgekit.export.quantize.tflite_weights import float_weights
from edgekit.export.snippets import python_snippet
from edgekit.export.tflite_tied import finish_writer
from edgekit.export.tflite_writer import serialize
from edgekit.export.writer_forms import target_signatures
from edgekit.export.writer_steps import writer_steps
from edgekit.model.config import TransformerConfig
from edgekit.model.sizes import parameter_count
from edgekit.program import FRAMEWORKS, Framework, ModelTask
from edgekit.proof.bisect import bisect_bundle
from edgekit.proof.golden import Golden, read_golden, write_golden
from edgekit.proof.golden_texts import GoldenTexts, pack_texts, unpack_texts
from edgekit.proof.held_out_texts import choose_texts
from edgekit.proof.in_framework import ProgramBackend, run_checkpoint
from edgekit.proof.prove import prove_file
from edgekit.proof.writing import Prompt, WritingSettings, run_here, write_texts
from edgekit.proof.written import write_reference
from edgekit.sources.writers import build_writer_program
from edgekit.text.processor import BOS_ID, EOS_ID, Processor
from edgekit.train.text_metrics import GenerationMetrics, Translation, translation_metrics
from tests.conftest import keeping
from tests.export.test_pipeline import EDGEKIT, refuses
from tests.export.test_pipeline import edgekit as run_edgekit
from tests.tiny import tiny_writer

QUANTIZED = {"generate": "int8-dynamic", "translate": "int8-weight"}
TASKS: tuple[ModelTask, ...] = ("generate", "translate")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, kept_exports: Path) -> Path:
    """A folder with a model of each task, each trained in another framework, exported by both routes and quantized."""
    folder = tmp_path_factory.mktemp("writers")
    for task, framework in zip(TASKS, FRAMEWORKS, strict=True):
        tiny_writer(folder, task, framework=framework)
        schemes = f"none,{QUANTIZED[task]}"
        argv = [*EDGEKIT, "export", task, "--via", "torch,tensorflow", "--quantize", schemes]
        with keeping(kept_exports):
            run = subprocess.run(argv, capture_output=True, text=True, cwd=folder, check=False)
        assert run.returncode in (0, 1), run.stderr  # random weights may lose more in int8 than a scheme allows
        (folder / f"said-{task}.txt").write_text(run.stderr)
    return folder


def bundle_of(workspace: Path, task: str, scheme: str = "none", via: Framework = "torch") -> Bundle:
    suffix = "" if via == "torch" else f"-via-{via}"
    return open_bundle(workspace / "bundles" / f"{task}.tflite-{scheme}{suffix}.edgekit")


def written_of(bundle: Bundle) -> WrittenTexts:
    assert bundle.manifest.written is not None
    return bundle.manifest.written


@pytest.mark.parametrize("via", FRAMEWORKS)
@pytest.mark.parametrize("task", TASKS)
def test_a_float_file_writes_the_tokens_of_its_source(workspace: Path, task: ModelTask, via: Framework) -> None:
    bundle = bundle_of(workspace, task, via=via)
    check_files(bundle)
    manifest, written = bundle.manifest, written_of(bundle)
    assert manifest.proven
    names = ["prefill_8", "prefill_32", "decode"] if task == "generate" else ["encode_16", "encode", "decode"]
    assert [signature.name for signature in manifest.signatures] == names
    assert updated_in_place(str(bundle.model_path)) == {name for name in names if not name.startswith("encode")}
    assert {step.signature for step in read_golden(bundle.golden_path).steps} == set(names)
    assert (written.texts_equal, written.tokens_equal) == (written.prompts, written.tokens)
    assert written.samples == written.population > 2
    assert written.prompts == 64  # all that there are, as there are fewer than 200
    assert written.tokens > 8 * written.prompts
    assert written.scores is not None
    assert written.reference_scores is not None
    assert written.scores.bits_per_byte == pytest.approx(written.reference_scores.bits_per_byte, rel=1e-5)
    assert (written.scores.chrf is None) == (task == "generate")
    assert written.scores.chrf == written.reference_scores.chrf
    assert manifest.accuracy.accuracy is None


@pytest.mark.parametrize("via", FRAMEWORKS)
@pytest.mark.parametrize("task", TASKS)
def test_all_signatures_share_one_copy_of_the_weights(workspace: Path, task: ModelTask, via: Framework) -> None:
    config = load_checkpoint(workspace / task).config
    bundle = bundle_of(workspace, task, via=via)
    stored = describe_file(bundle.model_path).weights
    assert stored["float32"].elements < 1.03 * parameter_count(config) + 100
    weights = describe_file(bundle_of(workspace, task, QUANTIZED[task], via).model_path).weights
    assert 0.9 * parameter_count(config) < weights["int8"].elements < 1.03 * parameter_count(config)


@pytest.mark.parametrize("via", FRAMEWORKS)
def test_int4_keeps_one_copy_too(workspace: Path, via: Framework, tmp_path: Path) -> None:
    source = bundle_of(workspace, "translate", via=via).model_path
    compress = find_compressor("tflite", "int4-weight")
    evidence = compress(source, tmp_path / "model.tflite", Mixture(scheme="int4-weight"), None)
    assert evidence is not None
    assert 0 < evidence.largest_difference_in_steps <= 1.001
    parameters = parameter_count(load_checkpoint(workspace / "translate").config)
    stored = describe_file(tmp_path / "model.tflite").weights["int4"].elements
    assert 0.9 * parameters < stored < 1.03 * parameters
    prompt, settings = Prompt(ids=(BOS_ID,), source=(BOS_ID, 80, 90)), WritingSettings(max_new_tokens=3)
    (text,) = write_texts(run_here(tmp_path / "model.tflite", "litert-compiled"), [prompt], settings)
    assert len(text.ids) == 3


@pytest.mark.parametrize("via", FRAMEWORKS)
@pytest.mark.parametrize("task", TASKS)
def test_quantized_files_say_how_many_tokens_are_the_same(workspace: Path, task: ModelTask, via: Framework) -> None:
    bundle = bundle_of(workspace, task, QUANTIZED[task], via)
    written, evidence = written_of(bundle), bundle.manifest.scheme_details["evidence"]
    # a table of positions that is cut to a shorter source text is a constant of its own, which stays in float
    cut = sum(32 * each.inputs[0].shape[1] for each in bundle.manifest.signatures if each.name.startswith("encode_"))
    assert evidence["quantized_elements"] / (evidence["matrix_elements"] - cut) > 0.95
    assert 0 < evidence["largest_difference_in_steps"] <= 1.001
    assert 0 < written.tokens_equal <= written.tokens
    assert written.scores is not None
    assert written.reference_scores is not None
    assert written.scores.bits_per_byte != written.reference_scores.bits_per_byte
    assert bundle.model_size_bytes < bundle_of(workspace, task, via=via).model_size_bytes


def test_a_cache_of_int8_is_a_quarter_and_costs_few_tokens(workspace: Path, kept_exports: Path) -> None:
    for task in TASKS:
        argv = ("export", workspace / task, "--via", "tensorflow", "--cache-dtype", "int8", "-o", "packed")
        with keeping(kept_exports):
            run_edgekit(*argv, cwd=workspace)
        bundle = open_bundle(workspace / "packed" / f"{task}.tflite-none-via-tensorflow+int8-cache.edgekit")
        manifest, written = bundle.manifest, written_of(bundle)
        assert manifest.proven
        decode = manifest.signatures[-1]
        kept = [spec for spec in decode.inputs if spec.name in decode.states | decode.given]
        assert {spec.dtype for spec in kept} == {"int8"}
        assert manifest.scheme_details["cache"].startswith("int8 between calls")
        assert 0.8 * written.tokens < written.tokens_equal
        steps = read_golden(bundle.golden_path).steps
        assert all(step.outputs[name].dtype == np.int8 for step in steps for name in step.outputs if name != "logits")
    found = json.loads(run_edgekit("verify", bundle.path, "--json", cwd=workspace).stdout)
    assert found[0]["ok"]
    assert WrittenTexts.model_validate(found[0]["written"]) == written


def test_verify_repeats_what_was_measured(workspace: Path) -> None:
    bundles = [bundle_of(workspace, "generate", via="tensorflow"), bundle_of(workspace, "translate")]
    found = json.loads(run_edgekit("verify", *(bundle.path for bundle in bundles), "--json", cwd=workspace).stdout)
    for bundle, result in zip(bundles, found, strict=True):
        assert result["parity"]["max_abs_difference"] == bundle.manifest.parity.max_abs_difference
        assert WrittenTexts.model_validate(result["written"]) == written_of(bundle)
    shown = run_edgekit("inspect", bundles[1].path, cwd=workspace).stdout
    assert f"{written_of(bundles[1]).tokens} of {written_of(bundles[1]).tokens} tokens (100.0 %)" in shown
    assert "chrF" in shown


def test_source_lengths_are_those_of_the_data_and_are_proven(workspace: Path) -> None:
    said = (workspace / "said-translate.txt").read_text().replace("\n", " ")
    assert "Sequence lengths of tflite: 16, 40 (chosen for 1 validation texts to translate of 16 to 16 tokens" in said
    assert "Sequence lengths" not in (workspace / "said-generate.txt").read_text()
    texts = unpack_texts(read_golden(bundle_of(workspace, "translate").golden_path))
    assert texts is not None
    lengths = [len(prompt.source) for prompt in texts.prompts]
    assert min(lengths) <= 16 < max(lengths)  # both encoders have written some


def test_steps_of_signatures_that_a_target_has_not_are_left_out(tmp_path: Path) -> None:
    made = tiny_writer(tmp_path, "translate")
    program = build_writer_program(made, "torch", prefill_lengths=(8,))
    steps = writer_steps(program.signatures, choose_texts(made, 2).texts.prompts, ProgramBackend(program).run)
    assert {step.signature for step in steps} == {"encode_8", "encode", "decode"}
    golden = Golden(steps=steps, labels=np.full(len(steps), -1, np.int32))
    write_golden(tmp_path / "golden.npz", golden)
    (plan,) = plan_exports("translate", made.config, targets=["onnx"])
    signatures = target_signatures(plan, made.config, program.signatures)
    place_golden(plan, tmp_path / "golden.npz", tmp_path / "placed.npz", signatures)
    placed = read_golden(tmp_path / "placed.npz")
    assert len(placed.steps) == len(placed.labels) == len(steps) - 1
    assert {step.signature for step in placed.steps} == {"encode", "decode"}


def prove(bundle: Bundle, golden: Path) -> Any:
    return prove_file(
        bundle.model_path,
        bundle.manifest.runtime,
        golden,
        relative_tolerance=1e-5,
        labels_changed_tolerance=1.0,
        cosine_tolerance=0.9,
        population=1,
        accuracy_note="",
        same_tokens=True,
    )


def test_another_token_fails_the_proof(workspace: Path, tmp_path: Path) -> None:
    bundle = bundle_of(workspace, "translate")
    shutil.copyfile(bundle.path / "tokenizer.json", tmp_path / "tokenizer.json")
    golden = read_golden(bundle.golden_path)
    texts = unpack_texts(golden)
    assert texts is not None
    first = list(texts.written[1])
    first[3] = first[3] + 1 if first[3] < 200 else 100
    changed = replace(texts, written=(texts.written[0], tuple(first), *texts.written[2:]))
    write_golden(tmp_path / "golden.npz", replace(golden, texts=pack_texts(changed)))
    proof = prove(bundle, tmp_path / "golden.npz")
    assert proof.parity.verdict == "failed"
    assert (
        f"1 of {sum(map(len, texts.written))} tokens are not the source's: prompt 1 from token 3" in proof.parity.note
    )


@pytest.mark.parametrize("task", TASKS)
def test_the_readme_shows_how_to_write_as_the_proof_did(workspace: Path, task: ModelTask, tmp_path: Path) -> None:
    bundle = bundle_of(workspace, task)
    (bundle.path.parent / "snippet.py").write_text(python_snippet(bundle.path))
    command = [sys.executable, "-P", str(bundle.path.parent / "snippet.py")]
    shown = subprocess.run(command, capture_output=True, text=True, cwd=bundle.path, check=True).stdout
    text = "Save" if task == "generate" else "Delete selected items"
    told = run_edgekit(task, bundle.path, text, "--json", cwd=tmp_path).stdout
    assert shown.strip() == json.loads(told)[0]["text"].strip()
    readme = (bundle.path / "README.md").read_text()
    for part in ("```kotlin", "```swift", "```cpp", "past_key_values.N", "encode_special_tokens"):
        assert part in readme


def test_classifying_verbs_refuse_by_name(workspace: Path, tmp_path: Path) -> None:
    bundle = bundle_of(workspace, "translate").path
    refuses("predict", bundle, "x", cwd=tmp_path, message="writes texts, it gives no labels: use `edgekit translate`")
    refuses("predict", workspace / "generate", "x", cwd=tmp_path, message="use `edgekit generate`")
    refuses("search", workspace / "generate", "--max-drop", "1", cwd=tmp_path, message="takes classifiers only so far")
    for options, message in (
        (("--target", "onnx", "--quantize", "int8-dynamic"), "quantized by module in tflite alone"),
        (("--quantize", "int8"), "tflite does not offer int8 for models that write"),
    ):
        refuses("sensitivity", workspace / "generate", *options, cwd=tmp_path, message=message)
    refuses("compile", bundle, "--for", "qnn:SM8650", cwd=tmp_path, message="compiles files of classifiers only")
    with pytest.raises(RefusedError, match="--bisect takes classifiers only"):
        bisect_bundle(open_bundle(bundle), 1e-5)


def test_options_that_have_no_use_are_refused_by_name(workspace: Path, tmp_path: Path) -> None:
    generate, translate = workspace / "generate", workspace / "translate"
    for argv, message in (
        ((generate, "--quantize", "int8"), "tflite does not offer int8 for models that write: the cache"),
        ((generate, "--rewrite", "gelu-tanh"), "--rewrite gelu-tanh is of the classifier's graph"),
        ((generate, "--sequence-length", "8"), "a model to generate takes --prefill-length"),
        ((generate, "--prefill-length", "8,41"), "--prefill-length 41 is over the model's context of 40 tokens"),
        ((generate, "--target", "onnx", "--cache-dtype", "int8"), "onnx does not offer --cache-dtype int8"),
        (("--cache-dtype", "int8"), "--cache-dtype int8 is of models that write"),
        ((generate, "--prefill-length", "1"), "--prefill-length 1 is what decode does"),
        ((translate, "--prefill-length", "8"), "a translation begins with one token"),
        (("--prefill-length", "8"), "--prefill-length is of models that write"),
    ):
        refuses("export", *argv, cwd=tmp_path, message=message)


def test_a_checkpoint_that_is_too_small_is_refused() -> None:
    config = TransformerConfig(
        task="generate", vocab_size=260, max_length=1, hidden_size=4, num_layers=1, num_heads=1, ffn_size=4
    )
    plan = plan_exports("small", config, targets=["tflite"])[0]
    assert "reads 1 token in all: to write takes --max-length 2 or more" in str(plan.problem)


@pytest.mark.parametrize("task", TASKS)
def test_a_source_that_computes_nonsense_is_one_clear_error(task: ModelTask, tmp_path: Path) -> None:
    made = tiny_writer(tmp_path, task)
    loud = replace(made, weights={name: np.float32(1e30) * tensor for name, tensor in made.weights.items()})
    with pytest.raises(RunnerError, match="the logits of token 1 are no numbers"):
        write_reference(run_checkpoint(loud), choose_texts(made).texts)


def test_without_its_data_a_model_is_tried_on_samples_and_says_so(tmp_path: Path) -> None:
    for task in TASKS:
        made = tiny_writer(tmp_path, task)
        (tmp_path / "pairs.tsv").unlink()
        samples = choose_texts(made)
        assert samples.note.startswith("not measured: there is no data file")
        assert len(samples.texts.prompts) > 10
        assert (samples.texts.scored, samples.texts.references) == ((), ())


def test_texts_are_the_beginnings_of_held_out_ones_and_always_the_same(tmp_path: Path) -> None:
    made = tiny_writer(tmp_path, "generate")
    samples, few = choose_texts(made), choose_texts(made, 2)
    assert set(few.texts.prompts) <= set(samples.texts.prompts)
    assert few.population == samples.population == len(samples.texts.scored) < len(samples.texts.prompts) == 64
    for prompt, text in zip(samples.texts.prompts, samples.texts.scored, strict=False):
        assert prompt.ids[0] == text.ids[0] == BOS_ID
        assert prompt.ids == text.ids[: len(prompt.ids)]
        assert text.ids[-1] == EOS_ID
    total = sum(len(made.processor.decode(text.ids).encode()) for text in samples.texts.scored)
    assert samples.texts.size_bytes == total


def test_golden_texts_come_back_as_they_were_kept(tmp_path: Path) -> None:
    texts = GoldenTexts(
        prompts=(Prompt(ids=(1,), source=(1, 7, 9)), Prompt(ids=(1, 5), source=(1,))),
        written=((4, 3), ()),
        max_new_tokens=9,
        scored=(Prompt(ids=(1, 4, 3), source=(1, 8)),),
        size_bytes=12,
        loss=3.25,
        sources=("Datei", "ein längerer Text\n"),
        references=(("a", "bb"), ("ç",)),
    )
    path = tmp_path / "golden.npz"
    write_golden(path, Golden(steps=(), labels=np.zeros(0, np.int32), texts=pack_texts(texts)))
    assert unpack_texts(read_golden(path)) == texts
    assert unpack_texts(Golden(steps=(), labels=np.zeros(0, np.int32))) is None


def test_scores_are_those_of_the_tools_that_training_uses(workspace: Path) -> None:
    bundle = bundle_of(workspace, "translate")
    texts, scores = unpack_texts(read_golden(bundle.golden_path)), written_of(bundle).scores
    assert texts is not None
    assert scores is not None
    processor = Processor.load(bundle.path / "tokenizer.json")
    translations = [
        Translation(source=source, references=references, written=processor.decode(ids))
        for source, references, ids in zip(texts.sources, texts.references, texts.written, strict=False)
    ]
    plain = GenerationMetrics(examples=1, tokens=1, size_bytes=1, bits_per_byte=1.0, accuracy=1.0)
    metrics = translation_metrics(plain, translations)
    assert (scores.chrf, scores.chrf_signature) == (metrics.chrf, metrics.chrf_signature)


def test_a_table_that_is_not_the_head_stays(workspace: Path, tmp_path: Path) -> None:
    """A product whose weights are nearly the table's is left alone: sharing it would change what it computes."""
    path = tmp_path / "model.tflite"
    shutil.copyfile(bundle_of(workspace, "generate").model_path, path)
    edit(
        path, lambda values: values + np.float32(1e-3) * np.arange(values.size, dtype=np.float32).reshape(values.shape)
    )
    before = float_weights(path)
    finish_writer(path, {})
    after = float_weights(path)
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name], equal_nan=True) for name in before)
    assert len({values.tobytes() for values in after.values() if values.shape == (260, 32)}) == 2  # table and head


def edit(path: Path, change: Callable[[Any], Any]) -> None:
    """Give the product that scores tokens weights of its own."""
    model = flatbuffer_utils.read_model(str(path))
    decode = model.subgraphs[2]
    constants = [t for t in decode.tensors if model.buffers[t.buffer].data is not None and len(t.shape) == 2]
    table = max(constants, key=lambda tensor: tensor.shape[0])
    head = next(
        decode.tensors[each.inputs[1]]
        for each in reversed(decode.operators)
        if len(each.inputs) > 1 and decode.tensors[each.inputs[1]].buffer == table.buffer
    )
    values = np.frombuffer(bytes(model.buffers[table.buffer].data), np.float32).reshape(table.shape)
    own = type(model.buffers[0])()
    own.data = np.frombuffer(change(values).tobytes(), np.uint8)
    model.buffers.append(own)
    head.buffer = len(model.buffers) - 1
    path.write_bytes(serialize(model))

"""Models of Hugging Face through the command line: every task, proven; what they must withstand."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.bundle import open_bundle
from edgekit.export.foreign import TextChoice, hub_lengths, open_foreign
from edgekit.export.snippets import python_snippet
from edgekit.proof.golden import read_golden
from edgekit.sources.hub_folder import find_hub_folder
from tests.hub_models import add_sentence_transformer, save_bert, save_vit

EDGEKIT = (sys.executable, "-P", "-m", "edgekit")


def edgekit(*argv: str | Path, cwd: Path, code: int = 0, **env: str) -> subprocess.CompletedProcess[str]:
    command = [*EDGEKIT, *map(str, argv)]
    run = subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False, env=os.environ | env)
    assert run.returncode == code, f"{argv}: {run.returncode}\n{run.stdout}\n{run.stderr}"
    return run


def refuses(*argv: str | Path, cwd: Path, message: str, **env: str) -> None:
    run = edgekit("export", *argv, cwd=cwd, code=1, **env)
    lines = [line for line in run.stderr.splitlines() if line.startswith("edgekit: error:")]
    assert len(lines) == 1, run.stderr
    assert message in lines[0]
    assert "Traceback" not in run.stderr


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a sentence encoder `mini`, exported to TFLite and ONNX with its pooling."""
    folder = tmp_path_factory.mktemp("hub")
    save_bert(folder / "mini", "AutoModel")
    add_sentence_transformer(folder / "mini")
    argv = ("hf:mini", "--task", "feature-extraction", "--pooling", "auto", "--target", "tflite,onnx")
    run = edgekit("export", *argv, "--quantize", "none,fp16", cwd=folder)
    (folder / "said.txt").write_text(run.stderr)
    return folder


def test_default_lengths_are_those_of_the_sample_texts(workspace: Path) -> None:
    """Several signatures in TFLite, any length in ONNX, each proven; what is chosen is printed."""
    tflite, onnx = (open_bundle(workspace / "bundles" / f"mini.{t}-none.edgekit") for t in ("tflite", "onnx"))
    lengths = sorted(tflite.manifest.lengths)
    assert len(lengths) > 1
    assert lengths[-1] == 24
    said = (workspace / "said.txt").read_text().replace("\n", " ")
    assert f"Sequence lengths of tflite: {', '.join(map(str, lengths))} (chosen for 64 sample texts of" in said
    assert "Sequence lengths of onnx: any, up to 24." in said
    assert {step.inputs["ids"].shape[1] for step in read_golden(tflite.golden_path).steps} == set(lengths)
    (signature,) = onnx.manifest.signatures
    assert signature.dynamic_length
    assert len({step.inputs["ids"].shape[1] for step in read_golden(onnx.golden_path).steps}) > len(lengths)


@pytest.mark.parametrize("options", [{}, {"lengths": (16,)}])
def test_one_length_where_one_is_given_or_none_known(options: dict[str, Any], workspace: Path, tmp_path: Path) -> None:
    shutil.copytree(workspace / "mini", tmp_path / "mini")
    (tmp_path / "mini" / "tokenizer.json").unlink()
    pooled = {"task": "feature-extraction", "pooling": "mean", "normalize": False, "trust_remote_code": False}
    asked = {"lengths": (), "inputs": [], "texts": TextChoice()} | options
    foreign = open_foreign(f"hf:{tmp_path / 'mini'}", **asked, **pooled)
    assert foreign.by_default is not bool(options)
    by_token = open_foreign("hf:" + str(workspace / "mini"), **asked, **(pooled | {"pooling": "none"}))
    assert not by_token.by_default  # its answers have the length of the text
    choice = hub_lengths(foreign)
    assert choice.lengths == (foreign.model.max_length,)
    assert "its texts' own lengths are not known" in choice.reason


def test_embeddings_are_the_source_models_own(workspace: Path) -> None:
    """The golden outputs are what transformers gives, pooled by hand, and every file is within its tolerance."""
    import torch
    import transformers

    model = transformers.AutoModel.from_pretrained(workspace / "mini").eval()
    for target in ("tflite", "onnx"):
        bundle = open_bundle(workspace / "bundles" / f"mini.{target}-none.edgekit")
        assert bundle.manifest.proven
        assert bundle.manifest.parity.cosine is not None
        assert bundle.manifest.parity.cosine > 0.999999
        assert bundle.manifest.accuracy.note.startswith("not measured:")
        (output,) = bundle.manifest.signatures[0].outputs
        assert (output.name, output.shape) == ("sentence_embedding", (1, 16))
        for step in read_golden(bundle.golden_path).steps[:20]:
            ids, mask = (torch.from_numpy(step.inputs[name].astype(np.int64)) for name in ("ids", "mask"))
            with torch.inference_mode():
                hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
            mean = hidden[0][mask[0].bool()].mean(0)
            np.testing.assert_allclose(step.outputs[output.name][0], (mean / mean.norm()).numpy(), atol=1e-5)


def test_float16_masks_are_finite(workspace: Path) -> None:
    """float32's lowest number, which transformers masks with, has no float16: softmax would answer NaN."""
    for target in ("tflite", "onnx"):
        parity = open_bundle(workspace / "bundles" / f"mini.{target}-fp16.edgekit").manifest.parity
        assert parity.verdict == "within-tolerance"
        assert parity.non_finite_outputs == 0


def test_verify_checks_the_tokenizer(workspace: Path, tmp_path: Path) -> None:
    from edgekit.bundle import seal_bundle

    bundle = workspace / "bundles" / "mini.tflite-none.edgekit"
    tokens = json.loads((bundle / "tokens.json").read_text())["texts"]
    assert len(tokens) == 201
    assert max(len(each["text"]) * each["times"] for each in tokens) == 100_000
    assert edgekit("verify", bundle, cwd=workspace).returncode == 0
    changed = tmp_path / bundle.name
    shutil.copytree(bundle, changed)
    tokenizer = json.loads((changed / "tokenizer.json").read_text())
    tokenizer["normalizer"]["lowercase"] = False
    (changed / "tokenizer.json").write_text(json.dumps(tokenizer))
    manifest = open_bundle(changed).manifest
    for name in ("manifest.json", "manifest.sha256"):
        (changed / name).unlink()
    seal_bundle(changed, **{key: value for key, value in dict(manifest).items() if key not in ("files", "edgekit")})
    run = edgekit("verify", changed, cwd=tmp_path, code=1)
    assert "other ids than the source's tokenizer gave" in run.stderr


def test_the_python_of_a_readme_runs(workspace: Path) -> None:
    for target in ("tflite", "onnx"):
        folder = workspace / "bundles" / f"mini.{target}-none.edgekit"
        command = [sys.executable, "-c", python_snippet(folder)]
        run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
        assert "sentence_embedding (1, 16) float32" in run.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "auto", "outputs"),
    [
        ("text-classification", "AutoModelForSequenceClassification", {"logits": (1, 2)}),
        ("token-classification", "AutoModelForTokenClassification", {"logits": (1, 24, 2)}),
        ("fill-mask", "AutoModelForMaskedLM", {"logits": (1, 24, 90)}),
        ("question-answering", "AutoModelForQuestionAnswering", {"start_logits": (1, 24), "end_logits": (1, 24)}),
    ],
)
def test_every_text_task(task: str, auto: str, outputs: dict[str, tuple[int, ...]], tmp_path: Path) -> None:
    save_bert(tmp_path / "small", auto)
    edgekit("export", "hf:small", "--task", task, "--target", "onnx", cwd=tmp_path)
    bundle = open_bundle(tmp_path / "bundles" / "small.onnx-none.edgekit")
    found = {spec.name: spec.shape for spec in bundle.manifest.signatures[0].outputs}
    assert {name: shape[:2] for name, shape in found.items()} == {name: s[:2] for name, s in outputs.items()}
    assert bundle.manifest.proven
    assert bundle.manifest.parity.labels_changed == 0
    command = [sys.executable, "-c", python_snippet(bundle.path)]
    assert subprocess.run(command, cwd=bundle.path, capture_output=True, check=True).stdout


@pytest.mark.slow
def test_images_and_labels(tmp_path: Path) -> None:
    save_vit(tmp_path / "vit")
    edgekit("export", "hf:vit", "--task", "image-classification", "--target", "onnx", cwd=tmp_path)
    bundle = open_bundle(tmp_path / "bundles" / "vit.onnx-none.edgekit")
    assert bundle.manifest.signatures[0].inputs[0].shape == (1, 3, 16, 16)
    assert json.loads((bundle.path / "labels.json").read_text()) == ["cat", "dog", "bird"]
    assert (bundle.path / "preprocessor_config.json").is_file()
    assert bundle.manifest.proven


def test_what_is_refused_before_any_framework(workspace: Path, tmp_path: Path) -> None:
    refuses("hf:mini", cwd=workspace, message="say what hf:mini is for: --task")
    refuses("hf:mini", "--task", "fill-masks", cwd=workspace, message="did you mean fill-mask?")
    refuses("hf:mini", "--task", "fill-mask", "--pooling", "mean", cwd=workspace, message="gives no embedding")
    refuses("hf:./gone", "--task", "fill-mask", cwd=workspace, message="there is no folder ./gone")
    length = ("hf:mini", "--task", "fill-mask", "--sequence-length", "99")
    refuses(*length, cwd=workspace, message="takes no more than 24 tokens, not 99")
    pickled = tmp_path / "pickled"
    shutil.copytree(workspace / "mini", pickled)
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    refuses("hf:pickled", "--task", "fill-mask", cwd=tmp_path, message="can run code and is not loaded")
    config = json.loads((workspace / "mini" / "config.json").read_text())
    shutil.copytree(workspace / "mini", tmp_path / "coded")
    (tmp_path / "coded" / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "evil.Model"}}))
    refuses("hf:coded", "--task", "fill-mask", cwd=tmp_path, message="Python code of its own")


def test_an_id_without_a_network_says_so(tmp_path: Path) -> None:
    nowhere = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    argv = ("hf:owner/name", "--task", "fill-mask")
    refuses(*argv, cwd=tmp_path, message="without a network give a folder that holds it", **nowhere)


def test_a_model_in_an_installed_package(workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is found by the package's own list of files, and none of its code is run."""
    shutil.copytree(workspace / "mini", tmp_path / "mini_model" / "model")
    (tmp_path / "mini_model" / "__init__.py").write_text("raise SystemExit('was run')\n")
    info = tmp_path / "mini_model-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mini-model\nVersion: 1.0\n")
    files = [path.relative_to(tmp_path) for path in (tmp_path / "mini_model").rglob("*") if path.is_file()]
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in files))
    monkeypatch.syspath_prepend(str(tmp_path))
    folder = find_hub_folder("hf:mini-model")
    assert (folder.name, folder.path) == ("mini-model", tmp_path / "mini_model" / "model")


def test_a_head_that_was_never_trained_is_refused(workspace: Path) -> None:
    argv = ("hf:mini", "--task", "text-classification", "--target", "onnx", "-o", "others")
    refuses(*argv, cwd=workspace, message="was not trained for")


def test_a_tokenizer_without_padding(tmp_path: Path) -> None:
    save_bert(tmp_path / "bare", "AutoModel", padding=False)
    edgekit("export", "hf:bare", "--task", "feature-extraction", "--target", "onnx", cwd=tmp_path)
    bundle = open_bundle(tmp_path / "bundles" / "bare.onnx-none.edgekit")
    assert bundle.manifest.proven
    names = [spec.name for spec in bundle.manifest.signatures[0].outputs]
    assert names == ["last_hidden_state", "pooler_output"]

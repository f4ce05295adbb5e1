"""`edgekit generate` and `edgekit translate` with models of Hugging Face: what transformers' own decoding writes."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from edgekit.bundle import TextEnds, check_files, open_bundle
from edgekit.export.snippets import python_snippet
from edgekit.program import HUB_WRITERS, Task
from tests.cli.conftest import Edgekit
from tests.hub_models import save_sentence_pieces, save_tokenizer
from tests.model.test_hub_writers import build

LONGEST, TOKENS = 24, 9


def export(edgekit: Edgekit, folder: Path, task: Task) -> Path:
    argv = ("--task", task, "--sequence-length", str(LONGEST), "--target", "onnx", "--eval-samples", "4")
    shown = edgekit("export", f"hf:{folder}", *argv)
    assert shown.code == 0, shown.err
    assert f"Next: edgekit {HUB_WRITERS[task]} bundles" in shown.err
    path = Path("bundles").absolute() / f"{folder.name}.onnx-none.edgekit"
    check_files(open_bundle(path))
    written = open_bundle(path).manifest.written
    assert written is not None
    assert (written.prompts, written.tokens_equal) == (4, written.tokens)
    assert written.tokens > 4
    assert edgekit("verify", path).code == 0
    return path


def check_readme(edgekit: Edgekit, bundle: Path, verb: str, text: str) -> None:
    """The README's Python writes what the verb does."""
    command = [sys.executable, "-P", "-c", python_snippet(bundle)]
    shown = subprocess.run(command, capture_output=True, text=True, cwd=bundle, check=True).stdout
    assert shown == edgekit(verb, bundle, text).out
    assert "BOS" not in (bundle / "README.md").read_text()


def own_ids(folder: Path, auto: Any, ids: list[int]) -> list[int]:
    """What transformers writes after a prompt, or as the translation of a text."""
    model = auto.from_pretrained(folder).eval()
    with torch.inference_mode():
        found = model.generate(
            torch.tensor([ids]), attention_mask=torch.ones((1, len(ids))), max_new_tokens=TOKENS, do_sample=False
        )[0].tolist()
    if not model.config.is_encoder_decoder:
        found = found[len(ids) :]
    return [token for token in found if token != model.generation_config.eos_token_id]


@pytest.mark.slow
def test_a_decoder_writes_as_transformers_does(tmp_path: Path, edgekit: Edgekit) -> None:
    folder = tmp_path / "small-llama"
    folder.mkdir()
    vocabulary = save_tokenizer(folder)
    build("llama", vocab_size=vocabulary, bos_token_id=2, eos_token_id=3).save_pretrained(folder)
    bundle = export(edgekit, folder, "text-generation")
    assert open_bundle(bundle).manifest.text_ends == TextEnds(begin_ids=(2,), stop_ids=(3,))
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    shown = edgekit("generate", bundle, "save the file", "", "--max-new-tokens", str(TOKENS), "--json")
    assert shown.code == 0, shown.err
    for each, prompt in zip(shown.json(), (tokenizer("save the file")["input_ids"][:-1], [2]), strict=True):
        assert each["ids"] == own_ids(folder, transformers.AutoModelForCausalLM, prompt)
        assert each["text"] == tokenizer.decode(each["ids"], skip_special_tokens=True)
    told = edgekit("generate", bundle, "save ☃", "--max-new-tokens", str(TOKENS))
    assert "no token for '☃' in the text: the model reads [UNK] there" in told.err
    assert "no token" not in shown.err
    check_readme(edgekit, bundle, "generate", "Save")
    assert "use `edgekit generate`" in edgekit("translate", bundle, "save").err


@pytest.mark.slow
@pytest.mark.parametrize("name", ["t5"])
def test_a_translator_writes_as_transformers_does(name: str, tmp_path: Path, edgekit: Edgekit) -> None:
    folder = tmp_path / f"small-{name}"
    folder.mkdir()
    vocabulary = save_sentence_pieces(folder)
    model: Any = build(name, vocab_size=vocabulary, pad_token_id=0, eos_token_id=1, decoder_start_token_id=0)
    model.generation_config.forced_bos_token_id = 5
    model.save_pretrained(folder)
    bundle = export(edgekit, folder, "translation")
    assert open_bundle(bundle).manifest.text_ends == TextEnds(begin_ids=(0, 5), stop_ids=(1,))
    assert (bundle / "model.onnx" / "config.json").read_bytes() == (folder / "config.json").read_bytes()
    assert not (bundle / "config.json").exists()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    texts = ("save the file", "close ☃ the door")
    shown = edgekit("translate", bundle, *texts, "--max-new-tokens", str(TOKENS - 1), "--json")
    assert shown.code == 0, shown.err
    for each, text in zip(shown.json(), texts, strict=True):
        expected = own_ids(folder, transformers.AutoModelForSeq2SeqLM, tokenizer(text)["input_ids"])
        assert [0, 5, *each["ids"]] == expected
        assert each["text"] == tokenizer.decode(each["ids"], skip_special_tokens=True)
    assert "no token for '☃' in text 2: the model reads <unk> there" in shown.err
    streamed = edgekit("translate", bundle, *texts, "--max-new-tokens", str(TOKENS - 1))
    check_readme(edgekit, bundle, "translate", "Delete selected items")
    assert streamed.out == "".join(f"{each['text']}\n" for each in shown.json())


@pytest.mark.slow
def test_a_translator_reads_short_texts_by_a_signature_of_their_length(tmp_path: Path, edgekit: Edgekit) -> None:
    folder = tmp_path / "small-t5"
    folder.mkdir()
    vocabulary = save_sentence_pieces(folder)
    build("t5", vocab_size=vocabulary, pad_token_id=0, eos_token_id=1, decoder_start_token_id=0).save_pretrained(folder)  # type: ignore[operator]
    source = (f"hf:{folder}", "--task", "translation", "--eval-samples", "16")
    shown = edgekit("export", *source)
    assert shown.code == 0, shown.err
    bundle = open_bundle(Path("bundles").absolute() / "small-t5.tflite-none.edgekit")
    short = bundle.manifest.signatures[0].inputs[0].shape[1]
    said = " ".join(shown.err.split())
    assert f"Sequence lengths of tflite: {short}, {LONGEST} (chosen for 16 sample texts of" in said
    assert [each.name for each in bundle.manifest.signatures] == [f"encode_{short}", "encode", "decode"]
    written = bundle.manifest.written
    assert written is not None
    assert (written.prompts, written.tokens_equal) == (16, written.tokens)
    texts = ("file", "close the door")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    source_ids = [tokenizer(text)["input_ids"] for text in texts]
    assert len(source_ids[0]) <= short < len(source_ids[1]) <= LONGEST
    told = edgekit("translate", bundle.path, *texts, "--max-new-tokens", str(TOKENS), "--json").json()
    expected = [own_ids(folder, transformers.AutoModelForSeq2SeqLM, ids)[1:] for ids in source_ids]
    assert [each["ids"] for each in told] == expected
    refused = edgekit("export", *source, "--sequence-length", "6,12,20", "--target", "coreml")
    assert "leave coreml out" in refused.err
    asked = edgekit("export", *source, "--sequence-length", "6,12,20", "--force", "--dry-run")
    assert asked.code == 0, asked.err


BART = {
    "forced_bos_token_id": 5,
    "forced_eos_token_id": 1,
    "no_repeat_ngram_size": 2,
    "min_length": 6,
    "num_beams": 3,
    "length_penalty": 2.0,
    "early_stopping": True,
    "remove_invalid_values": True,
}
SETTINGS: dict[str, dict[str, Any]] = {
    "marian": {"bad_words_ids": [[0]], "num_beams": 4, "forced_eos_token_id": 1},
    "bart": BART,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(SETTINGS))
def test_a_bundle_keeps_its_models_generation_settings(name: str, tmp_path: Path, edgekit: Edgekit) -> None:
    folder = tmp_path / f"small-{name}"
    folder.mkdir()
    vocabulary = save_sentence_pieces(folder)
    model: Any = build(name, vocab_size=vocabulary, pad_token_id=0, eos_token_id=1, decoder_start_token_id=0)
    settings = dict(SETTINGS[name])
    model.generation_config.update(**settings)
    model.save_pretrained(folder)
    bundle = export(edgekit, folder, "translation")
    begin = 1 + ("forced_bos_token_id" in settings)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    texts = ("save the file", "close the door")
    shown = edgekit("translate", bundle, *texts, "--max-new-tokens", str(TOKENS + 1 - begin), "--json")
    assert shown.code == 0, shown.err
    source = [tokenizer(text)["input_ids"] for text in texts]
    expected = [own_ids(folder, transformers.AutoModelForSeq2SeqLM, ids)[begin:] for ids in source]
    assert [each["ids"] for each in shown.json()] == expected
    greedy = edgekit("translate", bundle, *texts, "--max-new-tokens", str(TOKENS), "--num-beams", "1", "--json")
    assert [each["ids"] for each in greedy.json()] != expected
    page = (bundle / "README.md").read_text()
    assert f"`num_beams` ({settings['num_beams']})" in page
    assert ("Nothing follows these of its settings: `remove_invalid_values`." in page) == (name == "bart")

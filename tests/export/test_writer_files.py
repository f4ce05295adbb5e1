"""Models that write, as files of ONNX and Core ML, write what the model writes, token for token."""

import subprocess
import sys
from pathlib import Path

import pytest

from edgekit.bundle import open_bundle
from edgekit.model.config import TransformerConfig
from tests.export.writers import file_texts, source_texts, write_file
from tests.hub_models import save_tokenizer
from tests.model.test_hub_writers import build
from tests.model.writers import CONFIGS

GENERATE, TRANSLATE = CONFIGS[1], CONFIGS[-1]
FILES_OF = [
    pytest.param(GENERATE, "growing", id="onnx-generate-growing"),
    pytest.param(GENERATE, "fixed", id="onnx-generate-fixed"),
    pytest.param(TRANSLATE, "growing", id="onnx-translate-growing"),
    pytest.param(GENERATE, "stateful", id="coreml-generate-states"),
    pytest.param(GENERATE, "passed", id="coreml-generate-inputs"),
    pytest.param(TRANSLATE, "stateful", id="coreml-translate-states"),
]


@pytest.mark.parametrize(("config", "form"), FILES_OF)
def test_a_file_writes_the_tokens_of_its_model(config: TransformerConfig, form: str, tmp_path: Path) -> None:
    path = write_file(config, form, tmp_path)
    assert file_texts(config, path) == source_texts(config)


@pytest.mark.slow
def test_a_model_of_hugging_face_goes_by_the_same_door(tmp_path: Path) -> None:
    folder = tmp_path / "small-llama"
    folder.mkdir()
    vocabulary = save_tokenizer(folder)
    build("llama", vocab_size=vocabulary).save_pretrained(folder)
    argv = ["export", f"hf:{folder}", "--task", "text-generation", "--sequence-length", "24", "--target", "onnx"]
    run = subprocess.run(
        [sys.executable, "-P", "-m", "edgekit", *argv, "--eval-samples", "4", "--json"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    manifest = open_bundle(tmp_path / "bundles" / "small-llama.onnx-none.edgekit").manifest
    assert manifest.written is not None
    assert manifest.written.prompts == 4
    assert manifest.written.tokens_equal == manifest.written.tokens > 4

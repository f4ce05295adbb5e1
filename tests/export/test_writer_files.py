"""Models that write, as files of ONNX and Core ML, write what the model writes, token for token."""

from pathlib import Path

import pytest

from edgekit.model.config import TransformerConfig
from tests.export.writers import file_texts, source_texts, write_file
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

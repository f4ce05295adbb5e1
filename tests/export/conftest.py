import shutil
from pathlib import Path

import pytest

from tests.export.quantized import Quantized
from tests.export.routes import Routes
from tests.tiny import tiny_checkpoint


@pytest.fixture(scope="session")
def routes(tmp_path_factory: pytest.TempPathFactory) -> Routes:
    """Conversions of a tiny checkpoint with a factorised embedding, shared by all tests of the converters."""
    folder = tmp_path_factory.mktemp("routes")
    return Routes(folder=folder, checkpoint=tiny_checkpoint(folder, hidden_size=32, ffn_size=64, embedding_size=16))


@pytest.fixture(scope="session")
def int8_file(routes: Routes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The TFLite file of `routes` in int8, calibrated with the steps that it is compared on."""
    folder = tmp_path_factory.mktemp("int8")
    shutil.copyfile(routes.steps(), folder / "calibration.npz")
    return Quantized(routes=routes, folder=folder).make("tflite", "int8")[0]

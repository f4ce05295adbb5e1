import pytest

from tests.export.routes import Routes
from tests.tiny import tiny_checkpoint


@pytest.fixture(scope="session")
def routes(tmp_path_factory: pytest.TempPathFactory) -> Routes:
    """Conversions of a tiny checkpoint with a factorised embedding, shared by all tests of the converters."""
    folder = tmp_path_factory.mktemp("routes")
    return Routes(folder=folder, checkpoint=tiny_checkpoint(folder, hidden_size=32, ffn_size=64, embedding_size=16))

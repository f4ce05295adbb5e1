"""`edgekit cache`: where it is, how much it holds, and an empty one again."""

from pathlib import Path

import pytest

from edgekit.cache import Cache
from tests.cli.conftest import Edgekit


def test_shown_and_cleared(edgekit: Edgekit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "value").write_text("x" * 1000)
    cache = Cache(tmp_path / "kept", max_bytes=10**6)
    cache.store("a" * 64, {"value": tmp_path / "value"})
    monkeypatch.setenv("EDGEKIT_CACHE_DIR", str(tmp_path / "kept"))
    assert "holds 1 results, 1." in edgekit("cache").out
    assert edgekit("cache", "clear", "--json").json()["entries"] == 1
    assert edgekit("cache", "--json").json() == {"folder": str(tmp_path / "kept"), "entries": 0, "size_bytes": 0}
    assert edgekit("cache", "--cache-dir", "elsewhere").out.startswith(f"{tmp_path / 'elsewhere'} holds 0")


def test_a_wrong_size_is_one_clear_line(edgekit: Edgekit) -> None:
    shown = edgekit("export", "--cache-size", "much", "--dry-run")
    assert shown.code == 1
    assert "'much' is no size of a cache" in shown.err

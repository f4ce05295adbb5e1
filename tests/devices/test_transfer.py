"""Which files are brought, and how it is noticed that one did not arrive whole."""

import hashlib
from pathlib import Path

import pytest

from edgekit.devices.transfer import Ledger, list_items
from edgekit.errors import DeviceError


def test_items_of_a_file_and_of_a_folder(tmp_path: Path) -> None:
    for name in ("b", "sub/a", "__pycache__/c.pyc"):
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / name).write_text(name)
    (tmp_path / "folder" / "link").symlink_to("b")
    [item] = list_items(tmp_path / "folder" / "b", "model")
    assert (item.name, item.size_bytes, item.sha256) == ("model", 1, hashlib.sha256(b"b").hexdigest())
    assert [item.name for item in list_items(tmp_path / "folder", "x")] == ["x/b", "x/link", "x/sub/a"]


def test_only_what_changed_is_missing(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_text(name)
    ledger, items = Ledger(), list_items(tmp_path, "f")
    assert ledger.missing(items) == items
    ledger.confirm(items, [item.sha256 for item in items], address="x")
    assert ledger.missing(items) == []
    (tmp_path / "two").write_text("three")
    assert [item.name for item in ledger.missing(list_items(tmp_path, "f"))] == ["f/two"]


@pytest.mark.parametrize("found", ["-", "0" * 64])
def test_what_did_not_arrive_whole_is_missing_again(tmp_path: Path, found: str) -> None:
    (tmp_path / "one").write_text("one")
    ledger, items = Ledger(), list_items(tmp_path / "one", "one")
    ledger.confirm(items, [items[0].sha256], address="x")
    with pytest.raises(DeviceError, match="one did not arrive whole on ssh:pi"):
        ledger.confirm(items, [found], address="ssh:pi")
    assert ledger.missing(items) == items

"""Which files a transfer has to bring, and whether they arrived: by their sha256."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekit.devices.quoting import check_name
from edgekit.errors import DeviceError


@dataclass(frozen=True, kw_only=True)
class Item:
    """One file to bring: where it is here, its name in the device's folder, and what is in it."""

    path: Path
    name: str
    sha256: str
    size_bytes: int


class Ledger:
    """What a device's folder holds as far as we brought it there: name → sha256."""

    def __init__(self) -> None:
        self._arrived: dict[str, str] = {}

    def missing(self, items: Iterable[Item]) -> list[Item]:
        """The items that are not there yet, or not with this content."""
        return [item for item in items if self._arrived.get(item.name) != item.sha256]

    def confirm(self, items: Sequence[Item], found: Sequence[str], *, address: str) -> None:
        """Write down what arrived; raises DeviceError for a file that is there with other content, or not at all."""
        for item, sha256 in zip(items, found, strict=True):
            if sha256 != item.sha256:
                self._arrived.pop(item.name, None)
                raise DeviceError(f"{item.name} did not arrive whole on {address}: try again", address=address)
            self._arrived[item.name] = item.sha256


def list_items(local: Path, name: str) -> list[Item]:
    """The files of a file or folder, as `name` or below it; `__pycache__` stays here, links are followed.

    Raises DeviceError for a name that is none, for what is not there, and for an empty folder.
    """
    check_name(name)
    if local.is_file():
        return [_item(local, name)]
    files = sorted(path for path in local.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    if not files:
        raise DeviceError(f"there is no file in {local} to bring to a device")
    return [_item(path, check_name(f"{name}/{path.relative_to(local).as_posix()}")) for path in files]


def sha256_of(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _item(path: Path, name: str) -> Item:
    return Item(path=path, name=name, sha256=sha256_of(path), size_bytes=path.stat().st_size)

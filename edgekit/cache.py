"""Keeps results that take long to make, by the hash of all that they are made from; checked by hash when read.

FOLDER/
  CACHEDIR.TAG                      tells backups to leave the folder out (bford.info/cachedir)
  entries/KE/KEY/entry.json         names, sizes and hashes of what is in `files`; its time is that of the last use
  entries/KE/KEY/files/…
  .edgekit/                         what is being written

An entry appears whole, by one rename, and whoever comes second drops his own: processes need not wait for each other.
"""

import contextlib
import hashlib
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from filelock import FileLock
from pydantic import BaseModel, ConfigDict, ValidationError

from edgekit.bundle import FileRecord, file_sha256
from edgekit.errors import OutputError, RefusedError
from edgekit.outputs import explained, scratch_directory

VARIABLE = "EDGEKIT_CACHE_DIR"
_ENTRY, _FILES, _VALUE, _TAG = "entry.json", "files", "value", "CACHEDIR.TAG"
_TAG_TEXT = "Signature: 8a477f597d28d172789f06886806bc55\n# Results that edgekit makes again where they are missing.\n"
_UNITS = {"gb": 10**9, "mb": 10**6, "kb": 10**3, "b": 1}
_CHUNK_BYTES = 1 << 20
#: times its size that must be free where an entry goes: the last room on a disk is for the outputs themselves
_LEAST_FREE = 4
_LOCK_S = 30

OnRemark = Callable[[str], None]


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    edgekit_cache: Literal[1] = 1
    files: dict[str, FileRecord]


class _DamagedError(Exception):
    """An entry is not as it was written; the text says how."""


@dataclass(frozen=True, kw_only=True)
class CacheUse:
    """How many entries a cache holds, and their size."""

    entries: int
    size_bytes: int


class Cache:
    """A cache in `folder`, of at most `max_bytes`; what was used least recently goes first.

    It never fails the work that it serves: an entry that is damaged, and a folder that can't be written (a full disk),
    are told to `on_remark` in one line each, and the work is done as without a cache.
    """

    def __init__(self, folder: Path, *, max_bytes: int, on_remark: OnRemark = lambda text: None) -> None:
        self.folder, self.max_bytes = folder.expanduser().absolute(), max_bytes
        self._entries, self._on_remark, self._writable = self.folder / "entries", on_remark, True

    def fetch(self, key: str, into: Path) -> bool:
        """Copy the files that are kept under `key` into the new folder `into`; False, and no folder, where none are.

        Every byte is compared with its hash. Raises OSError where `into` can't be written.
        """
        entry = self._path(key)
        try:
            raw = (entry / _ENTRY).read_bytes()
        except OSError:
            return False
        try:
            _copy_checked(entry / _FILES, _records(raw), into)
        except _DamagedError as error:
            shutil.rmtree(into, ignore_errors=True)
            if (entry / _ENTRY).exists():  # else another process has dropped it to make room
                self._on_remark(f"the cache entry {entry} is damaged ({error}): it is dropped and made again")
                _drop(entry)
            return False
        with contextlib.suppress(OSError):  # a cache that may only be read has no times of use
            os.utime(entry / _ENTRY)
        return True

    def store(self, key: str, files: Mapping[str, Path]) -> None:
        """Keep copies of files and folders under `key`, by these names; what is there stays."""
        if not self._writable:
            return
        try:
            if not (self._path(key) / _ENTRY).exists():
                self._write(key, files)
        except (OSError, OutputError, _DamagedError) as error:
            self._writable = False
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error).split(";")[0]
            self._on_remark(f"nothing more is kept in the cache {self.folder}: {reason}")

    def remember(self, key: str, make: Callable[[], bytes]) -> bytes:
        """What `make` returned when it was last called for `key`: now, or by whoever asked before."""
        with tempfile.TemporaryDirectory(prefix="edgekit-cache-") as folder:
            kept, made = Path(folder, "kept"), Path(folder, _VALUE)
            if self.fetch(key, kept):
                return (kept / _VALUE).read_bytes()
            made.write_bytes(make())
            self.store(key, {_VALUE: made})
            return made.read_bytes()

    def use(self) -> CacheUse:
        """What it holds."""
        sizes = [size for _, size, _ in self._listed()]
        return CacheUse(entries=len(sizes), size_bytes=sum(sizes))

    def clear(self) -> CacheUse:
        """Drop all entries; returns what was dropped. Raises OutputError where they can't be."""
        dropped = self.use()
        with explained(self.folder):
            for path, _, _ in list(self._listed()):
                _drop(path)
        return dropped

    def _path(self, key: str) -> Path:
        return self._entries / key[:2] / key

    def _write(self, key: str, files: Mapping[str, Path]) -> None:
        final = self._path(key)
        size = sum(file.stat().st_size for path in files.values() for _, file in _walk(path))
        if size > self.max_bytes:
            return
        with scratch_directory(self.folder) as scratch:
            if shutil.disk_usage(scratch).free < _LEAST_FREE * size:
                raise OutputError("the disk is nearly full")
            new = scratch / "entry"
            (new / _FILES).mkdir(parents=True)
            records = {}
            for name, path in files.items():
                for relative, file in _walk(path):
                    full = f"{name}/{relative}" if relative else name
                    records[full] = _copy(file, new / _FILES / full)
            (new / _ENTRY).write_text(_Entry(files=records).model_dump_json(), encoding="utf-8")
            (self.folder / _TAG).write_text(_TAG_TEXT)
            with FileLock(self.folder / "lock", timeout=_LOCK_S):  # held for a moment, or by one that was stopped
                self._make_room(sum(record.size_bytes for record in records.values()))
                final.parent.mkdir(parents=True, exist_ok=True)
                if final.exists() and not (final / _ENTRY).exists():
                    _drop(final)  # the rest of one that is being dropped
                if not final.exists():
                    new.rename(final)

    def _make_room(self, size_bytes: int) -> None:
        """Drop what was used least recently, until there is room for so many bytes more."""
        listed = sorted(self._listed(), key=lambda each: each[2])
        total = sum(size for _, size, _ in listed) + size_bytes
        for path, size, _ in listed:
            if total <= self.max_bytes:
                return
            _drop(path)
            total -= size

    def _listed(self) -> Iterator[tuple[Path, int, float]]:
        """Each entry, its size in bytes, and when it was last used."""
        for path in self._entries.glob(f"*/*/{_ENTRY}"):
            try:
                stat = path.stat()
                size = stat.st_size + sum(file.stat().st_size for _, file in _walk(path.parent / _FILES))
            except OSError:
                continue  # another process has just dropped it
            yield path.parent, size, stat.st_mtime


def cache_folder() -> Path:
    """Where the cache is: EDGEKIT_CACHE_DIR, else in the user's folder for caches."""
    from platformdirs import user_cache_path

    named = os.environ.get(VARIABLE)
    return Path(named) if named else user_cache_path("edgekit") / "exports"


def parse_size(text: str) -> int:
    """Bytes in a size as people write it: 2GB, 600 kB, 1.5MB, 123. Raises RefusedError for anything else."""
    wanted = text.strip().lower()
    unit = next((unit for unit in _UNITS if wanted.endswith(unit)), "")
    try:
        size = float(wanted.removesuffix(unit)) * _UNITS.get(unit, 1)
    except ValueError:
        size = -1
    if not 0 <= size < math.inf:
        raise RefusedError(f"{text!r} is no size of a cache: give bytes, or 500MB, 2GB; 0 for none")
    return int(size)


def tree_sha256(path: Path) -> str:
    """The sha256 of a file, or of a folder: the names and contents of all files in it."""
    if path.is_file():
        return file_sha256(path)
    digest = hashlib.sha256()
    for relative, file in _walk(path):
        digest.update(f"{relative}\0{file_sha256(file)}\n".encode())
    return digest.hexdigest()


def _walk(path: Path) -> Iterator[tuple[str, Path]]:
    """The files of a folder by their names in it; a file is its own, without a name."""
    if path.is_file():
        yield "", path
        return
    for file in sorted(path.rglob("*")):
        if file.is_symlink() or not file.is_dir():
            yield file.relative_to(path).as_posix(), file


def _records(raw: bytes) -> dict[str, FileRecord]:
    try:
        return _Entry.model_validate_json(raw).files
    except ValidationError as error:
        raise _DamagedError(f"{_ENTRY} can't be read") from error


def _copy_checked(source: Path, records: Mapping[str, FileRecord], into: Path) -> None:
    """Copy exactly the recorded files; raises _DamagedError for one that is missing, changed, a link or too many."""
    found = dict(_walk(source)) if source.is_dir() else {}
    if found.keys() != records.keys():
        raise _DamagedError(f"{min(found.keys() ^ records.keys())} is missing or was not there")
    into.mkdir()
    for relative, record in records.items():
        if found[relative].is_symlink():
            raise _DamagedError(f"{relative} is a link")
        if _copy(found[relative], into / relative) != record:
            raise _DamagedError(f"{relative} has another sha256")


def _copy(source: Path, target: Path) -> FileRecord:
    """Copy a file, and tell what was written; raises _DamagedError where `source` can't be read."""
    target.parent.mkdir(parents=True, exist_ok=True)
    digest, size = hashlib.sha256(), 0
    with target.open("xb") as writer:
        for chunk in _chunks(source):
            digest.update(chunk)
            size += writer.write(chunk)
    return FileRecord(sha256=digest.hexdigest(), size_bytes=size)


def _chunks(source: Path) -> Iterator[bytes]:
    try:
        with source.open("rb") as reader:
            while chunk := reader.read(_CHUNK_BYTES):
                yield chunk
    except OSError as error:
        raise _DamagedError(f"{source.name} can't be read: {error.strerror}") from error


def _drop(entry: Path) -> None:
    """Remove an entry, its list of files first: without it there is none."""
    (entry / _ENTRY).unlink(missing_ok=True)
    shutil.rmtree(entry, ignore_errors=True)

"""Writes folders and files so that they appear whole or not at all, whatever happens on the way.

Everything unfinished lives in a hidden `.edgekit` folder beside the output (the same file system, so that a rename
is atomic): `NAME.lock`, `NAME.new-*` while it is built, `NAME.old` for the moment of a swap, `scratch-*`.
"""

import ctypes
import errno
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from edgekit.errors import OutputError

HIDDEN = ".edgekit"
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h
_EXPLAINED = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "no permission to write there",
    errno.EPERM: "no permission to write there",
    errno.EISDIR: "it is a folder",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.ENAMETOOLONG: "the name is too long",
}


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals to write into an OutputError that names `path`."""
    try:
        yield
    except OSError as error:
        elsewhere = error.filename and not str(error.filename).startswith(str(path.absolute().parent))
        if error.errno not in _EXPLAINED or elsewhere:
            raise
        raise OutputError(f"can't write {path}: {_EXPLAINED[error.errno]}; nothing was changed there") from error


def write_text(path: Path, text: str) -> None:
    """Write a file of UTF-8 text, whole or not at all; a file that is there is replaced.

    Raises OutputError where it can't be written.
    """
    path = path.absolute()
    with explained(path):
        if not path.parent.is_dir():
            raise OutputError(f"can't write {path}: there is no folder {path.parent}")
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        new = Path(name)
        try:
            with open(handle, "w", encoding="utf-8") as stream:
                stream.write(text)
            new.chmod(0o666 & ~_umask())
            new.replace(path)
        finally:
            new.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: Path, *, force: bool, marker: str) -> Iterator[Path]:
    """Yield a new folder to fill; put it at `path` in one step when the block ends without an error.

    `marker` is the file that makes a folder one of ours: an existing `path` is kept unless `force`, and replaced
    only where it holds the marker or is empty. A half-done swap or a dead
    temporary of an earlier run is put right first.

    Raises OutputError: it exists, another process is writing it, or it can't be written.
    """
    path = path.absolute()
    with explained(path):
        hidden = _hidden_folder(path.parent)
        with _locked(hidden / f"{path.name}.lock", path):
            _recover(path, hidden)
            check_replaceable(path, force=force, marker=marker)
            new = Path(tempfile.mkdtemp(prefix=f"{path.name}.new-", dir=hidden))
            new.chmod(0o777 & ~_umask())  # mkdtemp makes it private; the output is an ordinary folder
            try:
                yield new
                _swap_in(new, path, hidden)
            finally:
                shutil.rmtree(new, ignore_errors=True)


def check_replaceable(path: Path, *, force: bool, marker: str) -> None:
    """Raise OutputError unless `path` is free, or may be replaced; for a check before long work."""
    if not os.path.lexists(path):
        return
    if path.is_symlink() or not path.is_dir():
        raise OutputError(f"{path} exists and is not a folder of edgekit: it was kept; choose another -o")
    if not any(path.iterdir()):
        return
    if not (path / marker).is_file():
        raise OutputError(f"{path} holds files that edgekit did not write: it was kept; choose another -o")
    if not force:
        raise OutputError(f"{path} exists and was kept: use --force to replace it, or another -o")


@contextmanager
def scratch_directory(parent: Path) -> Iterator[Path]:
    """Yield a temporary folder inside `parent/.edgekit`; remove it, and those of processes that died, at the end."""
    with explained(parent):
        hidden = _hidden_folder(parent.absolute())
        with FileLock(hidden / "scratch.lock"):  # nobody may take a folder for dead before its owner holds its lock
            _remove_dead_scratch(hidden)
            scratch = Path(tempfile.mkdtemp(prefix="scratch-", dir=hidden))
            lock = FileLock(scratch / "lock")
            lock.acquire(timeout=0)
        try:
            yield scratch
        finally:
            lock.release()
            shutil.rmtree(scratch, ignore_errors=True)


def _hidden_folder(parent: Path) -> Path:
    hidden = parent / HIDDEN
    try:
        hidden.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as error:  # /proc and its like: folders that take no folders
        raise OutputError(f"can't write to {parent}: no folder can be made there; choose another -o") from error
    return hidden


def _remove_dead_scratch(hidden: Path) -> None:
    for scratch in hidden.glob("scratch-*"):
        lock = FileLock(scratch / "lock")
        try:
            with lock.acquire(timeout=0):
                shutil.rmtree(scratch, ignore_errors=True)
        except (Timeout, OSError):
            continue  # its owner is alive, or has just removed it


@contextmanager
def _locked(lock_path: Path, path: Path) -> Iterator[None]:
    lock = FileLock(lock_path)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise OutputError(f"{path} is being written by another edgekit: wait for it, or choose another -o") from error
    try:
        yield
    finally:
        lock.release()


def _recover(path: Path, hidden: Path) -> None:
    """Complete or undo what a killed run left behind; the lock is held, so nothing here is in use."""
    for dead in hidden.glob(f"{_glob_escape(path.name)}.new-*"):
        shutil.rmtree(dead, ignore_errors=True)
    old = hidden / f"{path.name}.old"
    if old.exists():
        if path.exists():
            shutil.rmtree(old)
        else:
            old.rename(path)


def _swap_in(new: Path, path: Path, hidden: Path) -> None:
    if not path.exists():
        new.rename(path)
    elif not _exchange(new, path):
        old = hidden / f"{path.name}.old"
        path.rename(old)
        new.rename(path)
        shutil.rmtree(old)


def _exchange(a: Path, b: Path) -> bool:
    """Exchange two folders in one step (renameat2, Linux ≥ 3.15); False where that does not exist."""
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        return False
    if libc.renameat2(_AT_FDCWD, os.fsencode(a), _AT_FDCWD, os.fsencode(b), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS):
        return False  # this file system or kernel has no exchange
    raise OSError(code, os.strerror(code), str(b))


def _glob_escape(name: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask

"""Outputs appear whole or not at all."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from edgekit import outputs
from edgekit.errors import OutputError
from edgekit.outputs import HIDDEN, atomic_directory, scratch_directory
from tests.conftest import lacking


def write_output(path: Path, content: str, *, force: bool = False) -> None:
    with atomic_directory(path, force=force, marker="manifest.json") as folder:
        (folder / "manifest.json").write_text(content)


def leftovers(parent: Path) -> list[str]:
    return sorted(p.name for p in (parent / HIDDEN).iterdir() if not p.name.endswith(".lock"))


def test_new_output_appears_with_ordinary_permissions(tmp_path: Path) -> None:
    write_output(tmp_path / "a.edgekit", "one")
    assert (tmp_path / "a.edgekit" / "manifest.json").read_text() == "one"
    assert (tmp_path / "a.edgekit").stat().st_mode & 0o055 == 0o055 & ~outputs._umask()
    assert leftovers(tmp_path) == []


def test_existing_output_is_kept_unless_forced(tmp_path: Path) -> None:
    path = tmp_path / "a.edgekit"
    write_output(path, "one")
    with pytest.raises(OutputError, match="--force"):
        write_output(path, "two")
    assert (path / "manifest.json").read_text() == "one"
    write_output(path, "two", force=True)
    assert (path / "manifest.json").read_text() == "two"
    assert leftovers(tmp_path) == []


def test_without_renameat2_the_swap_still_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outputs, "_exchange", lambda a, b: False)
    write_output(tmp_path / "a.edgekit", "one")
    write_output(tmp_path / "a.edgekit", "two", force=True)
    assert (tmp_path / "a.edgekit" / "manifest.json").read_text() == "two"
    assert leftovers(tmp_path) == []


def test_force_never_replaces_what_edgekit_did_not_write(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match="did not write"):
        write_output(tmp_path / "home", "x", force=True)
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="not a folder"):
        write_output(tmp_path / "file", "x", force=True)
    assert (tmp_path / "home" / "thesis.tex").read_text() == "years of work"


def test_an_error_inside_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.edgekit"

    def fail_inside() -> None:
        with atomic_directory(path, force=False, marker="m") as folder:
            (folder / "half").write_text("x")
            raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        fail_inside()
    assert not path.exists()
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("state", ["before", "between", "after"])
def test_a_killed_swap_is_completed_or_undone(tmp_path: Path, state: str) -> None:
    """The three states in which a move-aside, move-in, delete can be killed."""
    path, hidden = tmp_path / "a.edgekit", tmp_path / HIDDEN
    write_output(path, "old")
    dead = hidden / "a.edgekit.new-dead"
    shutil.copytree(path, dead)
    if state != "before":
        path.rename(hidden / "a.edgekit.old")
    if state == "after":
        dead.rename(path)
    with pytest.raises(OutputError, match="--force"):
        write_output(path, "x")  # any next start puts things right, and the old output counts as existing
    assert (path / "manifest.json").read_text() == "old"
    assert leftovers(tmp_path) == []


def test_two_writers_of_one_output(tmp_path: Path) -> None:
    path = tmp_path / "a.edgekit"
    with atomic_directory(path, force=False, marker="manifest.json") as folder:
        (folder / "manifest.json").write_text("first")
        with pytest.raises(OutputError, match="another edgekit"):
            write_output(path, "second", force=True)
    assert (path / "manifest.json").read_text() == "first"


SLOW_WRITER = textwrap.dedent(
    """
    import sys, time
    from pathlib import Path
    from edgekit.outputs import atomic_directory, scratch_directory
    path = Path(sys.argv[1])
    with scratch_directory(path.parent), atomic_directory(path, force=True, marker="manifest.json") as folder:
        (folder / "manifest.json").write_text("half")
        print("ready", flush=True)
        time.sleep(60)
    """
)


def test_sigkill_leaves_the_old_output_and_the_next_start_cleans_up(tmp_path: Path) -> None:
    path = tmp_path / "a.edgekit"
    write_output(path, "old")
    writer = subprocess.Popen([sys.executable, "-c", SLOW_WRITER, str(path)], stdout=subprocess.PIPE)
    assert writer.stdout
    with writer.stdout:
        assert writer.stdout.readline() == b"ready\n"
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    assert (path / "manifest.json").read_text() == "old"
    assert len(leftovers(tmp_path)) == 2
    with scratch_directory(tmp_path):
        write_output(path, "new", force=True)
    assert (path / "manifest.json").read_text() == "new"
    assert leftovers(tmp_path) == []


def test_a_living_scratch_folder_is_not_removed(tmp_path: Path) -> None:
    with scratch_directory(tmp_path) as first, scratch_directory(tmp_path) as second:
        assert first != second
        assert first.is_dir()
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_refusals_of_the_system_are_explained(tmp_path: Path, code: int) -> None:
    path = tmp_path / "a.edgekit"
    with pytest.raises(OutputError, match="nothing was changed"), atomic_directory(path, force=False, marker="m"):
        raise OSError(code, os.strerror(code))
    assert not path.exists()


def test_errors_about_other_files_are_not_blamed_on_the_output(tmp_path: Path) -> None:
    with (
        pytest.raises(PermissionError),
        atomic_directory(tmp_path / "out" / "a", force=False, marker="m"),
    ):
        raise PermissionError(errno.EACCES, "denied", str(tmp_path / "elsewhere" / "input"))


WRITE_A_MEGABYTE = """
import sys
from pathlib import Path
from edgekit.errors import OutputError
from edgekit.outputs import HIDDEN, atomic_directory
path = Path(sys.argv[1]) / "a.edgekit"
try:
    with atomic_directory(path, force=False, marker="m") as folder:
        (folder / "big").write_bytes(b"x" * 1_000_000)
except OutputError as error:
    print(error, path.exists(), [p.name for p in (path.parent / HIDDEN).glob("*") if p.is_dir()])
"""


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="this system has no /proc")
def test_a_place_that_takes_no_folders() -> None:
    with pytest.raises(OutputError, match="choose another -o"):
        write_output(Path("/proc/edgekit/a.edgekit"), "x")


@pytest.mark.parametrize(("options", "message"), [("size=64k", "the disk is full"), ("ro", "read-only")])
def test_full_and_read_only_file_systems(tmp_path: Path, options: str, message: str) -> None:
    """A real file system, in a mount namespace of its own (needs no root where user namespaces are on)."""
    command = f'mount -t tmpfs -o {options} tmpfs "$1" && exec "$2" -c "$3" "$1"'
    isolate = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-rm"]
    run = subprocess.run(
        [*isolate, "sh", "-c", command, "sh", str(tmp_path), sys.executable, WRITE_A_MEGABYTE],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if run.returncode and "unshare" in run.stderr:
        lacking(f"mount namespaces: {run.stderr.strip()}")
    assert message in run.stdout, run.stderr
    assert run.stdout.strip().endswith("False []")


def test_scratch_of_a_dead_process_is_found_by_the_next(tmp_path: Path) -> None:
    dead = tmp_path / HIDDEN / "scratch-dead"
    dead.mkdir(parents=True)
    (dead / "lock").touch()
    started = time.monotonic()
    with scratch_directory(tmp_path):
        assert not dead.exists()
    assert time.monotonic() - started < 30

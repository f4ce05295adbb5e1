"""The cache: what is kept comes back as it was or not at all, whoever else is at it."""

import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekit.cache import Cache, parse_size, tree_sha256
from edgekit.cache_keys import cache_key, code_sha256
from edgekit.errors import RefusedError

KEYS = [f"{letter * 64}" for letter in "abcdef"]


class Told(list[str]):
    """A cache's remarks."""


def open_cache(folder: Path, max_bytes: int = 10**6) -> tuple[Cache, Told]:
    told = Told()
    return Cache(folder / "cache", max_bytes=max_bytes, on_remark=told.append), told


def write_package(folder: Path, content: bytes = b"weights") -> Path:
    """A folder of files, as a Core ML package is one."""
    (folder / "package" / "Data").mkdir(parents=True)
    (folder / "package" / "Data" / "weight.bin").write_bytes(content)
    (folder / "package" / "Manifest.json").write_text("{}")
    return folder / "package"


def stored(folder: Path) -> tuple[Cache, Told, Path]:
    """A cache with one entry of a file and a folder, and the entry's place."""
    cache, told = open_cache(folder)
    (folder / "log").write_text("converted")
    cache.store(KEYS[0], {"log": folder / "log", "output": write_package(folder)})
    return cache, told, folder / "cache" / "entries" / "aa" / KEYS[0]


def test_files_and_folders_come_back_as_they_were(tmp_path: Path) -> None:
    cache, told, _ = stored(tmp_path)
    assert cache.fetch(KEYS[0], tmp_path / "found")
    assert (tmp_path / "found" / "log").read_text() == "converted"
    assert tree_sha256(tmp_path / "found" / "output") == tree_sha256(tmp_path / "package")
    assert not cache.fetch(KEYS[1], tmp_path / "other")
    assert not (tmp_path / "other").exists()
    assert cache.use().entries == 1
    assert (tmp_path / "cache" / "CACHEDIR.TAG").read_text().startswith("Signature: 8a477f597d28d172789f06886806bc55")
    assert cache.clear().entries == 1
    assert cache.use().entries == cache.use().size_bytes == 0
    assert told == []


def flip_a_bit(entry: Path) -> None:
    file = entry / "files" / "output" / "Data" / "weight.bin"
    content = bytearray(file.read_bytes())
    content[3] ^= 1
    file.write_bytes(content)


def link_elsewhere(entry: Path) -> None:
    (entry / "files" / "log").unlink()
    (entry / "files" / "log").symlink_to("/etc/hostname")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (flip_a_bit, "weight.bin has another sha256"),
        (link_elsewhere, "log is a link"),
        (lambda entry: (entry / "files" / "log").unlink(), "log is missing"),
        (lambda entry: (entry / "files" / "log").write_bytes(b""), "log has another sha256"),
        (lambda entry: (entry / "files" / "more").write_text("x"), "more is missing or was not there"),
        (lambda entry: (entry / "entry.json").write_text('{"edgekit_cache": 1, "fi'), "entry.json can't be read"),
        (lambda entry: shutil.rmtree(entry / "files"), "is missing"),
    ],
)
def test_a_damaged_entry_is_told_dropped_and_made_again(
    tmp_path: Path, damage: Callable[[Path], object], said: str
) -> None:
    cache, told, entry = stored(tmp_path)
    damage(entry)
    assert not cache.fetch(KEYS[0], tmp_path / "found")
    assert not (tmp_path / "found").exists()
    assert len(told) == 1
    assert said in told[0]
    assert "\n" not in told[0]
    cache.store(KEYS[0], {"log": tmp_path / "log"})
    assert cache.fetch(KEYS[0], tmp_path / "found")
    assert len(told) == 1


def test_what_was_used_least_recently_makes_room(tmp_path: Path) -> None:
    cache, told = open_cache(tmp_path, max_bytes=2800)
    (tmp_path / "kilobyte").write_bytes(b"x" * 1000)
    for age, key in ((300, KEYS[0]), (200, KEYS[1])):
        cache.store(key, {"file": tmp_path / "kilobyte"})
        os.utime(tmp_path / "cache" / "entries" / key[:2] / key / "entry.json", (time.time() - age,) * 2)
    assert cache.fetch(KEYS[0], tmp_path / "used")
    cache.store(KEYS[2], {"file": tmp_path / "kilobyte"})
    assert [cache.fetch(key, tmp_path / f"{key}.found") for key in KEYS[:3]] == [True, False, True]
    assert cache.use().size_bytes <= 2800
    (tmp_path / "large").write_bytes(b"x" * 3000)
    cache.store(KEYS[3], {"file": tmp_path / "large"})
    assert cache.use().entries == 2
    assert told == []


def test_a_folder_that_cannot_be_written_is_told_once_and_fails_nothing(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    cache, told = open_cache(tmp_path)
    for key in KEYS[:2]:
        cache.store(key, {"file": tmp_path / "cache"})
        assert not cache.fetch(key, tmp_path / "found")
        assert cache.remember(key, lambda: b"made") == b"made"
    assert len(told) == 1
    assert str(tmp_path / "cache") in told[0]


def test_a_value_is_made_once(tmp_path: Path) -> None:
    cache, _ = open_cache(tmp_path)
    made = [cache.remember(KEYS[0], lambda value=value: value) for value in (b"first", b"second")]  # type: ignore[misc]
    assert made == [b"first", b"first"]


HAMMER = """
    import random, sys, tempfile
    from pathlib import Path
    from edgekit.cache import Cache
    told = []
    cache = Cache(Path(sys.argv[1]), max_bytes=9000, on_remark=told.append)
    generator = random.Random(int(sys.argv[2]))
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(int(sys.argv[3])):
            letter = generator.choice("abcdef")
            content = letter.encode() * 2000
            found = Path(folder, str(turn))
            if cache.fetch(letter * 64, found):
                assert (found / "output" / "file").read_bytes() == content
            else:
                made = Path(folder, f"{turn}.made")
                made.mkdir()
                (made / "file").write_bytes(content)
                cache.store(letter * 64, {"output": made})
            if generator.random() < 0.05:
                cache.clear()
    assert not told, told
"""


def test_processes_at_once_never_see_half_an_entry_and_a_killed_one_leaves_none(tmp_path: Path) -> None:
    def start(seed: int, turns: int) -> "subprocess.Popen[str]":
        command = [sys.executable, "-P", "-c", textwrap.dedent(HAMMER), str(tmp_path / "cache"), str(seed), str(turns)]
        return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    ended = [start(seed, 60) for seed in range(2)]
    killed = start(9, 10**6)
    time.sleep(0.5 + random.Random(0).random())
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    errors = [process.communicate(timeout=120)[1] for process in ended]
    assert [process.returncode for process in ended] == [0, 0], errors
    cache, told = open_cache(tmp_path)
    for letter in "abcdef":
        cache.fetch(letter * 64, tmp_path / letter)
    assert told == []
    cache.store("0" * 64, {"file": Path(__file__)})
    assert cache.fetch("0" * 64, tmp_path / "after")
    assert [path.name for path in (tmp_path / "cache" / ".edgekit").iterdir() if path.is_dir()] == []


@pytest.mark.parametrize(("text", "size"), [("0", 0), ("123", 123), ("600 kB", 600_000), ("2GB", 2 * 10**9)])
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "much", "-1", "1TB5", "nan", "inf"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(RefusedError, match="is no size of a cache"):
        parse_size(text)


def test_edited_code_gives_other_keys(tmp_path: Path) -> None:
    """The package copied as a wheel installs it (-S: without this checkout), and one line of a room changed."""
    root = Path(__file__).parents[1]
    ignore = shutil.ignore_patterns("assets", "__pycache__")
    for source, place in (("edgekit", "edgekit"), ("export", "edgekit/export"), ("devices", "edgekit/devices")):
        shutil.copytree(root / source, tmp_path / place, ignore=ignore)

    def key() -> str:
        code = "from edgekit.cache_keys import cache_key, code_sha256; print(code_sha256(), cache_key('x', a=1))"
        env = {**os.environ, "PYTHONPATH": str(tmp_path)}
        argv = [sys.executable, "-S", "-c", code]
        run = subprocess.run(argv, env=env, cwd=tmp_path, capture_output=True, text=True, check=True)
        return run.stdout

    first = key()
    assert key() == first
    for room in ("export/to_onnx.py", "devices/runner/replay.py", "model/config.py"):
        before = key()
        with (tmp_path / "edgekit" / room).open("a") as file:
            file.write("# edited\n")
        assert key() != before
    before = key()
    with (tmp_path / "edgekit" / "cli" / "export.py").open("a") as file:
        file.write("# edited\n")  # what only prints decides no result
    assert key() == before


def test_keys_tell_what_they_are_made_from() -> None:
    assert cache_key("job", a=1) == cache_key("job", a=1)
    assert len({cache_key("job", a=1), cache_key("job", a=2), cache_key("job", b=1), cache_key("proof", a=1)}) == 4
    assert len(code_sha256()) == 64

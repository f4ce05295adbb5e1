"""No name runs anything: what is quoted is tried in real shells."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgekit.devices.quoting import check_name, check_serial, parse_ssh_address, remote_command, remote_script
from edgekit.errors import DeviceError

SHELLS = [shell for shell in ("sh", "dash", "bash", "zsh", "busybox", "mksh") if shutil.which(shell)]
# what means something to a shell, more often than anything else
HOSTILE = st.text(st.sampled_from("'\"\\$`;&|<>()*?[]{}~!#=% \t\n-ab/") | st.characters(exclude_characters="\0"))
PRINT = 'for a in "$@"; do printf "%s\\0" "$a"; done'


def in_shell(shell: str, line: str, cwd: Path) -> bytes:
    argv = ["busybox", "sh"] if shell == "busybox" else [shell]
    return subprocess.run(
        [*argv, "-c", line], capture_output=True, check=True, cwd=cwd, env={"PATH": "/usr/bin:/bin"}
    ).stdout


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in which nothing may appear."""
    folder = tmp_path_factory.mktemp("empty")
    yield folder
    assert list(folder.iterdir()) == []


@given(st.lists(HOSTILE.filter(lambda text: not any(0xD800 <= ord(c) < 0xE000 for c in text)), max_size=4))
@example(["$(touch owned)", "`touch owned`", "; touch owned", "' touch owned '", "-rf", "\n touch owned"])
@settings(max_examples=60, deadline=None)
def test_arguments_arrive_as_they_are_and_run_nothing(empty: Path, arguments: list[str]) -> None:
    expected = "".join(f"{argument}\0" for argument in arguments).encode()
    for shell in SHELLS:
        assert in_shell(shell, remote_script(PRINT, *arguments), empty) == expected
        assert in_shell(shell, remote_command(["sh", "-c", PRINT, "sh", *arguments]), empty) == expected


def test_an_argument_that_can_be_none() -> None:
    with pytest.raises(DeviceError, match="NUL"):
        remote_command(["cat", "a\0b"])


@given(HOSTILE)
@settings(max_examples=300)
def test_hosts_are_names_or_refused(text: str) -> None:
    try:
        user, host, port = parse_ssh_address(text)
    except DeviceError:
        return
    for name in (user or "x", host):
        assert not set(name) & set("'\"\\$`;&|<>()*?{}~!#= \t\n/")
        assert not name.startswith("-")
    assert port is None or 0 < port < 65536


@given(HOSTILE)
@settings(max_examples=300)
def test_serials_are_never_options(text: str) -> None:
    try:
        assert check_serial(text) == text
    except DeviceError:
        assert not text or text.startswith("-") or not text.isprintable()
    else:
        assert not text.startswith("-")


@given(HOSTILE)
@settings(max_examples=300)
def test_names_stay_in_their_folder(text: str) -> None:
    try:
        check_name(text)
    except DeviceError:
        return
    assert (Path("/folder") / text).resolve().is_relative_to("/folder")
    assert not any(part.startswith("-") for part in text.split("/"))

"""The scripts for devices, in the shells that devices have: dash, bash, busybox's, and Android's mksh with toybox."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from edgekit.devices import scripts
from edgekit.devices.facts import _SCRIPT as FACTS
from tests.conftest import lacking

#: shell → the collection of small programs that goes with it on a device
SHELLS = {"dash": "", "bash": "", "busybox": "busybox", "mksh": "toybox"}
PROGRAMS = {"base64", "cat", "cut", "env", "grep", "mkdir", "mktemp", "nproc", "rm", "sed", "setsid", "sha256sum"}
PROGRAMS |= {"sleep", "test", "tr", "true", "uname"}


@pytest.fixture(params=SHELLS)
def device(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """The environment of a shell `sh` with the programs of its device."""
    shell, programs = request.param, SHELLS[request.param]
    for program in {shell, programs} - {""}:
        if not shutil.which(program):
            lacking(f"{program} (tests/rigs/install.sh)")
    (tmp_path / ".edgekit").touch()
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    (bin_folder / "sh").symlink_to(str(shutil.which(shell)))
    if programs:
        offered = subprocess.run(
            [programs, "--list"] if programs == "busybox" else [programs], capture_output=True, text=True
        )
        for program in PROGRAMS & set(offered.stdout.split()):
            (bin_folder / program).symlink_to(str(shutil.which(programs)))
    return {"PATH": f"{bin_folder}:/usr/bin:/bin", "TMPDIR": str(tmp_path), "HOME": str(tmp_path)}


def start(device: dict[str, str], script: str, *arguments: str) -> subprocess.Popen[bytes]:
    shell = f"{device['PATH'].split(':')[0]}/sh"
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [shell, "-c", script, "edgekit", *arguments], stdin=pipe, stdout=pipe, stderr=pipe, env=device
    )


def output(device: dict[str, str], script: str, *arguments: str, stdin: bytes = b"") -> tuple[int, bytes, bytes]:
    with start(device, script, *arguments) as process:
        stdout, stderr = process.communicate(stdin, timeout=30)
    return process.returncode, stdout, stderr


def run_there(device: dict[str, str], folder: Path, *command: str) -> bytes:
    """The output of RUN, whose standard input stays open until it ends by itself."""
    with start(device, scripts.RUN, str(folder), "name", "MARK", scripts.START, *command) as process:
        assert process.stdout is not None
        return process.stdout.read()


def test_a_session_and_its_end(device: dict[str, str]) -> None:
    with start(device, scripts.KEEPER, "") as keeper:
        assert keeper.stdout is not None
        assert keeper.stdin is not None
        folder = Path(keeper.stdout.readline().decode().strip().removeprefix("edgekit-folder:"))
        assert (folder / ".edgekit").is_file()
        with start(
            device, scripts.RUN, str(folder), "name", "MARK", scripts.START, "sh", "-c", "echo $$; sleep 1000 & wait"
        ) as run:
            assert run.stdout is not None
            assert run.stdout.readline() == b"MARK\n"
            pid = int(run.stdout.readline())
            keeper.stdin.close()
            assert keeper.stdout.read() == b"removed\n"
            assert run.stdout.read() == b"MARK 137"
    assert not folder.exists()
    assert not Path(f"/proc/{pid}").exists()


def test_runs(device: dict[str, str], tmp_path: Path) -> None:
    assert run_there(device, tmp_path, "printf", "%s|", "a b", "$x") == b"MARK\na b|$x|MARK 0"
    assert run_there(device, tmp_path, "sh", "-c", "exit 7") == b"MARK\nMARK 7"
    assert run_there(device, tmp_path, "sh", "-c", "kill -SEGV $$") == b"MARK\nMARK 139"
    assert run_there(device, tmp_path, "no-such-program") == b"MARK\nMARK 127"
    assert run_there(device, tmp_path / "gone", "true") == b"MARK\nMARK 1"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".edgekit")] == [".edgekit"]
    (tmp_path / ".edgekit").unlink()  # the session is over
    assert run_there(device, tmp_path, "echo", "started") == b"MARK\nMARK 1"


def test_a_run_ends_when_its_input_does(device: dict[str, str], tmp_path: Path) -> None:
    code, stdout, stderr = output(device, scripts.RUN, str(tmp_path), "name", "MARK", scripts.START, "sleep", "1000")
    assert (code, stdout, stderr) == (0, b"MARK\nMARK 137", b"")


def test_a_run_that_is_stopped(device: dict[str, str], tmp_path: Path) -> None:
    with start(
        device, scripts.RUN, str(tmp_path), "name", "MARK", scripts.START, "sh", "-c", "echo on; sleep 1000"
    ) as run:
        assert run.stdout is not None
        assert [run.stdout.readline(), run.stdout.readline()] == [b"MARK\n", b"on\n"]
        assert output(device, scripts.STOP, str(tmp_path), "name")[1] == b"edgekit-stopped\n"
        assert run.stdout.read() == b"MARK 137"


def test_files(device: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = os.urandom(100_000)
    name = "deep/er/$(touch owned) 'x'"
    assert output(device, scripts.RECEIVE, str(tmp_path), name, stdin=content) == (0, b"", b"")
    assert (tmp_path / name).read_bytes() == content
    monkeypatch.chdir(tmp_path)
    code, hashes, _ = output(device, scripts.HASHES, name, "nothing")
    expected = subprocess.run(["sha256sum", tmp_path / name], capture_output=True, check=True).stdout.split()[0]
    assert code == 0
    assert [line.split()[0].strip(b"\\") for line in hashes.splitlines()] == [expected.strip(b"\\"), b"-"]
    printed = output(device, scripts.PRINT, name)[1]
    assert subprocess.run(["base64", "-d"], input=printed, capture_output=True, check=True).stdout == content
    assert not (tmp_path / "owned").exists()


def test_facts(device: dict[str, str]) -> None:
    code, said, stderr = output(device, FACTS, "", ".edgekit/env/bin/python")
    lines = said.decode().splitlines()
    assert (code, stderr) == (0, b"")
    assert f"machine={os.uname().machine}" in lines
    assert f"cores={os.cpu_count()}" in lines
    assert any(line.startswith("python=/") for line in lines)

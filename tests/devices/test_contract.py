"""What every device keeps to: this machine, the fake one, a board with a real sshd, a phone with a real adbd."""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgekit.devices.device import Device
from edgekit.devices.fake import FakeDevice
from edgekit.devices.local import LocalDevice
from edgekit.devices.registry import open_device
from edgekit.errors import DeviceError, ProcessError

SPITEFUL = "a b'c\"d;$(touch owned)`touch owned`&|<>*?[x]\\ü"
DEVICES: dict[str, Callable[[pytest.FixtureRequest], Device]] = {
    "local": lambda request: LocalDevice(),
    "fake": lambda request: FakeDevice(),
    "ssh": lambda request: open_device(request.getfixturevalue("ssh_board").name),
    "adb": lambda request: open_device(request.getfixturevalue("adb_phone").address),
}


@pytest.fixture(params=DEVICES)
def closed(request: pytest.FixtureRequest) -> Device:
    """A device that was not entered."""
    return DEVICES[request.param](request)


@pytest.fixture
def device(closed: Device) -> Iterator[Device]:
    with closed:
        yield closed


def exists(device: Device, path: str) -> bool:
    return device.run(["test", "-e", path], timeout_s=20).returncode == 0


def test_exit_codes_and_outputs_come_as_they_are(device: Device) -> None:
    run = device.run(["sh", "-c", "printf out; printf 'err\n' >&2; exit 7"], timeout_s=20)
    assert (run.returncode, run.stdout, run.stderr) == (7, "out", "err\n")
    assert device.run(["printf", "\\n\\nx\\n\\n"], timeout_s=20).stdout == "\n\nx\n\n"


def test_a_signal_is_a_negative_exit_code(device: Device) -> None:
    codes = [device.run(["sh", "-c", f"kill -{name} $$"], timeout_s=20).returncode for name in ("SEGV", "ILL", "KILL")]
    assert codes == [-11, -4, -9]


def test_a_program_that_is_not_there(device: Device) -> None:
    assert device.run(["no-such-program"], timeout_s=20).returncode == 127
    assert device.run(["/no/such/program"], timeout_s=20).returncode == 127


def test_arguments_arrive_as_they_are(device: Device) -> None:
    arguments = [SPITEFUL, "", "-n", "--", "$HOME", "~", "two\nlines", "#", "!", "%s"]
    run = device.run(["sh", "-c", 'for a in "$@"; do printf "<%s>" "$a"; done', "sh", *arguments], timeout_s=20)
    assert run.stdout == "".join(f"<{argument}>" for argument in arguments)
    assert not exists(device, "owned")


def test_environment_and_folder(device: Device) -> None:
    run = device.run(["sh", "-c", 'echo "$WORD"; pwd -P'], timeout_s=20, env={"WORD": SPITEFUL})
    assert run.stdout == f"{SPITEFUL}\n{device.folder}\n"


def test_lines_come_while_it_runs(device: Device) -> None:
    seen: list[str] = []

    def on_line(line: str) -> None:
        seen.append(line)
        if line == "first":
            device.push(Path(__file__), "gate")  # the command waits for it

    script = "echo first; while [ ! -s gate ]; do sleep 0.05; done; echo; echo last"
    run = device.run(["sh", "-c", script], timeout_s=30, on_line=on_line)
    assert seen == ["first", "", "last"]
    assert run.stdout == "first\n\nlast\n"


def test_standard_input_brings_nothing_and_does_not_end(device: Device) -> None:
    script = "exec 3<&0; read line <&3 & sleep 0.3; kill -0 $!"
    assert device.run(["sh", "-c", script], timeout_s=20).returncode == 0


def test_the_time_limit_ends_it_there_too(device: Device, tmp_path: Path) -> None:
    script = "sleep 1000 & echo $! $$ >pids; echo measured; wait"
    seen: list[str] = []
    with pytest.raises(ProcessError, match="did not finish within 2 s"):
        device.run(["sh", "-c", script], timeout_s=2, on_line=seen.append)
    assert seen == ["measured"]
    device.pull("pids", tmp_path / "pids")
    pids = (tmp_path / "pids").read_text().split()
    assert len(pids) == 2
    assert not any(runs(device, pid) for pid in pids)


def runs(device: Device, pid: str) -> bool:
    """Tell whether a process runs there; one that has just been killed may need a moment."""
    for _ in range(20):
        state = device.run(["sh", "-c", f"cut -d' ' -f3 /proc/{pid}/stat"], timeout_s=20).stdout.strip()
        if state in ("", "Z"):
            return False
        time.sleep(0.05)
    return True


def test_what_a_command_leaves_running_ends_with_it(device: Device) -> None:
    pid = device.run(["sh", "-c", "sleep 1000 & echo $!"], timeout_s=20).stdout.strip()
    assert not runs(device, pid)


def test_files_go_there_and_back(device: Device, tmp_path: Path) -> None:
    for name in ("model.tflite", SPITEFUL, "deep/er/file"):
        content = os.urandom(300_000)
        (tmp_path / "sent").write_bytes(content)
        path = device.push(tmp_path / "sent", name)
        assert device.run(["cat", path], timeout_s=20).returncode == 0
        device.pull(name, tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == content
    assert not exists(device, "owned")


def test_changed_content_is_sent_again(device: Device, tmp_path: Path) -> None:
    for content in ("one", "two"):
        (tmp_path / "file").write_text(content)
        path = device.push(tmp_path / "file", "file")
        assert device.run(["cat", path], timeout_s=20).stdout == content


def test_unchanged_content_is_not_sent_twice(device: Device, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("one")
    device.push(tmp_path / "file", "file")
    device.run(["sh", "-c", "echo changed there >file"], timeout_s=20)
    device.push(tmp_path / "file", "file")
    assert device.run(["cat", "file"], timeout_s=20).stdout == "changed there\n"


def test_folders(device: Device, tmp_path: Path) -> None:
    for name in ("a.py", "sub dir/b.py", "__pycache__/a.pyc", "empty"):
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / name).write_text("" if name == "empty" else name)
    path = device.push(tmp_path / "folder", "there")
    listed = device.run(["find", path, "-type", "f"], timeout_s=20).stdout.split("\n")
    assert sorted(listed[:-1]) == [f"{path}/a.py", f"{path}/empty", f"{path}/sub dir/b.py"]
    assert device.run(["cat", f"{path}/sub dir/b.py"], timeout_s=20).stdout == "sub dir/b.py"


def test_names_stay_in_the_folder(device: Device, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for name in ("../out", "/etc/x", "a/../../x", "-rf", "a//b", "", ".edgekit", "a\nb"):
        with pytest.raises(DeviceError, match="is no name"):
            device.push(tmp_path / "file", name)
        with pytest.raises(DeviceError, match="is no name"):
            device.pull(name, tmp_path / "back")


def test_a_file_that_is_not_there(device: Device, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="there is no file nothing"):
        device.pull("nothing", tmp_path / "back")
    with pytest.raises(DeviceError, match="there is no file"):
        device.push(tmp_path / "nothing", "nothing")
    assert not (tmp_path / "back").exists()


def test_facts(device: Device) -> None:
    facts = device.facts()
    assert facts.address == device.address
    assert facts.state == "ready"
    assert facts.machine == os.uname().machine
    assert facts.cores == os.cpu_count()
    assert facts.memory_bytes == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert facts.os
    assert "cpu" in facts.accelerators
    assert device.facts() is facts or device.facts() == facts


def test_leaving_removes_the_folder_and_a_second_visit_starts_anew(closed: Device, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with closed as device:
        first = device.folder
        device.push(tmp_path / "file", "file")
    with closed as device:
        assert device.folder != first
        assert not exists(device, first)
        assert not exists(device, "file")
        device.push(tmp_path / "file", "file")
        assert exists(device, "file")


def test_an_error_on_the_way_removes_it_too(closed: Device) -> None:
    with contextlib.suppress(KeyboardInterrupt), closed:
        raise KeyboardInterrupt
    folder = closed.folder
    with closed:
        assert not exists(closed, folder)


def test_two_commands_at_once(device: Device) -> None:
    outputs: list[str] = []
    threads = [
        threading.Thread(
            target=lambda word=word: outputs.append(
                device.run(["sh", "-c", f"sleep 0.5; echo {word}"], timeout_s=20).stdout
            )
        )
        for word in ("one", "two")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outputs) == ["one\n", "two\n"]

"""The one function that starts processes."""

import os
import sys
import threading
import time
from pathlib import Path

import pytest

from edgekit.errors import ProcessError
from edgekit.processes import kill_running, run_process


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until_dead(pid: int) -> bool:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and alive(pid):
        time.sleep(0.05)
    return not alive(pid)


def test_output_exit_code_and_signal() -> None:
    run = run_process(python("import sys; print('out'); print('err', file=sys.stderr); sys.exit(7)"), timeout_s=60)
    assert (run.returncode, run.stdout, run.stderr) == (7, "out\n", "err\n")
    assert run_process(python("import os; os.kill(os.getpid(), 11)"), timeout_s=60).returncode == -11


def test_log_is_kept_and_read_back(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("before\n")
    run = run_process(python("import sys; print('x' * 200000, file=sys.stderr)"), timeout_s=60, log=log)
    assert run.stderr == log.read_text() == "before\n" + "x" * 200000 + "\n"


def test_time_limit_ends_the_whole_group(tmp_path: Path) -> None:
    code = (
        "import subprocess,sys,time; p=subprocess.Popen([sys.executable,'-c','import time; time.sleep(600)']);"
        f"open({str(tmp_path / 'pid')!r},'w').write(str(p.pid)); time.sleep(600)"
    )
    with pytest.raises(ProcessError, match="did not finish within 3 s"):
        run_process(python(code), timeout_s=3)
    assert wait_until_dead(int((tmp_path / "pid").read_text()))


def test_missing_program() -> None:
    with pytest.raises(ProcessError, match="can't start no-such-program"):
        run_process(["no-such-program"], timeout_s=5)


def test_kill_running_ends_children_that_threads_wait_for() -> None:
    codes: list[int] = []
    thread = threading.Thread(
        target=lambda: codes.append(run_process(python("import time; time.sleep(600)"), timeout_s=600).returncode)
    )
    thread.start()
    time.sleep(0.5)
    kill_running()
    thread.join(timeout=20)
    assert codes == [-9]


def test_standard_input_closes_when_the_parent_dies(tmp_path: Path) -> None:
    child = f"import sys,os; open({str(tmp_path / 'pid')!r},'w').write(str(os.getpid())); sys.stdin.read()"
    parent = (
        "from edgekit.processes import run_process; import sys; "
        f"run_process([sys.executable,'-c',{child!r}], timeout_s=600)"
    )
    pid = os.spawnv(os.P_NOWAIT, sys.executable, python(parent))
    deadline = time.monotonic() + 30
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    assert wait_until_dead(int((tmp_path / "pid").read_text()))

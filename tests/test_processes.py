"""The one function that starts processes."""

import hashlib
import os
import sys
import threading
import time
from pathlib import Path

import pytest

from edgekit.errors import ProcessError
from edgekit.processes import Process, kill_running, run_process


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


def test_lines_come_as_they_are_written_and_in_the_callers_thread(tmp_path: Path) -> None:
    code = "import sys; print('one', flush=True); open(sys.argv[1]).read(); print('two\\n'); sys.stdout.write('three')"
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    seen: list[tuple[str, int]] = []

    def on_line(line: str) -> None:
        seen.append((line, threading.get_ident()))
        if line == "one":
            gate.write_text("")  # the child waits for this: its first line came while it ran

    run = run_process([*python(code), str(gate)], timeout_s=60, on_line=on_line)
    assert [line for line, _ in seen] == ["one", "two", "", "three"]
    assert {thread for _, thread in seen} == {threading.get_ident()}
    assert run.stdout == "one\ntwo\n\nthree"


def test_lines_before_the_time_limit_are_handed_over() -> None:
    seen: list[str] = []
    with pytest.raises(ProcessError, match="did not finish within 2 s"):
        run_process(
            python("import time; print('measured', flush=True); time.sleep(600)"), timeout_s=2, on_line=seen.append
        )
    assert seen == ["measured"]


def test_a_failing_on_line_ends_the_process() -> None:
    pids: list[int] = []

    def on_line(line: str) -> None:
        pids.append(int(line))
        raise KeyboardInterrupt

    code = "import os,time; print(os.getpid(), flush=True); time.sleep(600)"
    with pytest.raises(KeyboardInterrupt):
        run_process(python(code), timeout_s=600, on_line=on_line)
    assert wait_until_dead(pids[0])


def test_standard_input_from_a_file(tmp_path: Path) -> None:
    data = bytes(range(256)) * 5000
    (tmp_path / "data").write_bytes(data)
    code = "import sys,hashlib; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())"
    run = run_process(python(code), timeout_s=60, stdin=tmp_path / "data")
    assert run.stdout.strip() == hashlib.sha256(data).hexdigest()


def test_a_grandchild_that_holds_the_pipes_holds_nobody_up() -> None:
    code = "import subprocess,sys; subprocess.Popen([sys.executable,'-c','import time; time.sleep(600)']); print('out')"
    started = time.monotonic()
    lines: list[str] = []
    run = run_process(python(code), timeout_s=60, on_line=lines.append)
    assert (run.returncode, run.stdout, lines) == (0, "out\n", ["out"])
    assert time.monotonic() - started < 30


def test_a_process_beside_this_one() -> None:
    code = "import sys; print('ready', flush=True); sys.stdin.read(); print('left')"
    with Process(python(code)) as process:
        assert process.read_line(timeout_s=60) == "ready"
        with pytest.raises(ProcessError, match="said nothing within 0 s"):
            process.read_line(timeout_s=0.1)
        process.close_stdin()
        assert process.wait(timeout_s=60).stdout == "ready\nleft\n"


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

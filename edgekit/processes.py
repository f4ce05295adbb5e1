"""Starts processes: the only place in edgekit that does."""

import contextlib
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from edgekit.errors import ProcessError

OnLine = Callable[[str], None]

_running: set[subprocess.Popen[bytes]] = set()
_running_lock = threading.Lock()


@dataclass(frozen=True, kw_only=True)
class CompletedRun:
    """How a process ended: its exit code (negative: the signal that killed it) and what it printed."""

    returncode: int
    stdout: str
    stderr: str


def run_process(
    argv: Sequence[str],
    *,
    timeout_s: float,
    log: Path | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: Path | None = None,
    on_line: OnLine | None = None,
) -> CompletedRun:
    """Run `argv` to its end, in a process group of its own, and return its exit code and output.

    Its standard input is the file `stdin`; without one, a pipe that closes when this process dies, so that a child that
    watches it dies too. `env` is added to the environment. `on_line` gets each line of standard output as it comes, in
    the caller's thread. With `log`, standard error goes to that file as it is written and `stderr` is read back from
    it. A non-zero exit is the caller's to judge.

    Raises ProcessError when the program can't be started or the time limit is reached (the group is killed).
    """
    with Process(argv, log=log, env=env, cwd=cwd, stdin=stdin) as process:
        return process.wait(timeout_s=timeout_s, on_line=on_line)


class Process:
    """A process that runs beside this one: a context manager, at whose end its whole group is killed.

    Raises ProcessError when the program can't be started.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        log: Path | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdin: Path | None = None,
    ) -> None:
        self._name, self._log = argv[0], log
        self._child = _start(argv, log=log, env=env, cwd=cwd, stdin=stdin)
        with _running_lock:
            _running.add(self._child)
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._stdout: list[bytes] = []
        self._stderr: list[bytes] = []
        self._threads = [
            threading.Thread(target=work, daemon=True) for work in (self._read_stdout, self._read_stderr, self._reap)
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Self:
        """Itself: it was started when it was made."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kill what still runs of its group."""
        self.close()

    def read_line(self, *, timeout_s: float) -> str | None:
        """The next line of standard output, without its end; None at the end of the output.

        Raises ProcessError when none comes in time.
        """
        try:
            line = self._lines.get(timeout=max(0.0, timeout_s))
        except queue.Empty as error:
            raise ProcessError(f"{self._name} said nothing within {timeout_s:.0f} s", log=self._log) from error
        return None if line is None else line.decode(errors="replace").removesuffix("\n").removesuffix("\r")

    def close_stdin(self) -> None:
        """Close its standard input: the end for a child that watches it."""
        if self._child.stdin:
            self._child.stdin.close()

    def wait(self, *, timeout_s: float, on_line: OnLine | None = None) -> CompletedRun:
        """Wait for its end, handing each line of standard output to `on_line`; the group is killed in any case.

        Raises ProcessError at the time limit.
        """
        deadline = time.monotonic() + timeout_s
        try:
            while on_line and (line := self.read_line(timeout_s=deadline - time.monotonic())) is not None:
                on_line(line)
            self._child.wait(timeout=max(0.0, deadline - time.monotonic()))
        except (subprocess.TimeoutExpired, ProcessError) as error:
            message = f"{self._name} did not finish within {timeout_s:.0f} s and was ended"
            raise ProcessError(message, log=self._log) from error
        finally:
            self.close()
        stderr = self._log.read_bytes() if self._log else b"".join(self._stderr)
        return CompletedRun(
            returncode=self._child.returncode,
            stdout=b"".join(self._stdout).decode(errors="replace"),
            stderr=stderr.decode(errors="replace"),
        )

    def close(self) -> None:
        """Kill its group and take in the rest of its output."""
        _kill_group(self._child)
        for thread in self._threads:
            thread.join(timeout=10)
        self.close_stdin()
        with _running_lock:
            _running.discard(self._child)

    def _read_stdout(self) -> None:
        for line in _lines_of(self._child.stdout):
            self._stdout.append(line)
            self._lines.put(line)
        self._lines.put(None)

    def _read_stderr(self) -> None:
        self._stderr.extend(_lines_of(self._child.stderr))

    def _reap(self) -> None:
        """End the rest of the group with its first process: a grandchild must not hold the pipes open."""
        self._child.wait()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._child.pid, signal.SIGKILL)


def _lines_of(pipe: IO[bytes] | None) -> Iterator[bytes]:
    if pipe is not None:
        with pipe:
            yield from pipe


def _start(
    argv: Sequence[str], *, log: Path | None, env: Mapping[str, str] | None, cwd: Path | None, stdin: Path | None
) -> subprocess.Popen[bytes]:
    with contextlib.ExitStack() as files:  # the child has its own copies
        source = files.enter_context(open(stdin, "rb")) if stdin else subprocess.PIPE
        sink = files.enter_context(open(log, "ab")) if log else subprocess.PIPE
        try:
            return subprocess.Popen(
                list(argv),
                stdin=source,
                stdout=subprocess.PIPE,
                stderr=sink,
                env={**os.environ, **(env or {})},
                cwd=cwd,
                start_new_session=True,
            )
        except OSError as error:
            raise ProcessError(f"can't start {argv[0]}: {error.strerror or error}") from error


def _kill_group(child: subprocess.Popen[bytes]) -> None:
    """End the child's whole process group; what it started goes with it."""
    if child.poll() is None:  # else its number may be another's by now
        with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS answers EPERM for a group of zombies
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def kill_running() -> None:
    """End every process started here that still runs: for Ctrl-C, where threads wait on them."""
    with _running_lock:
        children = list(_running)
    for child in children:
        _kill_group(child)

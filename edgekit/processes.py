"""Starts processes: the only place in edgekit that does."""

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekit.errors import ProcessError

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
) -> CompletedRun:
    """Run `argv` to its end, in a process group of its own, and return its exit code and output.

    Its standard input is a pipe that closes when this process dies, so that a child that watches it dies too.
    `env` is added to the environment. With `log`, standard error goes to that file as it is written and
    `stderr` is read back from it. A non-zero exit is the caller's to judge.

    Raises ProcessError when the program can't be started or the time limit is reached (the group is killed).
    """
    sink = open(log, "ab") if log else subprocess.PIPE  # noqa: SIM115  (closed below, after the child has it)
    try:
        child = subprocess.Popen(
            list(argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=sink,
            env={**os.environ, **(env or {})},
            cwd=cwd,
            start_new_session=True,
        )
    except OSError as error:
        raise ProcessError(f"can't start {argv[0]}: {error.strerror or error}") from error
    finally:
        if log and not isinstance(sink, int):
            sink.close()
    with _running_lock:
        _running.add(child)
    try:
        stdout, stderr = _communicate(child, timeout_s)
    except subprocess.TimeoutExpired as error:
        raise ProcessError(f"{argv[0]} did not finish within {timeout_s:.0f} s and was ended", log=log) from error
    finally:
        with _running_lock:
            _running.discard(child)
    text = log.read_bytes() if log else stderr
    return CompletedRun(
        returncode=child.returncode,
        stdout=stdout.decode(errors="replace"),
        stderr=(text or b"").decode(errors="replace"),
    )


def _communicate(child: subprocess.Popen[bytes], timeout_s: float) -> tuple[bytes, bytes]:
    """Read both pipes to their end while stdin stays open (Popen.communicate would close it at once)."""
    collected: dict[str, bytes] = {"stdout": b"", "stderr": b""}

    def drain(name: str) -> None:
        stream = getattr(child, name)
        if stream is not None:
            with stream:
                collected[name] = stream.read()

    readers = [threading.Thread(target=drain, args=(name,), daemon=True) for name in collected]
    for reader in readers:
        reader.start()
    try:
        child.wait(timeout=timeout_s)
    finally:
        _kill_group(child)
        for reader in readers:
            reader.join(timeout=10)
        if child.stdin:
            child.stdin.close()
    return collected["stdout"], collected["stderr"]


def _kill_group(child: subprocess.Popen[bytes]) -> None:
    """End the child's whole process group; what it started goes with it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS answers EPERM for a group of zombies
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def kill_running() -> None:
    """End every process started here that still runs: for Ctrl-C, where threads wait on them."""
    with _running_lock:
        children = list(_running)
    for child in children:
        _kill_group(child)

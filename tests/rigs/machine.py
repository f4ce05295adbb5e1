"""A machine of its own inside this one: its own network, host name, mounts and processes, all of which end with it."""

import contextlib
import itertools
import os
import shutil
import signal
import site
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from tests.conftest import lacking

T = TypeVar("T")

#: the interpreter with this environment's runtimes, as a machine has it
PYTHON = "/mnt/python"
# $1: the root of the machine, $2: the prefix of this interpreter, then the folders of its packages. /mnt is there.
_SHARE_PYTHON = r"""
share_python() {
  root=$1
  mount -t tmpfs -o mode=755 tmpfs "$root/mnt"
  mkdir "$root/mnt/base"
  mount --bind "$2" "$root/mnt/base"
  shift 2
  path=
  for packages in "$@"; do
    mkdir "$root/mnt/packages$#"
    mount --bind "$packages" "$root/mnt/packages$#"
    path="$path:/mnt/packages$#"
    shift
  done
  cat >"$root/mnt/python" <<END
#!/bin/sh
export LD_LIBRARY_PATH=/mnt/base/lib PYTHONPATH=${path#:}
exec /mnt/base/bin/python3 "\$@"
END
  chmod 755 "$root/mnt/python"
}
"""
_numbers = itertools.count()


def need_root_and(*programs: str) -> None:
    """Skip the test (or fail it, see `lacking`) where a machine can't be built here."""
    if os.geteuid() != 0:
        lacking("root, to build network namespaces")
    for program in programs:
        if not shutil.which(program):
            lacking(f"{program} (tests/rigs/install.sh)")


class Machine:
    """Runs a shell script as the first process of new namespaces, joined to this machine by a pair of interfaces.

    The script may call `share_python ROOT "$@"` with the arguments of `this_python`, which makes PYTHON there.
    `address` is its own, `gateway` this machine's, `nobody` one in the same network that no machine has.
    """

    def __init__(self, script: str, arguments: Sequence[str], *, log: Path) -> None:
        number = (os.getpid() * 16 + next(_numbers)) % 16384
        high, low = divmod(number * 8, 256)
        network = f"198.{18 + high // 256}.{high % 256}"  # RFC 2544: no real network has these
        self.gateway, self.address, self.nobody = (f"{network}.{low + host}" for host in (1, 2, 5))
        self._link = f"ek{number}"
        self._script, self._arguments, self._log = script, list(arguments), log

    def __enter__(self) -> Self:
        namespaces = ["unshare", "--net", "--uts", "--mount", "--pid", "--fork", "--kill-child=KILL"]
        # it ends with the tests, however they end
        command = [
            "setpriv",
            "--pdeathsig",
            "KILL",
            *namespaces,
            "sh",
            "-ec",
            _SHARE_PYTHON + self._script,
            "rig",
            *self._arguments,
        ]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.pid = self._first_process()
        ip = ["ip", "link", "add", self._link, "type", "veth", "peer", "name", "eth0", "netns", str(self.pid)]
        subprocess.run(ip, check=True)
        subprocess.run(["ip", "address", "add", f"{self.gateway}/29", "dev", self._link], check=True)
        self.run("--net", "ip", "address", "add", f"{self.address}/29", "dev", "eth0")
        self.run("--net", "ip", "link", "set", "eth0", "up")
        self.run("--net", "ip", "link", "set", "lo", "up")
        self.link_up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(ProcessLookupError):  # a test may have ended it
            os.kill(self.pid, signal.SIGKILL)  # the first process takes all others along
        self._process.wait()

    def _first_process(self) -> int:
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        return int(wait_for(lambda: children.read_text().split(), "the first process")[0])

    def link_down(self) -> None:
        """Pull the cable."""
        subprocess.run(["ip", "link", "set", self._link, "down"], check=True)

    def link_up(self) -> None:
        """Plug it in."""
        subprocess.run(["ip", "link", "set", self._link, "up"], check=True)

    def run(self, *command: str) -> str:
        """Run a command inside, with nsenter's options before it; its output."""
        enter = ["nsenter", "--target", str(self.pid)]
        return subprocess.run([*enter, *command], check=True, capture_output=True, text=True).stdout

    def path(self, inside: str) -> Path:
        """A path of the machine as seen from here."""
        return Path(f"/proc/{self.pid}/root{inside}")

    def processes(self) -> list[str]:
        """The command lines of what runs inside."""
        lines = []
        for file in self.path("/proc").glob("[0-9]*/cmdline"):
            try:
                lines.append(file.read_bytes().replace(b"\0", b" ").decode().strip())
            except OSError:
                continue  # it has just ended
        return [line for line in lines if line]

    def kill(self, words: str) -> None:
        """Kill every process inside whose command line holds these words."""
        for file in self.path("/proc").glob("[0-9]*/cmdline"):
            if words in file.read_bytes().replace(b"\0", b" ").decode():
                self.run("--pid", "--mount", "kill", "-9", file.parent.name)

    def log(self) -> str:
        """What its script has printed."""
        return self._log.read_text()


def this_python() -> list[str]:
    """The prefix of this interpreter, and the folders of its packages."""
    packages = [path for path in sys.path if path in site.getsitepackages() or path.endswith("-packages")]
    return [sys.base_prefix, *packages]


def wait_for(get: Callable[[], T], what: str, *, timeout_s: float = 20) -> T:
    """The first true answer."""
    deadline = time.monotonic() + timeout_s
    while not (answer := get()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not come within {timeout_s} s")
        time.sleep(0.02)
    return answer

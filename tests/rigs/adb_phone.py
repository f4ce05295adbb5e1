"""A phone by adb: the real adbd as Android's unprivileged shell user, on a machine of its own, and a server of our own.

Its shell is this machine's; `getprop`, `dumpsys` and the like are there once a test writes them (`AdbPhone.program`).
"""

import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.rigs.machine import Machine, need_root_and, this_python, wait_for

#: outside 5555–5585: adb lists those twice, as emulators too
PORT = 5600

# $1: the root folder to make, $2: the port, then what share_python takes. Phones have no Python of their own.
_SCRIPT = """
hostname phone
mount -t tmpfs -o mode=755 tmpfs "$1"
cd "$1"
port=$2
shift 2
for folder in usr etc dev; do mkdir $folder; mount --rbind /$folder $folder; done
cp -a /bin /sbin /lib* .
mkdir -p proc tmp mnt system/bin data/local/tmp data/small
mount -t proc proc proc
for python in usr/bin/python*; do mount --bind /dev/null $python; done
share_python . "$@"
mount -t tmpfs -o mode=1777,size=256k tmpfs data/small
chown 2000:2000 data/local/tmp
user="--reuid 2000 --regid 2000 --clear-groups --bounding-set=-all --inh-caps=-all --no-new-privs"
variables="PATH=/system/bin:/usr/bin:/bin HOME=/data/local/tmp ADBD_PORT=$port"
# The first process keeps its user: with another it would no longer end with the tests.
exec chroot . sh -c "setpriv $user env -i $variables /usr/sbin/adbd & wait"
"""


@dataclass(frozen=True, kw_only=True)
class AdbPhone:
    """`address` is what edgekit takes: adb:HOST:PORT; `environment` leads adb to the rig's own server."""

    machine: Machine
    environment: dict[str, str]
    small_disk: str = "/data/small"

    @property
    def serial(self) -> str:
        return f"{self.machine.address}:{PORT}"

    @property
    def address(self) -> str:
        return f"adb:{self.serial}"

    def program(self, name: str, text: str) -> None:
        """Give it a program, a shell script: `getprop`, `dumpsys`, `benchmark_model`."""
        file = self.machine.path(f"/system/bin/{name}")
        file.write_text(f"#!/bin/sh\n{text}\n")
        file.chmod(0o755)

    def left_behind(self) -> list[str]:
        """Our folders that are still there."""
        folders = ("/data/local/tmp", self.small_disk)
        return [str(path) for folder in folders for path in self.machine.path(folder).glob("edgekit-*")]

    def disconnect(self) -> None:
        """Make adb forget it."""
        command = ["adb", "disconnect", self.serial]
        subprocess.run(command, env={**os.environ, **self.environment}, capture_output=True, check=False)


@contextlib.contextmanager
def run_adb_server(folder: Path) -> Iterator[dict[str, str]]:
    """A server of adb that ends with the tests; yields the environment of its clients."""
    need_root_and("adb", "setpriv")
    environment = {
        "HOME": str(folder),
        "ANDROID_ADB_SERVER_PORT": str(free_port()),
        "ADB_MDNS_OPENSCREEN": "0",
        "ADB_LOCAL_TRANSPORT_MAX_PORT": "5553",  # it looks for no emulators on this machine
    }
    command = ["setpriv", "--pdeathsig", "KILL", "adb", "server", "nodaemon"]
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(command, env={**os.environ, **environment}, stdout=log, stderr=log)
    try:
        port = int(environment["ANDROID_ADB_SERVER_PORT"])
        wait_for(lambda: accepts("127.0.0.1", port), "adb's server")
        yield environment
    finally:
        server.kill()
        server.wait()


@contextlib.contextmanager
def run_adb_phone(folder: Path, environment: dict[str, str]) -> Iterator[AdbPhone]:
    """Build a phone and take it down; skips the test where it can't be built."""
    need_root_and("unshare", "nsenter", "ip", "setpriv", "adbd", "adb")
    root = folder / "root"
    root.mkdir()
    with Machine(_SCRIPT, [str(root), str(PORT), *this_python()], log=folder / "log") as machine:
        wait_for(lambda: accepts(machine.address, PORT), "adbd")
        phone = AdbPhone(machine=machine, environment=environment)
        yield phone
        phone.disconnect()


def accepts(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])

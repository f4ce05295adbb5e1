"""A board by ssh: the real sshd with a user of its own, on a machine of its own (machine.py)."""

import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.rigs.machine import PYTHON, Machine, need_root_and, this_python, wait_for

HOST = "edgekit-board"
BOARD_USER = "board:*:2001:2001::/mnt/home:/bin/bash\n"
#: a folder on a disk of 256 kB
SMALL_DISK = "/mnt/small"

# $1: our folder here, then what share_python takes.
_SCRIPT = """
hostname board
mount -t proc proc /proc
rig=$1
shift
share_python / "$@"
mkdir /mnt/rig /mnt/small /mnt/home
mount --bind "$rig" /mnt/rig
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -t tmpfs -o mode=1777,size=256k tmpfs /mnt/small
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/sshd
chown 2001:2001 /mnt/home
mount --bind /mnt/rig/passwd /etc/passwd
exec /usr/sbin/sshd -D -e -f /mnt/rig/sshd_config
"""
# The post-quantum exchange that comes first otherwise costs each login 0.15 s.
_SSHD = """
KexAlgorithms curve25519-sha256
HostKey /mnt/rig/host_key
AuthorizedKeysFile /mnt/rig/authorized_keys
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin no
KbdInteractiveAuthentication no
PrintMotd no
"""
# ssh takes the first value that it finds for an option.
_CONFIG = """
Host {host}-other-key
  IdentityFile {folder}/other_key
Host {host}-changed
  UserKnownHostsFile {folder}/known_hosts_changed
Host {host}-unknown
  UserKnownHostsFile {folder}/known_hosts_empty
Host {host}-refused
  Port 2
Host {host}-down
  HostName {nobody}
Host {host}* !{host}-other-key
  IdentityFile {folder}/key
Host {host}*
  HostName {address}
  HostKeyAlias {host}
  User board
  IdentitiesOnly yes
  IdentityAgent none
  UserKnownHostsFile {folder}/known_hosts
  GlobalKnownHostsFile /dev/null
"""
_DEVICES = """
[board]
address = "ssh:{host}"
python = "{python}"

[bare]
address = "ssh:{host}"

[small]
address = "ssh:{host}"
python = "{python}"
folder = "{small}"
"""


@dataclass(frozen=True, kw_only=True)
class SshBoard:
    """`name` is the board in `devices_toml` (its Python has the runtimes), `bare` the same board without a runtime,
    `small` one with a disk of 256 kB; `path` goes before PATH: its `ssh` reads the rig's config.
    """

    machine: Machine
    folder: Path
    name: str = "board"
    bare: str = "bare"
    small: str = "small"
    address: str = f"ssh:{HOST}"

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to reach it."""
        path = f"{self.folder}/bin:{os.environ['PATH']}"
        return {"PATH": path, "EDGEKIT_DEVICES": str(self.folder / "devices.toml")}

    def left_behind(self) -> list[str]:
        """Our folders that are still there."""
        return [str(path) for folder in ("/tmp", SMALL_DISK) for path in self.machine.path(folder).glob("edgekit-*")]


@contextlib.contextmanager
def run_ssh_board(folder: Path) -> Iterator[SshBoard]:
    """Build it and take it down; skips the test where it can't be built."""
    need_root_and("unshare", "nsenter", "ip", "setpriv", "sshd", "ssh-keygen", "ssh")
    write_keys(folder, HOST)
    (folder / "passwd").write_text(Path("/etc/passwd").read_text() + BOARD_USER)
    devices = _DEVICES.format(host=HOST, python=PYTHON, small=SMALL_DISK)
    with Machine(_SCRIPT, [str(folder), *this_python()], log=folder / "log") as machine:
        write_config(folder, machine, HOST, devices)
        wait_for(lambda: greets(machine.address), "sshd")
        yield SshBoard(machine=machine, folder=folder)


def greets(address: str) -> bool:
    """Tell whether sshd answers."""
    try:
        with socket.create_connection((address, 22), timeout=1) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def write_keys(folder: Path, host: str) -> None:
    """Keys of the host and of a user, what each side knows of the other, and sshd's configuration."""
    for name in ("host_key", "key", "other_key"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", folder / name]
        subprocess.run(command, check=True)
    (folder / "authorized_keys").write_text((folder / "key.pub").read_text())
    for name, key in (("known_hosts", "host_key"), ("known_hosts_changed", "other_key")):
        (folder / name).write_text(f"{host} {(folder / f'{key}.pub').read_text()}")
    (folder / "known_hosts_empty").write_text("")
    (folder / "sshd_config").write_text(_SSHD)
    folder.chmod(0o755)


def write_config(folder: Path, machine: Machine, host: str, devices: str) -> None:
    """What reaches the board: ssh's config, an `ssh` that reads it, and devices.toml."""
    config = _CONFIG.format(host=host, folder=folder, address=machine.address, nobody=machine.nobody)
    (folder / "config").write_text(config)
    (folder / "devices.toml").write_text(devices)
    (folder / "bin").mkdir()
    (folder / "bin" / "ssh").write_text(f'#!/bin/sh\nexec /usr/bin/ssh -F "{folder}/config" "$@"\n')
    (folder / "bin" / "ssh").chmod(0o755)

"""A Raspberry Pi as far as software goes: an aarch64 Debian whose every process is emulated, with a real sshd.

Emulated times prove paths, never speed. The root is made from the mirror that this machine uses, in about 20 s.
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import lacking
from tests.rigs.machine import Machine, need_root_and, wait_for
from tests.rigs.ssh_board import BOARD_USER, greets, write_config, write_keys

HOST = "edgekit-arm"
_PACKAGES = "bash,coreutils,dash,findutils,grep,libstdc++6,openssh-server,python3,sed,util-linux"
_BINFMT = Path("/proc/sys/fs/binfmt_misc")
#: folder below /opt → what is installed there: tflite-runtime can't be imported beside numpy 2
_RUNTIMES = {"new": ("ai-edge-litert", "onnxruntime", "numpy"), "old": ("tflite-runtime", "numpy<2")}

# $1: the folder of the rig, $2: the root. LiteRT fails without /sys.
_SCRIPT = """
hostname board
mount --bind "$2" "$2"
cd "$2"
mkdir -p mnt/rig mnt/home run/sshd
for folder in dev sys; do mount --rbind /$folder $folder; done
mount -t proc proc proc
mount -t tmpfs -o mode=1777 tmpfs tmp
mount --bind "$1" mnt/rig
chown 2001:2001 mnt/home
exec chroot . /usr/sbin/sshd -D -e -f /mnt/rig/sshd_config
"""
_USERS = """root:x:0:0:root:/root:/bin/bash
sshd:x:100:65534::/run/sshd:/usr/sbin/nologin
nobody:x:65534:65534:nobody:/:/usr/sbin/nologin
"""
_DEVICES = """
[arm]
address = "ssh:{host}"
python = "/opt/new/python"

[arm-old]
address = "ssh:{host}"
python = "/opt/old/python"

[arm-bare]
address = "ssh:{host}"
"""


@dataclass(frozen=True, kw_only=True)
class ArmBoard:
    """Names of devices.toml: `name` has litert and onnxruntime, `old` has tflite-runtime, `bare` has neither."""

    machine: Machine
    folder: Path
    name: str = "arm"
    old: str = "arm-old"
    bare: str = "arm-bare"
    address: str = f"ssh:{HOST}"

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to reach it."""
        path = f"{self.folder}/bin:{os.environ['PATH']}"
        return {"PATH": path, "EDGEKIT_DEVICES": str(self.folder / "devices.toml")}

    def left_behind(self) -> list[str]:
        """Our folders that are still there."""
        return [str(path) for path in self.machine.path("/tmp").glob("edgekit-*")]


@contextlib.contextmanager
def run_arm_board(folder: Path) -> Iterator[ArmBoard]:
    """Build it and take it down; skips the test where it can't be built."""
    need_root_and("unshare", "nsenter", "ip", "setpriv", "ssh", "ssh-keygen", "mmdebstrap", "qemu-aarch64-static")
    _register_qemu()
    root = folder / "root"
    _make_root(root)
    for name, requirements in _RUNTIMES.items():
        _install(root / "opt" / name, requirements)
    write_keys(folder, HOST)
    with Machine(_SCRIPT, [str(folder), str(root)], log=folder / "log") as machine:
        write_config(folder, machine, HOST, _DEVICES.format(host=HOST))
        wait_for(lambda: greets(machine.address), "the emulated sshd", timeout_s=60)
        yield ArmBoard(machine=machine, folder=folder)


def _register_qemu() -> None:
    """Let the kernel start aarch64 programs; as the package's own service would."""
    if not (_BINFMT / "register").exists():
        subprocess.run(["mount", "-t", "binfmt_misc", "binfmt_misc", _BINFMT], check=True)
    if not (_BINFMT / "qemu-aarch64").exists():
        line = Path("/usr/lib/binfmt.d/qemu-aarch64.conf").read_text().strip()
        (_BINFMT / "register").write_text(line)


def _make_root(root: Path) -> None:
    """Unpack the packages; their scripts, which would run emulated for minutes, are not needed."""
    source = Path("/etc/apt/sources.list.d/debian.sources")
    if not source.exists():
        lacking("Debian's sources in debian.sources, to make an aarch64 root from")
    mirror = next(line.split()[1] for line in source.read_text().splitlines() if line.startswith("URIs:"))
    merged = "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr"
    options = ["--quiet", "--arch=arm64", "--variant=extract", merged, f"--include={_PACKAGES}"]
    command = ["mmdebstrap", *options, "bookworm", root, f"deb {mirror} bookworm main"]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr[-2000:]
    (root / "etc/passwd").write_text(_USERS + BOARD_USER)
    (root / "etc/group").write_text("root:x:0:\nnogroup:x:65534:\nboard:x:2001:\n")
    root.chmod(0o755)


def _install(folder: Path, requirements: tuple[str, ...]) -> None:
    """Wheels for the board from this machine, and an interpreter that finds them."""
    platforms = [f"--platform=manylinux_2_{version}_aarch64" for version in range(36, 16, -1)]
    options = ["--only-binary=:all:", "--python-version=3.11", "--implementation=cp", "--abi=cp311", "--no-compile"]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *options, *platforms]
    packages = folder / "packages"
    pip = [*command, "--platform=manylinux2014_aarch64", "--target", packages, *requirements]
    installed = subprocess.run(pip, capture_output=True, text=True, check=False)
    assert installed.returncode == 0, installed.stderr[-2000:]
    python = folder / "python"
    inside = "/" + str(packages.relative_to(folder.parents[1]))
    python.write_text(f'#!/bin/sh\nexport PYTHONPATH={inside}\nexec /usr/bin/python3 "$@"\n')
    python.chmod(0o755)

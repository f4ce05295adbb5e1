"""Where arguments become the text of a remote shell, and which names of hosts and phones are let through: nowhere else.

`ssh` and `adb shell` hand one string to a shell of the device. Everything that goes there is quoted here.
"""

import re
import shlex
from collections.abc import Sequence

from edgekit.errors import DeviceError

_SSH = re.compile(r"(?:(?P<user>[^@]*)@)?(?P<host>\[[^\]]*\]|[^:]*)(?::(?P<port>\d{1,5}))?")
#: ssh expands %h and %r in the user's own ProxyCommand, on this machine and unquoted (CVE-2023-51385)
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*|\[[0-9A-Fa-f:.]+(%[A-Za-z0-9_.-]+)?\]")


def remote_command(argv: Sequence[str]) -> str:
    """One line for a POSIX shell that runs exactly `argv`: every argument arrives as it is, and none runs anything.

    Raises DeviceError for an argument that holds a NUL character, which no argument can.
    """
    if any("\0" in argument for argument in argv):
        raise DeviceError("an argument for a device holds a NUL character: no file or program can be named so")
    return shlex.join(argv)


def remote_script(script: str, *arguments: str) -> str:
    """One line for any login shell that runs `script` in sh with `arguments` as $1, $2, …"""
    return "exec " + remote_command(["sh", "-c", script, "edgekit", *arguments])


def parse_ssh_address(text: str) -> tuple[str | None, str, int | None]:
    """The user, host and port of `[user@]host[:port]`; an IPv6 address stands in brackets.

    Raises DeviceError for names that no host or user has, such as one that ssh would take for an option.
    """
    found = _SSH.fullmatch(text)
    user, host, port = (found["user"], found["host"], found["port"]) if found else (None, "", None)
    if not _HOST.fullmatch(host) or (user is not None and not _USER.fullmatch(user)):
        raise DeviceError(f"{text!r} is no host: write ssh:user@host, ssh:user@host:port, or a Host of ~/.ssh/config")
    if port is not None and not 0 < int(port) < 65536:
        raise DeviceError(f"{text!r}: a port is a number from 1 to 65535")
    return user, host.strip("[]"), int(port) if port else None


def check_serial(serial: str) -> str:
    """Return a phone's serial; raises DeviceError for one that adb would take for an option."""
    if not serial or serial.startswith("-") or not serial.isprintable():
        raise DeviceError(f"{serial!r} is no serial: `adb devices` lists them; write adb:SERIAL")
    return serial


def check_name(name: str) -> str:
    """Return the name of a file in a device's folder; raises DeviceError where it would lead out of it.

    It is relative, its parts are neither `..` nor empty, begin with no `-`, and hold no control characters.
    """
    parts = name.split("/")
    if any(not part or part in (".", "..") or part.startswith(("-", ".edgekit")) for part in parts):
        raise DeviceError(f"{name!r} is no name for a file in a device's folder: it must stay in it")
    if not name.isprintable():
        raise DeviceError(f"{name!r} is no name for a file in a device's folder: it holds control characters")
    return name

"""A board by ssh: the system's OpenSSH, with the user's config, agent and known hosts."""

import re
import shutil
import tempfile
from pathlib import Path

from edgekit.devices.quoting import parse_ssh_address
from edgekit.devices.shell import ShellDevice
from edgekit.errors import DeviceError
from edgekit.processes import CompletedRun

#: a link that drops is noticed after interval × count seconds
_ALIVE_INTERVAL_S, _ALIVE_COUNT = 2, 4

_OPTIONS = {
    "BatchMode": "yes",  # asks nothing: there may be nobody to answer
    "StrictHostKeyChecking": "yes",  # a host key is never ignored, whatever the user's config says
    "ConnectTimeout": "10",
    "ServerAliveInterval": str(_ALIVE_INTERVAL_S),
    "ServerAliveCountMax": str(_ALIVE_COUNT),
    "LogLevel": "INFO",  # QUIET in the user's config would hide why a connection failed
    # What the user's config may want of a login has no place in a command: each would fail or disturb it.
    "RemoteCommand": "none",
    "RequestTTY": "no",
    "ClearAllForwardings": "yes",
    "PermitLocalCommand": "no",
}

#: what ssh says → (state, what it means and what to do); the first that fits
_EXPLAINED = (
    (
        r"REMOTE HOST IDENTIFICATION HAS CHANGED",
        "host key changed",
        "shows another host key than known_hosts has: if it was reinstalled, `ssh-keygen -R {host}` and log in once "
        "with `{login}`; if not, somebody may stand between",
    ),
    (
        r"Host key verification failed|host key is known",
        "host key unknown",
        "has a host key that known_hosts does not have: log in once with `{login}` and compare it",
    ),
    (
        r"Permission denied \(|Too many authentication failures",
        "key refused",
        "refuses the login: `ssh-copy-id` a key of yours, or load it into the agent, until `{login}` asks for nothing",
    ),
    (
        r"UNPROTECTED PRIVATE KEY FILE",
        "key refused",
        "can't be reached with a key that others may read: chmod 600 it",
    ),
    (
        r"Could not resolve hostname",
        "unknown host",
        "is no host that this network knows: check the name, or use its address",
    ),
    (r"Connection refused", "refused", "is up but takes no ssh there: start sshd on it, or correct the port"),
    (
        r"timed out|No route to host|Network is unreachable|Host is down|did not respond",
        "down",
        "does not answer: is it on, and in this network?",
    ),
    (
        r"Bad configuration option|bad configuration|Bad owner or permissions",
        "config",
        "can't be reached: ssh's config is wrong",
    ),
)


class SshLink:
    """One connection to a host, which the first command opens and the others share."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._user, self._host, self._port = parse_ssh_address(address.removeprefix("ssh:"))
        self._folder: Path | None = None

    def open(self) -> None:
        """Make the private folder of the shared connection's socket; its path must be short (104 bytes on macOS)."""
        if not shutil.which("ssh"):
            raise DeviceError("there is no ssh here: sudo apt-get install openssh-client", address=self.address)
        self._folder = Path(tempfile.mkdtemp(prefix="edgekit-"))

    def argv(self, command: str, *, first: bool = False) -> list[str]:
        """ssh, its options, the host, and the text for its shell."""
        sharing = {
            "ControlMaster": "yes" if first else "no",
            "ControlPath": f"{self._folder}/s",
            "ControlPersist": "no",
        }
        options = [f"-o{key}={value}" for key, value in {**_OPTIONS, **sharing}.items()]
        return ["ssh", *options, *self._login(), "--", self._host, command]

    def _login(self) -> list[str]:
        user = ["-l", self._user] if self._user else []
        return [*user, "-p", str(self._port)] if self._port else user

    def explain(self, run: CompletedRun) -> DeviceError:
        """What ssh's own message means, and what to do."""
        names = {"host": self._host, "login": " ".join(["ssh", *self._login(), self._host])}
        said = [line.removeprefix("ssh: ").strip("@ ") for line in run.stderr.splitlines() if line.strip("@ ")]
        for pattern, state, advice in _EXPLAINED:
            lines = [line for line in said if re.search(pattern, line)]
            if lines:
                return self._error(f"{advice.format_map(names)} (ssh: {lines[-1]})", state, run)
        return self._error(f"could not be used (ssh: {said[-1] if said else 'no message'})", "unreachable", run)

    def _error(self, text: str, state: str, run: CompletedRun) -> DeviceError:
        return DeviceError(
            f"{self.address} {text}",
            address=self.address,
            state=state,
            returncode=run.returncode,
            stdout=run.stdout,
            stderr=run.stderr,
        )

    def close(self) -> None:
        """Remove the folder; the connection ended with its first command."""
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)


def open_ssh(address: str, *, base_folder: str = "", python: str = "") -> ShellDevice:
    """The device `ssh:[user@]host[:port]`, not yet connected; raises DeviceError for what is no such address."""
    return ShellDevice(SshLink(address), base_folder=base_folder, python=python)

"""A board by ssh, with a real sshd: how a login fails, and how a connection ends."""

from edgekit.devices.registry import open_device
from tests.rigs.ssh_board import SshBoard


def test_x(ssh_board: SshBoard) -> None:
    with open_device(ssh_board.name) as device:
        assert device.run(["id", "-u"], timeout_s=10).stdout == "2001\n"

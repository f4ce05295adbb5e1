"""The rigs as fixtures: built once a session, put into a test's environment."""

from collections.abc import Iterator

import pytest

from tests.rigs.ssh_board import SshBoard, run_ssh_board


@pytest.fixture(scope="session")
def ssh_board_rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshBoard]:
    with run_ssh_board(tmp_path_factory.mktemp("ssh-board")) as board:
        yield board


@pytest.fixture
def ssh_board(ssh_board_rig: SshBoard, monkeypatch: pytest.MonkeyPatch) -> Iterator[SshBoard]:
    """A board with the real sshd: `ssh_board.name` is its name in devices.toml. It must be left as it was found."""
    for name, value in ssh_board_rig.environment.items():
        monkeypatch.setenv(name, value)
    yield ssh_board_rig
    ssh_board_rig.machine.link_up()
    assert ssh_board_rig.left_behind() == []

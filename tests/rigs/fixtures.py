"""The rigs as fixtures: built once a session, put into a test's environment."""

from collections.abc import Iterator

import pytest

from tests.rigs.adb_phone import AdbPhone, run_adb_phone, run_adb_server
from tests.rigs.arm_board import ArmBoard, run_arm_board
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


@pytest.fixture(scope="session")
def adb_server_rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with run_adb_server(tmp_path_factory.mktemp("adb-server")) as environment:
        yield environment


@pytest.fixture(scope="session")
def adb_phone_rig(adb_server_rig: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[AdbPhone]:
    with run_adb_phone(tmp_path_factory.mktemp("adb-phone"), adb_server_rig) as phone:
        yield phone


@pytest.fixture
def adb_server(adb_server_rig: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The rig's own server of adb, with no phone yet."""
    for name, value in adb_server_rig.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def adb_phone(adb_phone_rig: AdbPhone, adb_server: None) -> Iterator[AdbPhone]:
    """A phone with the real adbd: `adb_phone.address`. It must be left as it was found."""
    yield adb_phone_rig
    adb_phone_rig.machine.link_up()
    assert adb_phone_rig.left_behind() == []


@pytest.fixture(scope="session")
def arm_board_rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ArmBoard]:
    with run_arm_board(tmp_path_factory.mktemp("arm-board")) as board:
        yield board


@pytest.fixture
def arm_board(arm_board_rig: ArmBoard, monkeypatch: pytest.MonkeyPatch) -> Iterator[ArmBoard]:
    """An emulated aarch64 board, for tests marked slow: `arm_board.name` is its name in devices.toml."""
    for name, value in arm_board_rig.environment.items():
        monkeypatch.setenv(name, value)
    yield arm_board_rig
    assert arm_board_rig.left_behind() == []

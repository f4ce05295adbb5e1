"""devices.toml, and what a name on the command line means."""

from pathlib import Path

import pytest

from edgekit.devices.local import LocalDevice
from edgekit.devices.registry import devices_file, open_device, read_devices
from edgekit.devices.shell import ShellDevice
from edgekit.errors import DeviceError, UnknownNameError


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "devices.toml"
    monkeypatch.setenv("EDGEKIT_DEVICES", str(path))
    return path


def test_named_devices(file: Path) -> None:
    file.write_text('[pi]\naddress = "ssh:pi@raspberrypi.local"\nfolder = "/mnt/ssd"\n["a b"]\naddress = "adb:R58M"\n')
    entries = read_devices()
    assert {name: entry.address for name, entry in entries.items()} == {
        "pi": "ssh:pi@raspberrypi.local",
        "a b": "adb:R58M",
    }
    assert open_device("pi").address == "ssh:pi@raspberrypi.local"
    assert open_device("a b").address == "adb:R58M"


def test_addresses_need_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGEKIT_DEVICES", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert devices_file() == tmp_path / "edgekit" / "devices.toml" or "edgekit" in str(devices_file())
    assert read_devices() == {}
    assert isinstance(open_device("local"), LocalDevice)
    assert isinstance(open_device("ssh:pi@raspberrypi:2222"), ShellDevice)
    assert isinstance(open_device("adb"), ShellDevice)


def test_an_unknown_name_names_the_nearest(file: Path) -> None:
    file.write_text('[pi4]\naddress = "ssh:pi4"\n')
    with pytest.raises(UnknownNameError, match="unknown device 'pi3': did you mean pi4"):
        open_device("pi3")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[pi\n", "can't read"),
        ('[pi]\naddres = "ssh:pi"\n', "pi.address: Field required"),
        ('[pi]\naddress = "ssh:pi"\nuser = "x"\n', "pi.user"),
        ('[pi]\naddress = "pi@host"\n', "an address is ssh:user@host"),
        ('[pi]\naddress = "ssh:pi"\nfolder = "tmp"\n', "written from its root"),
        ("pi = 3\n", "pi"),
    ],
)
def test_a_broken_file_is_one_line_that_names_it(file: Path, text: str, message: str) -> None:
    file.write_text(text)
    with pytest.raises(DeviceError, match=r"devices\.toml") as caught:
        open_device("pi")
    assert message in str(caught.value)


def test_the_file_that_the_environment_names_must_be_there(file: Path) -> None:
    with pytest.raises(DeviceError, match="EDGEKIT_DEVICES names"):
        read_devices()

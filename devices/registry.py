"""The user's devices: devices.toml, and what a name on the command line means."""

import os
import tomllib
from pathlib import Path

import platformdirs
from pydantic import BaseModel, ConfigDict, RootModel, ValidationError, field_validator

from edgekit.devices.adb import open_adb
from edgekit.devices.device import Device
from edgekit.devices.local import LocalDevice
from edgekit.devices.ssh import open_ssh
from edgekit.errors import DeviceError, UnknownNameError


class DeviceEntry(BaseModel):
    """One table of devices.toml.

    `address` is `ssh:…` or `adb:…`; `folder` is where temporary folders go there; `python` is the interpreter to use.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: str
    folder: str = ""
    python: str = ""

    @field_validator("address")
    @classmethod
    def _known_kind(cls, address: str) -> str:
        if address != "adb" and not address.startswith(("ssh:", "adb:")):
            raise ValueError("an address is ssh:user@host, ssh:user@host:port or adb:SERIAL")
        return address

    @field_validator("folder")
    @classmethod
    def _absolute(cls, folder: str) -> str:
        if folder and not (folder.startswith("/") and folder.isprintable()):
            raise ValueError("a folder on a device is written from its root: /mnt/ssd/tmp")
        return folder


class _Devices(RootModel[dict[str, DeviceEntry]]):
    pass


def devices_file() -> Path:
    """Where devices.toml is: EDGEKIT_DEVICES, else in the platform's folder for configuration."""
    named = os.environ.get("EDGEKIT_DEVICES")
    return Path(named) if named else platformdirs.user_config_path("edgekit") / "devices.toml"


def read_devices() -> dict[str, DeviceEntry]:
    """The devices that the user named, by name; none where there is no file.

    Raises DeviceError for a file that is not TOML, or says something that is not known.
    """
    path = devices_file()
    try:
        return _Devices.model_validate(tomllib.loads(path.read_text(encoding="utf-8"))).root
    except FileNotFoundError:
        if os.environ.get("EDGEKIT_DEVICES"):
            raise DeviceError(f"EDGEKIT_DEVICES names {path}, which is not there") from None
        return {}
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DeviceError(f"can't read {path}: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DeviceError(f"{path}: {where}: {first['msg']}") from error


def open_device(name: str) -> Device:
    """The device that a name means, not yet entered.

    `local`, `ssh:[user@]host[:port]`, `adb:SERIAL`, `adb` for the only phone, or a name of devices.toml.

    Raises UnknownNameError for a name that is none of these, DeviceError for an address that can't be one.
    """
    if name == "local":
        return LocalDevice()
    if name == "adb" or name.startswith(("ssh:", "adb:")):
        return open_entry(DeviceEntry(address=name))
    entries = read_devices()
    if name not in entries:
        raise UnknownNameError("device", name, ("local", *entries, "ssh:user@host", "adb:SERIAL"))
    return open_entry(entries[name])


def open_entry(entry: DeviceEntry) -> Device:
    """The device of an entry, not yet entered; raises DeviceError for an address that can't be one."""
    opener = open_ssh if entry.address.startswith("ssh:") else open_adb
    return opener(entry.address, base_folder=entry.folder, python=entry.python)

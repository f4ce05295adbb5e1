"""Every device that can be named here, and what state it is in."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from edgekit.devices.adb import Phone, list_phones
from edgekit.devices.device import Device
from edgekit.devices.local import LocalDevice
from edgekit.devices.registry import open_device, open_entry, read_devices
from edgekit.errors import DeviceError, ProcessError
from edgekit.measurement import DeviceFacts


@dataclass(frozen=True, kw_only=True)
class Listed:
    """One device: `name` is what `--device` takes; the facts have its state, and what to do about it."""

    name: str
    facts: DeviceFacts


def list_devices() -> list[Listed]:
    """This machine, the devices of devices.toml, and the phones that adb sees; all are asked at once.

    One that can't be used is listed with its state. Raises DeviceError for a devices.toml that can't be read.
    """
    openers: dict[str, Callable[[], Device]] = {"local": LocalDevice}
    entries = read_devices()
    openers.update({name: lambda entry=entry: open_entry(entry) for name, entry in entries.items()})  # type: ignore[misc]
    named = {entry.address for entry in entries.values()}
    states = {f"adb:{phone.serial}": phone for phone in _phones()}
    openers.update({name: lambda name=name: open_device(name) for name in states if name not in named})  # type: ignore[misc]
    with ThreadPoolExecutor(max_workers=len(openers)) as pool:
        facts = pool.map(_ask, openers, openers.values())
        return [Listed(name=name, facts=found) for name, found in zip(openers, facts, strict=True)]


def _phones() -> list[Phone]:
    """The phones; none where there is no adb, which `edgekit doctor` tells."""
    try:
        return list_phones()
    except (DeviceError, ProcessError):
        return []


def _ask(name: str, opener: Callable[[], Device]) -> DeviceFacts:
    address = name
    try:
        with opener() as device:
            return device.facts()
    except DeviceError as error:
        return DeviceFacts(address=error.address or address, state=error.state, advice=str(error))
    except ProcessError as error:
        return DeviceFacts(address=address, state="hangs", advice=str(error))

"""Files that were compiled for one device: they run there, and are refused by name anywhere else.

Nothing else would stop them: drivers and simulators load a context of another SoC, and may run it, wrongly or slowly.
"""

from edgekit.bundle import Manifest
from edgekit.errors import RefusedError
from edgekit.measurement import DeviceFacts

#: devices that a host itself can be
_HOSTS = ("CPU",)


def check_compiled(manifest: Manifest, facts: DeviceFacts, accelerator: str) -> None:
    """Raise RefusedError for a compiled bundle on a device that it was not compiled for, or on another accelerator."""
    compiled = manifest.compiled
    if compiled is None:
        return
    if compiled.device not in _HOSTS and compiled.device.upper() not in facts.soc.upper().split():
        what = f"whose SoC is {facts.soc}" if facts.soc else "which names no SoC"
        here = f"; here, edgekit verify runs it on {compiled.ran_on}" if compiled.ran_on else ""
        raise RefusedError(f"{manifest.name} was compiled for {compiled.device}, not for {facts.address}, {what}{here}")
    if accelerator != compiled.accelerator:
        raise RefusedError(
            f"{manifest.name} was compiled for {compiled.device}: --accelerator {compiled.accelerator} runs it, "
            "or take the bundle that it was made from"
        )

"""Where Google's benchmark_model comes from: a file, the web, or the phone itself; and which one it is."""

import hashlib
import shutil
import tempfile
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from edgekit.bundle import file_sha256
from edgekit.devices.accelerators import BENCHMARK_MODEL
from edgekit.devices.device import Device
from edgekit.errors import DeviceError, RefusedError
from edgekit.measurement import DeviceFacts

_TIMEOUT_S = 60.0
_WANTED = "--benchmark-model wants Google's benchmark_model for that device"


@dataclass(frozen=True, kw_only=True)
class BenchmarkTool:
    """The tool, and the hash that says later which one it was; `path` is on this machine unless `on_device`."""

    path: Path
    sha256: str
    on_device: bool = False


def open_benchmark_tool(where: Path | str, *, cache: Path | None = None) -> BenchmarkTool:
    """The tool at a path of this machine, or at an https address, which is fetched once and kept in `cache`.

    Raises DeviceError where there is no file, or the address gives none; RefusedError for an address without https.
    """
    if str(where).startswith(("https://", "http://")):
        return _fetch(str(where), cache or Path(platformdirs.user_cache_dir("edgekit")) / BENCHMARK_MODEL)
    path = Path(where)
    if not path.is_file():
        raise DeviceError(f"there is no file {path}: {_WANTED}")
    return BenchmarkTool(path=path, sha256=file_sha256(path))


def find_benchmark_tool(device: Device, facts: DeviceFacts) -> BenchmarkTool | None:
    """The tool that is on the device already; None where there is none, or it can't be hashed there."""
    path = facts.runtimes.get(BENCHMARK_MODEL)
    if path is None:
        return None
    run = device.run(["sha256sum", path], timeout_s=_TIMEOUT_S)
    words = run.stdout.split()
    return BenchmarkTool(path=Path(path), sha256=words[0], on_device=True) if words else None


def _fetch(url: str, cache: Path) -> BenchmarkTool:
    """What the address gave the first time: a tool that changes behind it would change measurements unseen."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme != "https" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
        raise RefusedError(
            f"{url} is not https, and this is a program that will run on your phone: give an https address"
        )
    kept = cache / hashlib.sha256(url.encode()).hexdigest()[:16]
    if not kept.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=cache, delete=False) as new:
            try:
                with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:
                    shutil.copyfileobj(answer, new)
            except (OSError, ValueError) as error:
                Path(new.name).unlink()
                reason = getattr(error, "reason", None) or error
                raise DeviceError(f"{url} can't be fetched ({reason}): {_WANTED}") from error
        Path(new.name).replace(kept)
    return BenchmarkTool(path=kept, sha256=file_sha256(kept))

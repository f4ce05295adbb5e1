"""Environments of provider packages for tests: each made once by edgekit itself, and kept for the next run."""

import hashlib
import os
import tempfile
from pathlib import Path

from filelock import FileLock

from edgekit.environments import PROVIDERS, has_environment, make_environment
from edgekit.errors import DeviceError


def kept_folder() -> Path:
    """EDGEKIT_ENVIRONMENTS, or a folder of this user's tests for these versions."""
    pinned = hashlib.sha256(repr(PROVIDERS).encode()).hexdigest()[:12]
    default = Path(tempfile.gettempdir(), f"edgekit-tests-{os.getuid()}", f"environments-{pinned}")
    folder = Path(os.environ.get("EDGEKIT_ENVIRONMENTS") or default)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def provide(runtime: str) -> None:
    """Make the environment of `runtime` in EDGEKIT_ENVIRONMENTS where it is not there yet."""
    with FileLock(kept_folder() / f"{runtime}.lock"):
        if has_environment(runtime):
            return
        try:
            make_environment(runtime)
        except DeviceError as error:
            from tests.conftest import lacking  # which loads these rigs itself

            lacking(f"the environment of {runtime} ({error})")

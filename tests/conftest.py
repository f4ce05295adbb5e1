"""What tests of all rooms share."""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

pytest_plugins = ["tests.rigs.environments", "tests.rigs.fixtures"]

# Two frameworks, two cores: one thread each keeps tests fast and their sums the same on every machine.
for variable in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
    os.environ.setdefault(variable, "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# What is tested is done, not found in the cache of whoever runs the tests; those of the cache have one of their own.
os.environ["EDGEKIT_CACHE_SIZE"] = "0"
# A shell's script has its background jobs ignore Ctrl-C, and all that they start: here it must be heard.
signal.signal(signal.SIGINT, signal.default_int_handler)

#: what takes long to make and is made once in each process: the files that use one stay together, and come first
SHARED = ("arm_board_rig", "routes")


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of a file in one process, and all files that use the same of `SHARED`."""
    groups: dict[Path, str] = {}
    for item in items:
        used = set(SHARED) & set(getattr(item, "fixturenames", ()))
        groups[item.path] = min(used, default=groups.get(item.path, str(item.path)))
    for item in items:
        item.add_marker(pytest.mark.xdist_group(groups[item.path]))
    items.sort(key=lambda item: SHARED.index(groups[item.path]) if groups[item.path] in SHARED else len(SHARED))


@pytest.fixture(scope="session")
def kept_exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of exports that all processes of the session share, for `keeping`."""
    folder = tmp_path_factory.getbasetemp()
    return (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "kept-exports"


@contextlib.contextmanager
def keeping(folder: Path) -> Iterator[None]:
    """Within, exports keep what they make in `folder`, and take what others left there: where they are not the test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEKIT_CACHE_DIR", str(folder))
        patch.setenv("EDGEKIT_CACHE_SIZE", "1GB")
        yield


def lacking(part: str) -> NoReturn:
    """Skip a test for want of a system part; where all parts are promised (EDGEKIT_REQUIRE_DEVICES=1), fail."""
    if os.environ.get("EDGEKIT_REQUIRE_DEVICES") == "1":
        pytest.fail(f"this machine lacks {part}, and EDGEKIT_REQUIRE_DEVICES=1 promises it")
    pytest.skip(f"this machine lacks {part}")

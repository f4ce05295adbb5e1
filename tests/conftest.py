"""What tests of all rooms share."""

import contextlib
import functools
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

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

#: fixtures that take long to make and are made once in each process: all files that use them go to the same, and first
SHARED = {"arm_board": "arm_board", "routes": "routes", "int8_file": "routes"}
ROOT = Path(__file__).parents[1]


@functools.cache
def process_of(file: str) -> str:
    """What a file of tests shares with others, by the parameters of its tests; its own path where it shares nothing."""
    text = (ROOT / file).read_text()
    return next((together for name, together in SHARED.items() if f"{name}: " in text), file)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put first what shares most."""
    order = list(dict.fromkeys(SHARED.values()))
    groups = [process_of(item.path.relative_to(ROOT).as_posix()) for item in items]
    ranks = [order.index(group) if group in order else len(order) for group in groups]
    items[:] = [item for _, item in sorted(zip(ranks, items, strict=True), key=lambda each: each[0])]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """For --dist loadfile: whole files, those that share a fixture of `SHARED` as if they were one.

    Marks of pytest-xdist 3.8's loadgroup do nothing with pytest 9.2, whose node ids can't be changed any more.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Together(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return process_of(nodeid.split("::")[0])

    return Together(config, log) if config.getoption("dist") == "loadfile" else None


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

"""What tests of all rooms share."""

import os
from typing import NoReturn

import pytest

pytest_plugins = ["tests.rigs.environments", "tests.rigs.fixtures"]

# Two frameworks, two cores: one thread each keeps tests fast and their sums the same on every machine.
for variable in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
    os.environ.setdefault(variable, "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# What is tested is done, not found in the cache of whoever runs the tests; those of the cache have one of their own.
os.environ["EDGEKIT_CACHE_SIZE"] = "0"


def lacking(part: str) -> NoReturn:
    """Skip a test for want of a system part; where all parts are promised (EDGEKIT_REQUIRE_DEVICES=1), fail."""
    if os.environ.get("EDGEKIT_REQUIRE_DEVICES") == "1":
        pytest.fail(f"this machine lacks {part}, and EDGEKIT_REQUIRE_DEVICES=1 promises it")
    pytest.skip(f"this machine lacks {part}")

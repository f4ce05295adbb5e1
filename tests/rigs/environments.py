"""Environments of provider packages for tests: those that edgekit itself makes for this user, made once and kept."""

import pytest

from edgekit.devices.registry import open_device
from edgekit.devices.setup import set_up
from edgekit.environments import environment_python
from edgekit.errors import EdgekitError


def provide(runtime: str) -> None:
    """Make the environment of `runtime` where it is not there yet, as `edgekit devices setup local` does."""
    from tests.conftest import lacking  # which loads these rigs itself

    if environment_python(runtime) is not None:
        return
    try:
        with open_device("local") as device:
            set_up(device, runtime=runtime)
    except EdgekitError as error:
        lacking(f"the environment of {runtime} ({error})")


@pytest.fixture(scope="session")
def qnn_environment() -> None:
    """Qualcomm's compiler and simulator."""
    provide("onnxruntime-qnn")


@pytest.fixture(scope="session")
def openvino_environment() -> None:
    """OpenVINO beside LiteRT."""
    provide("litert-openvino")

"""Environments of provider packages for tests: those that edgekit itself makes for this user, made once and kept."""

from importlib.metadata import distributions

import pytest

from edgekit.devices.registry import open_device
from edgekit.devices.setup import RUNTIMES, set_up
from edgekit.environments import environment_python
from edgekit.errors import EdgekitError


def provide(runtime: str) -> None:
    """Make the environment of `runtime` where it is not there yet, as `edgekit devices setup local` does."""
    from tests.conftest import lacking  # which loads these rigs itself

    if _is_complete(runtime):
        return
    try:
        with open_device("local") as device:
            set_up(device, runtime=runtime)
    except EdgekitError as error:
        lacking(f"the environment of {runtime} ({error})")


def _is_complete(runtime: str) -> bool:
    """Whether it is there with all that it is made of now: an older edgekit may have made it with less."""
    python = environment_python(runtime)
    if python is None:
        return False
    packages = [str(path) for path in python.parent.parent.glob("lib/python*/site-packages")]
    names = (requirement.partition("==")[0] for requirement in RUNTIMES[runtime][0])
    return all(any(distributions(name=name, path=packages)) for name in names)


@pytest.fixture(scope="session")
def qnn_environment() -> None:
    """Qualcomm's compiler and simulator."""
    provide("onnxruntime-qnn")


@pytest.fixture(scope="session")
def openvino_environment() -> None:
    """OpenVINO beside LiteRT."""
    provide("litert-openvino")

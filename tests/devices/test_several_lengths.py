"""What measures a file of several signatures: the runtime that keeps their weights once, where the device has it."""

from edgekit.bundle import Manifest
from edgekit.devices.accelerators import plan_run
from edgekit.devices.local import LocalDevice
from tests.measurements import PI


def chosen(proven_with: str, runtimes: dict[str, str]) -> str:
    manifest = Manifest.model_construct(target="tflite", runtime=proven_with)
    facts = PI.model_copy(update={"runtimes": runtimes})
    return plan_run(manifest, facts, accelerator="cpu", runtime=None).runtime


def test_the_runtime_that_shares_weights_comes_first_where_it_is() -> None:
    new, old = {"litert": "2.3.0", "litert-compiled": "2.3.0"}, {"litert": "1.4.0"}
    assert chosen("litert-compiled", new) == "litert-compiled"
    assert chosen("litert-compiled", old) == "litert"
    assert chosen("litert", new) == "litert"


def test_a_device_says_whether_it_has_it() -> None:
    with LocalDevice() as device:
        runtimes = device.facts().runtimes
    assert runtimes["litert-compiled"] == runtimes["litert"]

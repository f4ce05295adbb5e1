"""What loading costs with the runtime's own cache of an earlier load, in real runtimes."""

from pathlib import Path

import pytest

from edgekit.devices.local import LocalDevice
from edgekit.devices.measure import measure_bundle
from edgekit.measurement import Settings
from tests.devices.bundles import write_bundle

QUICK = Settings(num_runs=10, min_secs=0, cold_starts=2)


@pytest.mark.parametrize(
    ("target", "runtime", "cached"),
    [("onnx", "onnxruntime", 2), ("tflite", "litert-compiled", 2), ("tflite", "litert", 0)],
)
def test_cached_loads_are_told_beside_cold_ones(tmp_path: Path, target: str, runtime: str, cached: int) -> None:
    bundle = write_bundle(tmp_path, target)
    with LocalDevice() as device:
        made = measure_bundle(device, bundle, settings=QUICK, runtime=runtime)
    assert len(made.samples.load_ms) == len(made.samples.cold_start_ms) == 2
    assert len(made.samples.cached_load_ms) == cached
    assert all(value > 0 for value in made.samples.cached_load_ms)
    assert made.parity.verdict == "within-tolerance"

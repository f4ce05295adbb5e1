"""Accelerators that run without their hardware, by packages in environments of their own: each really run."""

import ctypes.util
from pathlib import Path

import pytest

from edgekit.bundle import Bundle
from edgekit.devices.accelerators import OFFERED
from edgekit.devices.coverage import read_coverage
from edgekit.devices.local import LocalDevice
from edgekit.devices.measure import measure_bundle
from edgekit.devices.runner.backend import MODULES
from edgekit.devices.runner.job import RUNTIMES
from edgekit.devices.runner.onnx_providers import is_complete, parse_placements
from edgekit.environments import SEPARATE
from edgekit.measurement import Measurement, Settings
from tests.conftest import lacking
from tests.devices.bundles import write_bundle
from tests.devices.test_deceptions import SWIFTSHADER
from tests.rigs.environments import provide

QUICK = Settings(num_runs=10, min_secs=0, max_secs=5, cold_starts=0, openvino_device="CPU")
LOG = """\
[V:onnxruntime:, session_state.cc:1347 VerifyEachNodeIsAssignedToAnEp] Node placements
[V:onnxruntime:, session_state.cc:1353 VerifyEachNodeIsAssignedToAnEp]  Node(s) placed on [CPUExecutionProvider]. \
Number of nodes: 2
[V:onnxruntime:, session_state.cc:1355 VerifyEachNodeIsAssignedToAnEp]   Gather (node_embedding)
[V:onnxruntime:, session_state.cc:1355 VerifyEachNodeIsAssignedToAnEp]   QuantizeLinear (linear_QuantizeLinear)
[V:onnxruntime:, session_state.cc:1353 VerifyEachNodeIsAssignedToAnEp]  Node(s) placed on [WebGpuExecutionProvider]. \
Number of nodes: 3
"""


@pytest.fixture(scope="module")
def divide(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_bundle(tmp_path_factory.mktemp("bundles"), "onnx")


def measure(bundle: Bundle, runtime: str, accelerator: str) -> Measurement:
    provide(runtime)
    with LocalDevice() as device:
        return measure_bundle(device, bundle, accelerator=accelerator, runtime=runtime, settings=QUICK)


def test_qualcomms_npu_in_its_simulator(divide: Bundle) -> None:
    found = measure(divide, "onnxruntime-qnn", "npu")
    assert found.coverage.actual == "QNN", found.evidence
    assert found.coverage.nodes_on_accelerator == found.coverage.nodes == 3
    assert found.verdict in ("valid", "noisy"), found.evidence
    assert "npu (QNN) took 3 of 3 nodes in 1 partition" in found.evidence[-1]
    assert "simulator" in found.evidence[-1]


def test_intels_npu_path_on_the_cpu(tmp_path: Path) -> None:
    """LiteRT's compiler plugin and dispatch of OpenVINO, with the device that --openvino-device names."""
    found = measure(write_bundle(tmp_path), "litert-openvino", "npu")
    assert found.coverage.actual == "OpenVINO CPU", found.evidence
    assert found.coverage.nodes_on_accelerator == found.coverage.nodes == 3
    assert found.coverage.partitions == 1
    assert found.parity.labels_changed == 0  # its numbers are bfloat16's where the processor has it


def test_a_provider_that_initialises_and_takes_no_node(divide: Bundle) -> None:
    """onnxruntime-openvino 1.24.1 leaves so small a graph to the CPU, and says nothing."""
    found = measure(divide, "onnxruntime-openvino", "npu")
    assert found.verdict == "fell-back"
    assert (found.coverage.actual, found.coverage.nodes_on_accelerator) == ("CPU", 0)
    assert found.evidence[0] == "npu was asked for and took none of 3 nodes, all ran on the CPU"
    assert found.parity.verdict == "within-tolerance"


def test_a_gpu_without_one(divide: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    if not SWIFTSHADER.is_file() or ctypes.util.find_library("vulkan") is None:
        lacking("SwiftShader or a Vulkan loader")
    monkeypatch.setenv("VK_ICD_FILENAMES", str(SWIFTSHADER))
    found = measure(divide, "onnxruntime-webgpu", "gpu")
    assert found.parity.verdict == "within-tolerance", found.evidence
    assert (found.coverage.actual, found.coverage.nodes_on_accelerator) == ("WebGpu", 3)
    assert [(left.operator, left.count) for left in found.coverage.left_behind] == [("Cast", 2)]  # to and from int64
    monkeypatch.setenv("VK_ICD_FILENAMES", "/nonexistent")
    without = measure(divide, "onnxruntime-webgpu", "gpu")
    assert without.verdict == "fell-back"
    assert "WebGPU adapter" in without.evidence[0]
    assert without.parity.verdict == "within-tolerance"


def test_placements_are_read_from_the_log() -> None:
    parts = parse_placements(LOG)
    assert parts == [
        ["CPUExecutionProvider", ["Gather", "QuantizeLinear"]],
        ["WebGpuExecutionProvider", ["", "", ""]],
    ]
    found = read_coverage({"format": "onnxruntime", "parts": parts, "partitions": False}, "gpu")
    assert (found.actual, found.nodes, found.nodes_on_accelerator, found.partitions) == ("WebGpu", 5, 3, None)
    assert [each.operator for each in found.left_behind] == ["Gather", "QuantizeLinear"]
    assert parse_placements("All nodes placed on [CPUExecutionProvider]. Number of nodes: 3") == [
        ["CPUExecutionProvider", ["", "", ""]]
    ]
    assert [is_complete(version) for version in ("1.24.1", "1.27.0", "1.31.1", "2.0.0")] == [False, False, True, True]


def test_a_provider_that_took_nothing_is_no_coverage() -> None:
    parts = [["CPUExecutionProvider", ["Cast", "Div"]]]
    found = read_coverage({"format": "onnxruntime", "parts": parts}, "npu")
    assert (found.actual, found.nodes, found.nodes_on_accelerator) == ("CPU", 2, 0)


def test_runtimes_are_the_same_on_both_sides() -> None:
    assert set(RUNTIMES) == set(MODULES)
    assert set(SEPARATE) <= set(OFFERED) & set(RUNTIMES)

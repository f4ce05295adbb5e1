"""Each way in which an accelerator deceives, produced with real runtimes, and what edgekit says of it."""

import ctypes.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgekit.bundle import Bundle
from edgekit.devices.benchmark_model import open_benchmark_tool
from edgekit.devices.fake import FakeDevice
from edgekit.devices.measure import measure_bundle
from edgekit.devices.runner.backend import import_runtime, load_backend
from edgekit.devices.runner.job import RunnerJob
from edgekit.errors import RefusedError, RunnerError
from edgekit.measurement import DeviceFacts, Measurement, Settings
from tests.conftest import lacking
from tests.devices.accelerator_files import COLUMNS, write_lookup, write_lookup_bundle
from tests.devices.benchmark_tool import write_tool
from tests.devices.bundles import write_bundle

SWIFTSHADER = Path("/usr/lib/chromium/vk_swiftshader_icd.json")
QUICK = Settings(num_runs=12, min_secs=0, max_secs=5, cold_starts=0)


@pytest.fixture(scope="module")
def divide(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_bundle(tmp_path_factory.mktemp("bundles"))


@pytest.fixture
def software_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """SwiftShader in the environment of the runner: Vulkan on the processor."""
    if not SWIFTSHADER.is_file() or ctypes.util.find_library("vulkan") is None:
        lacking("SwiftShader or a Vulkan loader")
    monkeypatch.setenv("VK_ICD_FILENAMES", str(SWIFTSHADER))


@pytest.fixture(scope="module")
def delegate(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A delegate of our own, compiled here."""
    compiler = shutil.which("cc")
    if compiler is None:
        lacking("a C compiler")
    library = tmp_path_factory.mktemp("delegate") / "libedgekit_test_delegate.so"
    source = Path(__file__).with_name("delegate.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    return str(library)


def measure(
    bundle: Bundle, accelerator: str, *, runtime: str | None = None, grace_s: float = 60, **settings: str
) -> Measurement:
    """Measure on this machine, whose own interpreter stands in for that of environments which it lacks."""
    facts = DeviceFacts(
        address="fake:board",
        python=sys.executable,
        runtimes={"litert": "2", "onnxruntime": "1"},
        environments=dict.fromkeys(("litert-openvino", "onnxruntime-openvino"), sys.executable),
    )
    chosen = QUICK.model_copy(update=settings)
    with FakeDevice(facts_told=facts) as device:
        return measure_bundle(
            device, bundle, accelerator=accelerator, settings=chosen, runtime=runtime, grace_s=grace_s
        )


def covered(found: Measurement) -> tuple[str, int | None, int | None]:
    return found.coverage.actual, found.coverage.nodes_on_accelerator, found.coverage.nodes


@pytest.mark.usefixtures("software_gpu")
def test_asynchronous_times(tmp_path: Path) -> None:
    """A run on the GPU returns before it is done: what edgekit times has the outputs in its hands."""
    path = write_lookup(tmp_path / "model.tflite", "float16")
    job = RunnerJob(runtime="litert-compiled", model=str(path), steps="", outputs="", accelerator="gpu")
    backend = load_backend(import_runtime(job), job)
    assert backend.fallback == ""
    import numpy as np

    call = backend.prepare("serving_default", {"ids": np.array([3], np.int32)})
    call.write()
    given = call.run()
    assert given["logits"].shape == (1, COLUMNS)
    assert call.read(given) is given  # nothing is left to wait for


@pytest.mark.usefixtures("software_gpu")
def test_garbage_that_is_fully_accelerated(tmp_path: Path) -> None:
    """LiteRT's GPU looks rows of an int8 table up, exits with 0, says "fully accelerated", and answers zeros."""
    found = measure(write_lookup_bundle(tmp_path, "int8"), "gpu")
    assert covered(found) == ("WebGPU", 2, 2)
    assert found.verdict == "wrong-output"
    assert found.fault == ""
    on_cpu = measure(write_lookup_bundle(tmp_path / "again", "int8"), "cpu", runtime="litert-compiled")
    assert on_cpu.verdict != "wrong-output"


@pytest.mark.usefixtures("software_gpu")
def test_partial_coverage_that_only_standard_error_tells(tmp_path: Path) -> None:
    found = measure(write_lookup_bundle(tmp_path, "float16"), "gpu")
    assert covered(found) == ("WebGPU", 3, 5)
    left = {each.operator: (each.count, each.reason) for each in found.coverage.left_behind}
    assert left == {"DEQUANTIZE": (1, ""), "EMBEDDING_LOOKUP": (1, "EMBEDDING_LOOKUP: Empty quantization params.")}
    assert "SwiftShader" in found.coverage.note
    assert found.verdict in ("valid", "noisy")
    assert found.parity.verdict == "within-tolerance"


def test_a_driver_that_is_not_there(divide: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VK_ICD_FILENAMES", "/nonexistent")
    found = measure(divide, "gpu")
    assert found.verdict == "fell-back"
    assert covered(found) == ("CPU", 0, None)
    assert "took no node, all ran on the CPU" in found.evidence[0]
    assert "VK_ICD_FILENAMES" in found.evidence[0] or "loader" in found.evidence[0]
    assert found.samples.latency_ms  # what the CPU took is there to look at
    assert found.parity.verdict == "within-tolerance"


def test_a_silent_cpu(divide: Bundle) -> None:
    """Without OpenVINO's libraries LiteRT's NPU path runs on the CPU, rightly, and exits with 0."""
    found = measure(divide, "npu", openvino_device="CPU")
    assert found.verdict == "fell-back"
    assert covered(found) == ("CPU", 0, 3)
    assert "cannot open shared object file" in found.evidence[0]
    assert found.parity.verdict == "within-tolerance"


def test_a_provider_that_this_onnxruntime_has_not(tmp_path: Path) -> None:
    """ONNX Runtime warns and goes on with the CPU; the last package in the folder wins."""
    found = measure(write_bundle(tmp_path, "onnx"), "npu")
    assert found.verdict == "fell-back"
    assert "has no OpenVINOExecutionProvider" in found.evidence[0]


@pytest.mark.parametrize(
    ("mode", "expected", "says"),
    [
        ("none", ("CPU", 0, 3), "took none of 3 nodes"),  # XNNPACK takes one then: it must not count
        ("some", ("libedgekit_test_delegate.so", 1, 3), "took 1 of 3 nodes: most of it ran on the CPU"),
        ("refuse", ("CPU", 0, None), "can't be loaded: no such device"),
        ("prepare-fails", ("CPU", 0, None), "refused the file: the delegate can't prepare"),
    ],
)
def test_a_delegate_that_does_not_do_the_work(
    mode: str, expected: tuple[str, int, int | None], says: str, divide: Bundle, delegate: str
) -> None:
    found = measure(divide, "npu", runtime="litert", delegate=f"{delegate}:mode={mode}")
    assert found.verdict == "fell-back"
    assert covered(found) == expected
    assert says in found.evidence[0]
    assert found.parity.verdict == "within-tolerance"


def test_a_delegate_that_does_it(divide: Bundle, delegate: str) -> None:
    found = measure(divide, "npu", delegate=f"{delegate}:mode=all")
    assert found.runtime == "litert"
    assert covered(found) == ("libedgekit_test_delegate.so", 3, 3)
    assert found.verdict in ("valid", "noisy")


def test_a_delegate_that_answers_wrongly(divide: Bundle, delegate: str) -> None:
    found = measure(divide, "npu", delegate=f"{delegate}:mode=wrong")
    assert found.verdict == "wrong-output"
    assert covered(found) == ("libedgekit_test_delegate.so", 3, 3)


def test_a_delegate_that_crashes(divide: Bundle, delegate: str) -> None:
    with pytest.raises(RunnerError, match=r"died of signal 11 \(SIGSEGV\).*--accelerator npu with litert") as raised:
        measure(divide, "npu", delegate=f"{delegate}:mode=crash")
    assert "\n" not in str(raised.value)
    assert raised.value.returncode == -11


def test_a_delegate_that_hangs(divide: Bundle, delegate: str) -> None:
    settings = {"delegate": f"{delegate}:mode=hang", "max_secs": 1.0}
    with pytest.raises(RunnerError, match="did not finish on fake:board within 6 s and was ended"):
        measure(divide, "npu", grace_s=5, **settings)  # type: ignore[arg-type]


def test_a_delegate_that_is_not_there(divide: Bundle) -> None:
    found = measure(divide, "edgetpu", runtime="litert")
    assert found.verdict == "fell-back"
    assert "libedgetpu.so.1" in found.evidence[0]
    with pytest.raises(RefusedError, match="--delegate"):
        measure(divide, "npu", runtime="litert")


def test_benchmark_model_that_runs_on_the_cpu(divide: Bundle, tmp_path: Path) -> None:
    """As Google's own did with --use_nnapi=true: XNNPACK took all nodes, exit code 0."""
    tool = open_benchmark_tool(write_tool(tmp_path / "benchmark_model"))
    facts = DeviceFacts(address="adb:R58", os="Android 14 (API 34)", accelerators=("cpu", "nnapi"))
    with FakeDevice(facts_told=facts, answers={("dumpsys",): ""}) as phone:
        found = measure_bundle(phone, divide, accelerator="nnapi", benchmark_tool=tool, settings=QUICK)
    assert found.verdict == "fell-back"
    assert covered(found) == ("CPU", 0, 6)


def test_nnapi_where_there_is_none(divide: Bundle) -> None:
    with pytest.raises(RefusedError, match=r"deprecated since Android 15.*onnxruntime-qnn"):
        measure(divide, "nnapi")

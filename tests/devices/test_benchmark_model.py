"""Google's benchmark_model: what it prints, whole, cut and failed, and a phone that has nothing else."""

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from edgekit.bundle import Bundle
from edgekit.devices.benchmark_model import BenchmarkTool, open_benchmark_tool
from edgekit.devices.benchmark_output import failure_line, parse_flags, parse_output
from edgekit.devices.fake import FakeDevice
from edgekit.devices.measure import Candidate, measure_bundle, measure_interleaved
from edgekit.devices.tflite_layout import read_layouts
from edgekit.errors import DeviceError, RefusedError, RunnerError
from edgekit.measurement import DeviceFacts, Measurement, Settings
from edgekit.statistics import blocks
from tests.devices.benchmark_tool import HELP, OUTPUT, write_tool
from tests.devices.bundles import write_bundle

PHONE = DeviceFacts(address="adb:R58", os="Android 14 (API 34)", model="a phone", cores=8)
#: one run only, scientific notation, and the three lines of standard error after all others
ONE_RUN = """\
INFO: STARTING!
INFO: Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
INFO: count=1 curr=3237620
INFO: Running benchmark for at least 1 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
INFO: count=1 curr=3.23762e+06
INFO: Inference timings in us: Init: 69340, First inference: 3.23762e+06, Inference (avg): 3.23762e+06
"""
OLD = """\
Inference timings in us: Init: 5685, First inference: 18535, Warmup (avg): 14462.3, Inference (avg): 14575.2
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_bundle(tmp_path_factory.mktemp("bundles"))


@pytest.fixture(scope="module")
def tool(tmp_path_factory: pytest.TempPathFactory) -> BenchmarkTool:
    return open_benchmark_tool(write_tool(tmp_path_factory.mktemp("tool") / "benchmark_model"))


def measure(bundle: Bundle, tool: BenchmarkTool, settings: Settings | None = None) -> Measurement:
    with FakeDevice(facts_told=PHONE, answers={("dumpsys",): ""}) as phone:
        return measure_bundle(phone, bundle, settings=settings, benchmark_tool=tool)


def test_what_it_prints_is_read_whole() -> None:
    found = parse_output(OUTPUT)
    assert found is not None
    assert (found.count, found.median_ms, found.min_ms, found.max_ms) == (20, 6.724, 6.253, 8.219)
    assert (found.mean_ms, found.deviation_ms) == pytest.approx((6.9041, 0.477))
    assert (found.init_ms, found.first_ms, found.warmup_ms) == (69.34, 12.96, 9.63)
    assert (found.init_memory_bytes, found.peak_memory_bytes) == (3420161, 5799936)
    assert (found.coverage.actual, found.coverage.nodes_on_accelerator) == ("XNNPACK", 6)


def test_one_run_and_scientific_notation() -> None:
    found = parse_output(ONE_RUN)
    assert found is not None
    assert (found.count, found.median_ms, found.mean_ms) == (1, 3237.62, 3237.62)
    assert (found.min_ms, found.deviation_ms, found.peak_memory_bytes) == (None, None, None)
    assert found.first_ms == 3237.62


def test_a_cut_is_never_taken_for_a_result() -> None:
    """Cut anywhere: no result before the timings, and never the warm-up's."""
    end = OUTPUT.index("INFO: Inference timings in us: ") + len("INFO: Inference timings in us: ")
    for cut in range(0, end, 3):
        assert parse_output(OUTPUT[:cut]) is None
    for cut in range(end, len(OUTPUT), 3):
        found = parse_output(OUTPUT[:cut])
        assert found is None or found.median_ms == 6.724
    assert parse_output(OLD) is None  # timings alone have no count
    assert parse_output("") is None


def test_flags_of_its_help() -> None:
    flags = parse_flags(HELP)
    assert {"graph", "output_filepath", "signature_to_run_for", "input_layer_value_files"} <= flags
    assert "Flags" not in flags


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "INFO: STARTING!\nERROR: Can not open OpenCL library\nERROR: Failed to apply GPU delegate.\n"
            "ERROR: Benchmarking failed.\n",
            "ERROR: Failed to apply GPU delegate.",
        ),
        ("INFO: STARTING!\nERROR: Could not open 'x.tflite'.\n", "ERROR: Could not open 'x.tflite'."),
        ("INFO: a\nCANNOT LINK EXECUTABLE: library not found\n\n", "CANNOT LINK EXECUTABLE: library not found"),
        ("", "it printed nothing"),
    ],
)
def test_why_it_failed(text: str, line: str) -> None:
    assert failure_line(text) == line


def test_the_order_of_inputs_is_that_of_the_file(bundle: Bundle) -> None:
    layout = read_layouts(bundle.model_path)["serving_default"]
    assert layout.inputs == (("ids", "ids"), ("mask", "mask"))
    assert layout.outputs == (("logits", "logits"),)


def test_a_phone_without_python(bundle: Bundle, tool: BenchmarkTool) -> None:
    """Every process is fed another real text, and what it answers is compared."""
    found = measure(bundle, tool, Settings(op_profile=True))
    assert found.runtime == "benchmark_model"
    assert found.tool == f"benchmark_model sha256:{tool.sha256}"
    assert found.samples.latency_ms == (6.724,) * 10
    assert found.samples.steps == (0, 1, 2, 3, 4, 5, 0, 1, 2, 3)
    assert found.samples.load_ms == (69.34,) * 10
    assert found.samples.peak_memory_bytes == 5799936
    assert found.parity.verdict == "within-tolerance"
    assert found.parity.steps == 6
    assert found.verdict == "valid", found.evidence
    assert [operator.kind for operator in found.operators] == ["CAST", "DIV"]
    fixed = measure(bundle, tool, Settings(real_lengths=False))
    assert set(fixed.samples.steps) == {0}


def test_what_can_not_be_seen_is_unproven(bundle: Bundle, tool: BenchmarkTool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOL_MODE", "old")
    found = measure(bundle, tool)
    assert found.verdict == "unproven"
    assert any("no --output_filepath" in sentence for sentence in found.evidence)


def test_wrong_answers_of_the_phone(bundle: Bundle, tool: BenchmarkTool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOL_MODE", "wrong")
    found = measure(bundle, tool)
    assert found.verdict == "wrong-output"
    assert found.parity.max_abs_difference == pytest.approx(1)


@pytest.mark.parametrize(
    ("mode", "error", "words"),
    [
        ("gpu-fails", RunnerError, r"exit code 1\): ERROR: Failed to apply GPU delegate"),
        ("truncated", RunnerError, "ended before its result"),
        ("segv", RunnerError, "died of signal 11"),
        ("no-values", RefusedError, "--input_layer_value_files: without it ids are random"),
    ],
)
def test_a_run_that_fails_is_one_clear_line(
    mode: str,
    error: type[Exception],
    words: str,
    bundle: Bundle,
    tool: BenchmarkTool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TOOL_MODE", mode)
    with pytest.raises(error, match=words) as raised:
        measure(bundle, tool)
    assert "\n" not in str(raised.value)


def test_a_tool_that_is_on_the_phone(bundle: Bundle, tool: BenchmarkTool) -> None:
    there = PHONE.model_copy(update={"runtimes": {"benchmark_model": str(tool.path)}})
    with FakeDevice(facts_told=there, answers={("dumpsys",): ""}) as phone:
        found = measure_bundle(phone, bundle)
        assert "benchmark_model" not in phone.sent
    assert found.tool == f"benchmark_model sha256:{tool.sha256}"
    assert found.parity.verdict == "within-tolerance"


def test_a_tool_from_the_web_is_fetched_once(tool: BenchmarkTool, tmp_path: Path) -> None:
    handler = partial(SimpleHTTPRequestHandler, directory=str(tool.path.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/benchmark_model"
        fetched = open_benchmark_tool(url, cache=tmp_path / "cache")
        with pytest.raises(DeviceError, match=r"/none can't be fetched.*File not found"):
            open_benchmark_tool(url.replace("/benchmark_model", "/none"), cache=tmp_path / "cache")
        server.shutdown()
    assert fetched.sha256 == tool.sha256
    assert open_benchmark_tool(url, cache=tmp_path / "cache") == fetched  # the server is gone
    with pytest.raises(DeviceError, match="can't be fetched"):
        open_benchmark_tool(f"{url}-other", cache=tmp_path / "cache")
    with pytest.raises(RefusedError, match="is not https"):
        open_benchmark_tool("http://example.com/benchmark_model", cache=tmp_path / "cache")


def test_turns_of_the_tool(bundle: Bundle, tool: BenchmarkTool) -> None:
    with FakeDevice(facts_told=PHONE, answers={("dumpsys",): ""}) as phone:
        candidates = [Candidate(bundle=bundle), Candidate(bundle=bundle)]
        first, second = measure_interleaved(phone, candidates, rounds=2, benchmark_tool=tool)
    assert [len(block) for block in blocks(first.samples)] == [5, 5]
    assert first.parity.verdict == second.parity.verdict == "within-tolerance"


def test_programs_that_are_not_it(bundle: Bundle, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("#!/bin/sh\necho 'I am no benchmark'\n")
    with pytest.raises(RunnerError, match="is no benchmark_model for fake:board"):
        measure(bundle, open_benchmark_tool(other))
    foreign = tmp_path / "foreign"  # for another processor: it can't be started
    foreign.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(57))
    with pytest.raises(RunnerError, match="is no benchmark_model for fake:board"):
        measure(bundle, open_benchmark_tool(foreign))
    with pytest.raises(DeviceError, match="there is no file"):
        open_benchmark_tool(tmp_path / "none")


def test_what_needs_python_is_refused(bundle: Bundle, tool: BenchmarkTool) -> None:
    for settings, option in (
        (Settings(sustained_secs=60), "--sustained"),
        (Settings(pin_cores=(0,)), "--pin-cores"),
        (Settings(energy=True), "--energy"),
    ):
        with pytest.raises(RefusedError, match=option):
            measure(bundle, tool, settings)


def test_values_are_sent_as_the_tool_reads_them(bundle: Bundle, tool: BenchmarkTool) -> None:
    with FakeDevice(facts_told=PHONE, answers={("dumpsys",): ""}) as phone:
        measure_bundle(phone, bundle, benchmark_tool=tool)
        sent = np.fromfile(Path(phone.folder) / "step1-ids.bin", dtype="<i4")
    assert sent.tolist() == [2, 44, 6, 8]

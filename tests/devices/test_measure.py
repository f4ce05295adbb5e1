"""Measuring whole bundles: on this machine in real runtimes, through real crashes and hangs."""

from pathlib import Path

import pytest

from edgekit.bundle import Bundle
from edgekit.devices.fake import FakeDevice, Faults
from edgekit.devices.local import LocalDevice
from edgekit.devices.measure import Candidate, Interrupted, measure_bundle, measure_interleaved
from edgekit.devices.runner.energy import Energy
from edgekit.errors import BundleError, DeviceLostError, RefusedError, RunnerError, UnknownNameError
from edgekit.measurement import Measurement, Settings
from edgekit.statistics import blocks, ratio_of_medians, summarize
from tests.devices.bundles import STEPS, write_bundle
from tests.devices.faulty import write_runtime

QUICK = Settings(num_runs=60, min_secs=0, max_secs=20, cold_starts=1)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    folder = tmp_path_factory.mktemp("bundles")
    return {target: write_bundle(folder, target) for target in ("tflite", "onnx")}


@pytest.fixture
def faulty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A runtime that faults as FAULT says, in reach of the runner."""
    monkeypatch.setenv("PYTHONPATH", str(write_runtime(tmp_path / "faulty")))
    return monkeypatch


def measure(bundle: Bundle, settings: Settings = QUICK, **options: object) -> Measurement:
    with LocalDevice() as device:
        return measure_bundle(device, bundle, settings=settings, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("target", "runtime", "actual"),
    [("tflite", "litert", ("XNNPACK", "CPU")), ("tflite", "litert-compiled", ("CPU",)), ("onnx", None, ("CPU",))],
)
def test_a_measurement_is_whole(
    target: str, runtime: str | None, actual: tuple[str, ...], bundles: dict[str, Bundle]
) -> None:
    said: list[str] = []
    settings = QUICK.model_copy(update={"op_profile": True, "cold_starts": 2})
    found = measure(bundles[target], settings, runtime=runtime, on_progress=said.append)
    samples = found.samples
    assert found.verdict in ("valid", "noisy")  # other programs may run here
    assert found.fault == ""
    assert (len(samples.latency_ms), len(samples.transfer_ms), len(samples.steps)) == (60, 60, 60)
    assert set(samples.steps) == set(range(STEPS))
    assert samples.rounds == ()
    assert len(samples.cold_start_ms) == len(samples.load_ms) == len(samples.first_inference_ms) == 2
    assert all(load < start for load, start in zip(samples.load_ms, samples.cold_start_ms, strict=True))
    assert summarize(samples.latency_ms).p50_ms > 0
    assert (samples.peak_memory_bytes or 0) > (samples.baseline_memory_bytes or 0) > 0
    assert found.parity.verdict == "within-tolerance"
    assert found.parity.steps == STEPS
    assert found.accuracy == 1
    assert found.coverage.actual in actual
    assert len(found.operators) >= 3
    assert found.runtime == (runtime or "onnxruntime")
    assert found.runtime_version.count(".") == 2
    assert found.model_sha256 == bundles[target].manifest.files[bundles[target].manifest.model].sha256
    assert found.before.load_1min is not None
    assert found.before.free_memory_bytes
    assert found.after.time >= found.before.time
    assert found.evidence
    assert said[0] == "sending"
    assert "cold start 2 of 2" in said
    assert "profiling operators" in said
    assert found == Measurement.model_validate_json(found.model_dump_json())


def test_the_same_again_has_the_same_fingerprint(bundles: dict[str, Bundle]) -> None:
    settings = QUICK.model_copy(update={"cold_starts": 0})
    first, second = measure(bundles["onnx"], settings), measure(bundles["onnx"], settings)
    other = measure(bundles["onnx"], settings.model_copy(update={"num_threads": 2}))
    assert first.fingerprint == second.fingerprint != other.fingerprint
    assert first.samples.cold_start_ms == ()


def test_wrong_outputs_are_never_valid(tmp_path: Path) -> None:
    found = measure(write_bundle(tmp_path, shift=0.25))
    assert found.verdict == "wrong-output"
    assert "|Δ| 0.25" in found.evidence[0]
    assert found.parity.verdict == "failed"
    assert found.samples.latency_ms  # and what was measured is there to look at


def test_a_runtime_that_is_not_installed(bundles: dict[str, Bundle]) -> None:
    with pytest.raises(RunnerError, match=r"runtime-missing.*tflite_runtime"):
        measure(bundles["tflite"], runtime="tflite-runtime")


def test_a_crash_keeps_what_was_measured(faulty: pytest.MonkeyPatch, bundles: dict[str, Bundle]) -> None:
    """A real SIGSEGV in the middle of the samples: they are kept, and so is the proof of the outputs."""
    faulty.setenv("FAULT", "segv:1800")
    settings = QUICK.model_copy(update={"cold_starts": 0, "num_runs": 10**9, "max_secs": 4})
    found = measure(bundles["tflite"], settings, runtime="tflite-runtime")
    assert found.fault == "model.tflite could not be run: the runtime died of signal 11 (SIGSEGV)"
    assert found.verdict == "unproven"
    assert any(found.fault in sentence for sentence in found.evidence)
    assert 0 < len(found.samples.latency_ms) < 1800
    assert found.parity.verdict == "within-tolerance"
    assert found.runtime_version == "0.0.faulty"


def test_a_crash_before_any_sample_is_an_error(faulty: pytest.MonkeyPatch, bundles: dict[str, Bundle]) -> None:
    faulty.setenv("FAULT", "ill:0")
    with pytest.raises(RunnerError, match=r"died of signal 4 \(SIGILL\)") as raised:
        measure(bundles["tflite"], runtime="tflite-runtime")
    assert "\n" not in str(raised.value)
    faulty.setenv("FAULT", "raise:3")
    with pytest.raises(RunnerError, match=r"run-failed.*the accelerator was reset") as raised:
        measure(bundles["tflite"], runtime="tflite-runtime")
    assert "second line" not in str(raised.value)


def test_a_hang_is_ended_and_keeps_what_was_measured(faulty: pytest.MonkeyPatch, bundles: dict[str, Bundle]) -> None:
    faulty.setenv("FAULT", "hang:1800")
    settings = QUICK.model_copy(update={"cold_starts": 0, "num_runs": 10**9, "max_secs": 4})
    found = measure(bundles["tflite"], settings, runtime="tflite-runtime", grace_s=1.0)
    assert found.fault == "model.tflite did not finish on local within 5 s and was ended"
    assert found.samples.latency_ms


def test_a_device_that_vanishes_keeps_what_was_measured(bundles: dict[str, Bundle]) -> None:
    settings = QUICK.model_copy(update={"cold_starts": 0, "num_runs": 10**9, "max_secs": 5})
    with LocalDevice() as here:
        facts = here.facts()
    seven = Faults(vanish_after_lines=7)  # loaded, memory, assignment, replayed, warmup, and two batches of samples
    board = FakeDevice(facts_told=facts, answers={("grep",): ""}, faults=seven)
    with pytest.raises(DeviceLostError), board:
        found = measure_bundle(board, bundles["tflite"], settings=settings)
    assert "vanished" in found.fault
    assert found.verdict == "unproven"
    assert found.samples.latency_ms
    assert found.coverage.nodes == 3


def test_ctrl_c_keeps_what_was_measured(bundles: dict[str, Bundle]) -> None:
    def interrupt(said: str) -> None:
        if said.startswith("measuring"):
            raise KeyboardInterrupt

    candidates = [Candidate(bundle=bundles["tflite"]), Candidate(bundle=bundles["onnx"])]
    settings = QUICK.model_copy(update={"num_runs": 10**9, "cold_starts": 0})
    with LocalDevice() as device, pytest.raises(Interrupted) as raised:
        measure_interleaved(device, candidates, settings=settings, on_progress=interrupt)
    begun, waiting = raised.value.measurements
    assert begun.samples.latency_ms
    assert waiting.samples.latency_ms == ()
    assert begun.fault == waiting.fault == "interrupted by Ctrl-C"
    assert begun.verdict == waiting.verdict == "unproven"


def test_candidates_are_measured_in_turns(bundles: dict[str, Bundle]) -> None:
    said: list[str] = []
    candidates = [Candidate(bundle=bundles["tflite"]), Candidate(bundle=bundles["onnx"])]
    with LocalDevice() as device:
        a, b = measure_interleaved(device, candidates, settings=QUICK, rounds=3, on_progress=said.append)
    for found in (a, b):
        assert found.settings.rounds == 3
        assert [len(block) for block in blocks(found.samples)] == [20, 20, 20]
        assert len(found.samples.cold_start_ms) == 1
        assert found.parity.verdict == "within-tolerance"
    ratio = ratio_of_medians(blocks(a.samples), blocks(b.samples))
    assert 0 < ratio.low <= ratio.ratio <= ratio.high


def test_one_candidate_that_fails_does_not_stop_the_others(
    faulty: pytest.MonkeyPatch, bundles: dict[str, Bundle]
) -> None:
    faulty.setenv("FAULT", "segv:0")
    candidates = [Candidate(bundle=bundles["tflite"], runtime="tflite-runtime"), Candidate(bundle=bundles["onnx"])]
    with LocalDevice() as device:
        crashed, whole = measure_interleaved(device, candidates, settings=QUICK, rounds=2)
    assert "SIGSEGV" in crashed.fault
    assert crashed.samples.latency_ms == ()
    assert crashed.verdict != "valid"
    assert len(whole.samples.latency_ms) == 60
    assert whole.fault == ""


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"accelerator": "coreml"}, RefusedError, "coreml is not offered for tflite files: use --accelerator cpu, gpu"),
        ({"accelerator": "npu", "runtime": "litert-compiled"}, RefusedError, "npu is not offered for tflite files on"),
        ({"accelerator": "gpu", "runtime": "litert"}, RefusedError, "litert needs a delegate for gpu.*--delegate"),
        ({"accelerator": "gpuu"}, UnknownNameError, "did you mean gpu"),
        ({"runtime": "onnxruntime"}, RefusedError, "onnxruntime does not run tflite files"),
        ({"runtime": "litert2"}, UnknownNameError, "did you mean litert"),
        ({"runtime": "benchmark_model"}, RefusedError, "--benchmark-model"),
    ],
)
def test_what_is_not_offered_is_refused_by_name(
    options: dict[str, str], error: type[Exception], words: str, bundles: dict[str, Bundle]
) -> None:
    with pytest.raises(error, match=words):
        measure(bundles["tflite"], **options)


def test_devices_that_can_not_run_a_target(bundles: dict[str, Bundle]) -> None:
    with FakeDevice(faults=Faults(no_runtime=True)) as phone:
        with pytest.raises(RefusedError, match=r"onnx files can't be run on fake:board.*no Python.*TFLite files only"):
            measure_bundle(phone, bundles["onnx"])
        with pytest.raises(RefusedError, match=r"no runtime for tflite files.*devices setup.*--benchmark-model"):
            measure_bundle(phone, bundles["tflite"])


def test_a_changed_bundle_is_not_measured(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path)
    bundle.model_path.write_bytes(bundle.model_path.read_bytes() + b"\0")
    with pytest.raises(BundleError, match="bytes, not"):
        measure(bundle)


def test_energy_is_refused_with_the_reason(bundles: dict[str, Bundle]) -> None:
    supply = "/sys/class/power_supply/battery"
    charging = {("grep",): f"{supply}/capacity:80\n{supply}/status:Charging\n"}
    settings = QUICK.model_copy(update={"energy": True})
    with FakeDevice(answers=charging) as phone, pytest.raises(RefusedError, match="charging: unplug it"):
        measure_bundle(phone, bundles["tflite"], settings=settings)
    if Energy().refusal:
        with pytest.raises(RunnerError, match="energy can't be known here"):
            measure(bundles["tflite"], settings)
    else:
        assert (measure(bundles["tflite"], settings).samples.energy_mj_per_inference or 0) > 0

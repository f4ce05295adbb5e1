"""A report with one run of every kind, and names that would be trouble where they are not escaped."""

from edgekit.measurement import Coverage, DeviceFacts, DeviceParity, Measurement
from edgekit.report.build import build_report
from edgekit.report.devices import devices_part
from edgekit.report.document import Report
from edgekit.results import Run
from tests.measurements import fallen_back, measurement, samples, sustained

HOSTILE = "</script><script>document.title='run'</script><img src=x onerror=\"document.title='run'\">&amp;|*x*"
LOCAL = DeviceFacts(address="local", machine="x86_64", cores=2)


def every_kind() -> list[Measurement]:
    """Valid ones on two devices, many samples, fell back, throttled, wrong, cut short, and with hostile texts."""
    made = [
        measurement(3.0),
        measurement(1.4, seed=2, bundle="tiny.tflite-int8", scheme="int8", model_size_bytes=990_000),
        measurement(0.31, device=LOCAL, samples=samples(0.31, count=5000), settings=measurement().settings),
        fallen_back(),
        sustained(bundle="tiny.tflite-int8-dynamic"),
        measurement(
            bundle=HOSTILE,
            verdict="wrong-output",
            evidence=(HOSTILE,),
            coverage=Coverage(actual=HOSTILE),
            parity=DeviceParity(verdict="failed", steps=50, max_abs_difference=1.5, tolerance=1e-4, note=HOSTILE),
        ),
        measurement(
            samples=samples(latency_ms=(), cold_start_ms=(), load_ms=(), first_inference_ms=(), warmup_ms=(), steps=()),
            accuracy=None,
            operators=(),
            verdict="unproven",
            evidence=(),
            fault="the board vanished",
        ),
    ]
    return [each.model_copy(update={"id": f"{index:08x}"}) for index, each in enumerate(made)]


def whole_report() -> Report:
    runs = [Run(measurement=each, session="s", label="main") for each in every_kind()]
    return build_report(title=f"A report {HOSTILE}", devices=devices_part(runs, remarks=[HOSTILE]))

"""Accelerators beside the CPU: gains with intervals, from samples whose ratio is known."""

import pytest

from edgekit.measurement import Measurement, Samples
from edgekit.report.beside_cpu import beside_cpu, beside_cpu_table, moving_share, speedup, speedup_text
from edgekit.report.devices import devices_part
from edgekit.report.devices_view import devices_section
from edgekit.report.markdown import render_sections
from edgekit.results import Run
from tests.measurements import latencies, measurement, samples


def on_gpu(median_ms: float, transfer_ms: float = 0.0, seed: int = 2, **changes: object) -> Measurement:
    taken = samples(median_ms, seed=seed, transfer_ms=(transfer_ms,) * 200, **changes)
    return measurement(id="g", accelerator="gpu", samples=taken)


def runs(*made: Measurement, session: str = "s") -> list[Run]:
    return [Run(measurement=each, session=session) for each in made]


def test_a_gain_is_the_ratio_of_whole_times() -> None:
    """1 ms of work and 1 ms of moving data are 2 ms: 1.5 times faster than 3 ms, and not 3 times."""
    (found,) = beside_cpu(runs(on_gpu(1.0, 1.0), measurement(3.0, id="c")))
    assert (found.run, found.cpu_run, found.accelerator) == ("g", "c", "gpu")
    assert found.speedup == pytest.approx(1.5, rel=0.02)
    assert found.low < found.speedup < found.high
    assert found.surely_faster
    assert not found.surely_slower
    assert found.moving_share == pytest.approx(0.5, rel=0.02)


def test_what_loading_costs_is_beside_it_cold_and_cached() -> None:
    gpu = on_gpu(1.0, load_ms=(400.0, 420.0, 410.0), cached_load_ms=(90.0, 95.0, 92.0))
    (found,) = beside_cpu(runs(gpu, measurement(3.0)))
    assert (found.load_ms, found.cached_load_ms, found.cpu_load_ms) == (410.0, 92.0, 20.75)


def test_turns_are_drawn_in_pairs() -> None:
    """A device that gets slower hits both: the ratio of each turn is the same."""
    drifting = [(1 + turn, latencies(1.0 + turn, count=40, seed=turn)) for turn in range(5)]
    rounds = tuple(turn for turn in range(5) for _ in range(40))

    def taken(factor: float) -> Samples:
        values = tuple(factor * value for _, part in drifting for value in part)
        return Samples(latency_ms=values, rounds=rounds, transfer_ms=(0.0,) * 200)

    ratio = speedup(taken(1.0), taken(2.0))
    assert (ratio.ratio, ratio.low, ratio.high) == pytest.approx((0.5, 0.5, 0.5))


@pytest.mark.parametrize(
    "other",
    [
        measurement(3.0, bundle_sha256="d" * 64),
        measurement(3.0, accelerator="npu"),
        measurement(3.0, device=measurement().device.model_copy(update={"address": "local"})),
        measurement(3.0, samples=samples(latency_ms=(), steps=())),
    ],
    ids=["another file", "another accelerator", "another device", "no samples"],
)
def test_only_the_same_file_on_the_same_device_stands_beside(other: Measurement) -> None:
    assert beside_cpu(runs(on_gpu(1.0), other)) == ()


def test_another_session_does_not_stand_beside() -> None:
    assert beside_cpu([*runs(on_gpu(1.0)), *runs(measurement(3.0), session="t")]) == ()


def test_a_runtime_that_copies_inside_its_run_tells_no_share() -> None:
    assert moving_share(on_gpu(1.0).samples) is None


@pytest.mark.parametrize(
    ("ratio", "text"),
    [
        ((2.1, 2.05, 2.16), "2.10× faster (2.05–2.16)"),
        ((0.25, 0.2, 0.4), "4.00× slower (2.50–5.00)"),
        ((1.01, 0.97, 1.04), "no sure difference (0.970–1.04)"),
    ],
)
def test_ratios_are_said_as_people_say_them(ratio: tuple[float, float, float], text: str) -> None:
    assert speedup_text(*ratio) == text


def test_the_report_has_the_table() -> None:
    part = devices_part(runs(on_gpu(12.0, 1.0), measurement(3.0)))
    shown = render_sections([devices_section(part)])
    assert "Beside the CPU" in shown
    assert "× slower" in shown
    assert "Not run in turns" in beside_cpu_table(part.beside_cpu).note
    alone = render_sections([devices_section(devices_part(runs(measurement(3.0))))])
    assert "Beside the CPU" not in alone

"""Measurements → the devices part of a report: what is computed from the raw samples, and what it says."""

from collections import defaultdict
from collections.abc import Sequence

from edgekit.measurement import Measurement, WritingSamples
from edgekit.report.beside_cpu import beside_cpu
from edgekit.report.document import DevicesPart, ReportedRun, ReportedWriting
from edgekit.report.numbers import median_with_interval, percent
from edgekit.results import Run
from edgekit.statistics import Summary, blocks, ratio_of_medians, summarize


def devices_part(runs: Sequence[Run], *, remarks: Sequence[str] = ()) -> DevicesPart:
    """Compute everything that is shown of these runs, in their order."""
    reported = tuple(report_run(run) for run in runs)
    return DevicesPart(
        runs=reported, beside_cpu=beside_cpu(runs), findings=tuple(_findings(reported)), remarks=tuple(remarks)
    )


def report_run(run: Run) -> ReportedRun:
    """A run with its summaries."""
    samples = run.measurement.samples
    latency = _summary(samples.latency_ms)
    memory = None
    if samples.peak_memory_bytes is not None and samples.baseline_memory_bytes is not None:
        memory = samples.peak_memory_bytes - samples.baseline_memory_bytes
    return ReportedRun(
        measurement=run.measurement,
        session=run.session,
        label=run.label,
        latency=latency,
        cold_start=_summary(samples.cold_start_ms),
        load=_summary(samples.load_ms),
        first_inference=_summary(samples.first_inference_ms),
        per_second=1000 / latency.mean_ms if latency and latency.mean_ms else None,
        memory_bytes=memory,
        writing=tuple(_writing(each) for each in samples.writing if each.first_token_ms and each.decode_ms),
    )


def _writing(samples: WritingSamples) -> ReportedWriting:
    first, decode = summarize(samples.first_token_ms), summarize(samples.decode_ms)
    return ReportedWriting(
        context_length=samples.context_length,
        cache_bytes=samples.cache_bytes,
        first_token=first,
        decode=decode,
        prefill_per_second=1000 * samples.context_length / first.p50_ms,
        decode_per_second=1000 / decode.p50_ms,
    )


def _summary(samples_ms: Sequence[float]) -> Summary | None:
    return summarize(samples_ms) if samples_ms else None


def _findings(runs: Sequence[ReportedRun]) -> list[str]:
    """Sentences about each device, then about what went wrong."""
    groups: dict[tuple[str, int], list[tuple[Measurement, Summary]]] = defaultdict(list)
    for run in runs:
        if run.measurement.verdict == "valid" and run.latency:
            device, settings = run.measurement.device, run.measurement.settings
            groups[device.address, settings.num_threads].append((run.measurement, run.latency))
    found = [_fastest(where, threads, group) for (where, threads), group in groups.items()]
    wrong = [run.measurement for run in runs if run.measurement.verdict != "valid"]
    if wrong:
        kinds = ", ".join(sorted({measurement.verdict for measurement in wrong}))
        found.append(f"{len(wrong)} of {len(runs)} measurements are not valid ({kinds}): the evidence is below.")
    return found


def _fastest(where: str, threads: int, group: Sequence[tuple[Measurement, Summary]]) -> str:
    ordered = sorted(group, key=lambda measured: measured[1].p50_ms)
    best, latency = ordered[0]
    counted = f"{where}, {threads} thread{'s' if threads > 1 else ''}"
    name = f"{best.bundle} on {best.accelerator}"
    if len(ordered) == 1:
        return f"{counted}: {name} takes {median_with_interval(latency)}."
    second = ordered[1][0]
    ratio = ratio_of_medians(blocks(second.samples), blocks(best.samples))
    sentence = f"{counted}: {name} is the fastest valid one with {median_with_interval(latency)}"
    if ratio.low <= 1:
        return f"{sentence}; {second.bundle} on {second.accelerator} can't be told apart from it by these samples."
    return f"{sentence}; {second.bundle} on {second.accelerator}, the next, takes {percent(ratio.ratio - 1)} longer."


def measured_name(measurement: Measurement) -> str:
    """What was measured, in few words: bundle, accelerator, device."""
    return f"{measurement.bundle} · {measurement.accelerator} · {measurement.device.address}"

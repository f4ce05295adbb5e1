"""The tables of the devices part of a report."""

from collections.abc import Callable

from edgekit.measurement import Conditions, Measurement, Verdict
from edgekit.report.document import ReportedRun
from edgekit.report.numbers import (
    ABSENT,
    human_size,
    interval,
    median_with_interval,
    milliseconds,
    or_absent,
    percent,
    significant,
)
from edgekit.report.sections import Cell, Table, Tone, text_cell
from edgekit.statistics import Summary

TONES: dict[Verdict, Tone] = {
    "valid": "good",
    "throttled": "warn",
    "noisy": "warn",
    "unproven": "warn",
    "fell-back": "bad",
    "wrong-output": "bad",
}


def latency_table(runs: tuple[ReportedRun, ...]) -> Table:
    """One row for each run: what ran where, the verdict, and the warm latency."""
    first = ("bundle", "device", "asked for", "ran on", "verdict", "p50 (95 %)", "p90", "p99", "per second")
    return Table(
        title="Latency",
        headers=(*first, "file", "accuracy", "memory", "mean ± deviation", "run"),
        rows=tuple(_latency_row(run) for run in runs),
        note="p50 with its 95 % bootstrap interval; memory: peak above the runtime's own; accuracy: the bundle's.",
    )


def _latency_row(run: ReportedRun) -> tuple[Cell, ...]:
    made, latency = run.measurement, run.latency
    spread = f"{significant(latency.mean_ms)} ± {significant(latency.deviation_ms, 2)} ms" if latency else ABSENT
    return (
        *_which(made),
        text_cell(_ran_on(made)),
        text_cell(made.verdict, TONES[made.verdict]),
        _median_cell(latency),
        _cell(latency.p90_ms if latency else None, milliseconds),
        _cell(latency.p99_ms if latency else None, milliseconds),
        _cell(run.per_second, significant),
        _cell(made.model_size_bytes, human_size),
        _cell(made.accuracy, lambda share: percent(share, 2)),
        _cell(run.memory_bytes, human_size),
        Cell(text=spread, sort=latency.mean_ms if latency else None),
        text_cell(made.id),
    )


def bench_table(runs: tuple[ReportedRun, ...]) -> Table:
    """What fits a terminal: the verdict and the numbers that are asked for first."""
    rows = tuple(
        (
            *_which(run.measurement),
            text_cell(_ran_on(run.measurement)),
            text_cell(run.measurement.verdict, TONES[run.measurement.verdict]),
            _median_cell(run.latency),
            _cell(run.latency.p90_ms if run.latency else None, milliseconds),
            _cell(run.cold_start.p50_ms if run.cold_start else None, milliseconds),
            _cell(run.first_inference.p50_ms if run.first_inference else None, milliseconds),
            _cell(run.memory_bytes, human_size),
            text_cell(run.measurement.id),
        )
        for run in runs
    )
    timed = ("p50 (95 %)", "p90", "cold start", "first inference", "memory", "run")
    return Table(title="", headers=("bundle", "device", "asked for", "ran on", "verdict", *timed), rows=rows)


def runs_table(runs: tuple[ReportedRun, ...]) -> Table:
    """One line for each run, to find it by."""
    rows = tuple(
        (
            text_cell(run.measurement.id),
            text_cell(run.measurement.time[:16].replace("T", " ")),
            *_which(run.measurement),
            text_cell(run.measurement.verdict, TONES[run.measurement.verdict]),
            _median_cell(run.latency),
            _cell(len(run.measurement.samples.latency_ms), lambda count: f"{count:,.0f}"),
            text_cell(run.label),
            text_cell(run.session),
        )
        for run in runs
    )
    found_by = ("run", "measured (UTC)", "bundle", "device", "accelerator")
    return Table(title="", headers=(*found_by, "verdict", "p50 (95 %)", "samples", "label", "session"), rows=rows)


def cold_table(runs: tuple[ReportedRun, ...]) -> Table:
    """Cold beside warm: what the first answer costs."""
    rows = tuple(
        (
            *_which(run.measurement),
            _median_cell(run.cold_start),
            _median_cell(run.load),
            _median_cell(run.first_inference),
            _median_cell(run.latency),
            _cell(len(run.measurement.samples.cold_start_ms), str),
        )
        for run in runs
        if run.cold_start
    )
    timed = ("process and load", "load alone", "first inference", "warm", "processes")
    headers = ("bundle", "device", "accelerator", *timed)
    return Table(
        title="Cold and warm", headers=headers, rows=rows, note="Cold: each in a fresh process; medians (95 %)."
    )


def coverage_table(runs: tuple[ReportedRun, ...]) -> Table:
    """What really ran where, beside what was asked for."""
    rows = []
    for run in runs:
        covered = run.measurement.coverage
        share = None
        if covered.nodes and covered.nodes_on_accelerator is not None:
            share = covered.nodes_on_accelerator / covered.nodes
        nodes = ABSENT if share is None else f"{covered.nodes_on_accelerator} of {covered.nodes}"
        left = ", ".join(
            f"{each.count} {each.operator}{f' ({each.reason})' if each.reason else ''}" for each in covered.left_behind
        )
        rows.append(
            (
                *_which(run.measurement),
                text_cell(covered.actual),
                Cell(text=nodes, sort=share),
                _cell(covered.partitions, lambda count: f"{count:.0f}"),
                _cell(covered.share_of_time, percent),
                text_cell(left or covered.note or ABSENT),
            )
        )
    headers = ("bundle", "device", "asked for", "ran on", "nodes on it", "partitions", "share of time", "left behind")
    return Table(title="Coverage", headers=headers, rows=tuple(rows))


def verdict_table(runs: tuple[ReportedRun, ...]) -> Table:
    """Each verdict with the evidence for it."""
    rows = tuple(
        (
            *_which(run.measurement),
            text_cell(run.measurement.verdict, TONES[run.measurement.verdict]),
            text_cell(". ".join(filter(None, (*run.measurement.evidence, run.measurement.fault))) or ABSENT),
            text_cell(_parity(run.measurement)),
        )
        for run in runs
    )
    return Table(
        title="Verdicts", headers=("bundle", "device", "accelerator", "verdict", "evidence", "outputs"), rows=rows
    )


def conditions_table(runs: tuple[ReportedRun, ...]) -> Table:
    """What the device was like before and after."""
    names = ("temperature", "throttled", "thermal status", "frequencies", "governor", "load", "battery", "free memory")
    readings = [(_reading(run.measurement.before), _reading(run.measurement.after)) for run in runs]
    said = [index for index in range(len(names)) if any(r[index] != ABSENT for pair in readings for r in pair)]
    rows = tuple(
        (
            *_which(run.measurement)[:2],
            *(text_cell(before[i] if before[i] == after[i] else f"{before[i]} → {after[i]}") for i in said),
        )
        for run, (before, after) in zip(runs, readings, strict=True)
    )
    note = "Before → after; what no device said is left out." if len(said) < len(names) else "Before → after."
    return Table(title="Conditions", headers=("bundle", "device", *(names[i] for i in said)), rows=rows, note=note)


def operators_table(made: Measurement) -> Table:
    """Time by operator, longest first."""
    rows = tuple(
        (text_cell(o.name), text_cell(o.kind), _cell(o.count, lambda count: f"{count:.0f}"), _cell(o.ms, milliseconds))
        for o in sorted(made.operators, key=lambda operator: -operator.ms)
    )
    return Table(title="Operators", headers=("operator", "kind", "count", "time"), rows=rows)


def facts_table(run: ReportedRun) -> Table:
    """Everything that says what exactly was measured, and how."""
    made = run.measurement
    device, settings, samples = made.device, made.settings, made.samples
    settings_said = ", ".join(
        f"{name.replace('_', ' ')} {value}" for name, value in settings.model_dump().items() if value not in ((), False)
    )
    facts = {
        "measured": made.time
        + (f", session {run.session}" if run.session else "")
        + (f", {run.label}" if run.label else ""),
        "device": ", ".join(filter(None, (device.model, device.soc, device.machine, device.os))) or device.address,
        "cores and memory": f"{device.cores or '?'} cores, {or_absent(device.memory_bytes, human_size)}",
        "runtime": f"{made.runtime} {made.runtime_version}, measured by {made.tool}",
        "settings": settings_said,
        "samples": f"{len(samples.latency_ms):,} warm, {len(samples.warmup_ms):,} of warm-up",
        "energy": or_absent(samples.energy_mj_per_inference, lambda mj: f"{significant(mj)} mJ per inference"),
        "file": f"{made.target}, {made.scheme}, sha256 {made.model_sha256}",
        "bundle": f"sha256 {made.bundle_sha256}",
        "fingerprint": f"{made.fingerprint} (device and tools; runs are comparable where it is equal)",
    }
    rows = tuple((text_cell(name), text_cell(value)) for name, value in facts.items() if value != ABSENT)
    return Table(title="What, where and how", headers=("fact", made.id or "run"), rows=rows)


def _reading(at: Conditions) -> tuple[str, ...]:
    hottest = max(at.temperatures_c.values(), default=None)
    battery = None
    if at.battery_percent is not None:
        battery = f"{at.battery_percent:.0f} %{' charging' if at.charging else ''}"
    fastest = interval(min(at.frequencies_mhz), max(at.frequencies_mhz)) + " MHz" if at.frequencies_mhz else ABSENT
    return (
        or_absent(hottest, lambda celsius: f"{celsius:.1f} °C"),
        or_absent(at.throttled, lambda bits: hex(int(bits))),
        or_absent(at.thermal_status, lambda status: f"{status:.0f}"),
        fastest,
        at.governor or ABSENT,
        or_absent(at.load_1min, lambda load: f"{load:.2f}"),
        battery or ABSENT,
        or_absent(at.free_memory_bytes, human_size),
    )


def _parity(made: Measurement) -> str:
    parity = made.parity
    if parity.verdict == "not-run":
        return f"not compared{': ' + parity.note if parity.note else ''}"
    said = [{"within-tolerance": "as the source model's", "failed": "WRONG"}[parity.verdict], f"{parity.steps} texts"]
    if parity.max_abs_difference is not None:
        said.append(f"|Δ| ≤ {parity.max_abs_difference:.1e}")
    if parity.labels_changed is not None:
        said.append(f"{parity.labels_changed} labels changed")
    return ", ".join([*said, *([parity.note] if parity.note else [])])


def _which(made: Measurement) -> tuple[Cell, Cell, Cell]:
    return text_cell(made.bundle), text_cell(made.device.address), text_cell(made.accelerator)


def _ran_on(made: Measurement) -> str:
    """What did the work, with its nodes where an accelerator took some only."""
    covered = made.coverage
    if made.accelerator == "cpu" or not covered.nodes or covered.nodes_on_accelerator in (None, 0, covered.nodes):
        return covered.actual
    return f"{covered.actual}, {covered.nodes_on_accelerator} of {covered.nodes} nodes"


def _median_cell(summary: Summary | None) -> Cell:
    return Cell(text=median_with_interval(summary), sort=summary.p50_ms) if summary else Cell(text=ABSENT)


def _cell(value: float | None, shown: Callable[[float], str]) -> Cell:
    return Cell(text=or_absent(value, shown), sort=value)

"""The devices part of a report as a section: its words, tables and figures."""

from collections import defaultdict

from edgekit.measurement import Measurement
from edgekit.report.beside_cpu import beside_cpu_table
from edgekit.report.devices import measured_name
from edgekit.report.devices_tables import (
    TONES,
    cold_table,
    conditions_table,
    coverage_table,
    facts_table,
    latency_table,
    operators_table,
    verdict_table,
)
from edgekit.report.document import DevicesPart, ReportedRun
from edgekit.report.plots import Bar, Spread, bar_plot, curve_plot, samples_plot, spread_plot
from edgekit.report.sections import Block, Figure, Panel, Section, Text
from edgekit.report.writing_tables import writing_tables

_MOST_OPERATORS = 10


def devices_section(part: DevicesPart) -> Section:
    """Everything about the measurements, most wanted first; the details of each run are in panels."""
    blocks: list[Block] = []
    if part.findings:
        blocks.append(Text(sentences=part.findings, as_list=len(part.findings) > 1))
    if part.remarks:
        blocks.append(Text(sentences=part.remarks, as_list=len(part.remarks) > 1, tone="warn"))
    blocks += writing_tables(part.runs)
    blocks += [latency_table(part.runs), *_latency_figures(part.runs), cold_table(part.runs), coverage_table(part.runs)]
    if part.beside_cpu:
        blocks.append(beside_cpu_table(part.beside_cpu))
    blocks += [verdict_table(part.runs), conditions_table(part.runs)]
    blocks += [
        Figure(
            title=f"Sustained: {measured_name(run.measurement)}",
            svg=curve_plot(run.measurement.samples.curve),
            caption="Median latency of each window and the temperature, over the whole run.",
        )
        for run in part.runs
        if run.measurement.samples.curve
    ]
    blocks += [
        Panel(title=f"{run.measurement.id}: {measured_name(run.measurement)}", blocks=_details(run))
        for run in part.runs
    ]
    return Section(key="devices", title="On devices", blocks=tuple(blocks))


def run_section(run: ReportedRun) -> Section:
    """Everything about one run."""
    one, made = (run,), run.measurement
    tables = (latency_table(one), cold_table(one), coverage_table(one), verdict_table(one), conditions_table(one))
    blocks = (*writing_tables(one), *tables, *_details(run))
    return Section(key=f"run-{made.id}", title=measured_name(made), blocks=blocks)


def _latency_figures(runs: tuple[ReportedRun, ...]) -> list[Block]:
    """A figure for each device: another device's times would need another scale."""
    measured = [run for run in runs if run.latency]
    names = [f"{run.measurement.bundle} · {run.measurement.accelerator}" for run in measured]
    keys = [(run.measurement.device.address, name) for run, name in zip(measured, names, strict=True)]
    groups: dict[str, list[Spread]] = defaultdict(list)
    for run, name, key in zip(measured, names, keys, strict=True):
        told = name if keys.count(key) == 1 else f"{name} · {run.label or run.measurement.id}"
        if run.latency:
            row = Spread(name=told, summary=run.latency, tone=TONES[run.measurement.verdict])
            groups[run.measurement.device.address].append(row)
    caption = "Dot: median. Bar: its 95 % interval. Line: to p99, with a tick at p90. Colour: the verdict."
    return [
        Figure(title=f"Latency on {address}", svg=spread_plot(rows), caption=caption)
        for address, rows in groups.items()
    ]


def _details(run: ReportedRun) -> tuple[Block, ...]:
    made = run.measurement
    blocks: list[Block] = [facts_table(run)]
    if run.latency:
        count = len(made.samples.latency_ms)
        shown = f"{count:,} inferences in the order of measuring; the line is the median."
        svg = samples_plot(made.samples.latency_ms, run.latency)
        blocks.append(Figure(title="Every sample", svg=svg, caption=shown))
    if made.operators:
        svg = bar_plot(_operator_bars(made), unit="ms", label="Time by kind of operator")
        caption = "Of one inference, by the runtime's own profile."
        blocks += [Figure(title="Time by kind of operator", svg=svg, caption=caption), operators_table(made)]
    return tuple(blocks)


def _operator_bars(made: Measurement) -> list[Bar]:
    """A bar for each kind of operator, longest first, and one for the many that take little."""
    times: dict[str, float] = defaultdict(float)
    counts: dict[str, int] = defaultdict(int)
    for operator in made.operators:
        times[operator.kind] += operator.ms
        counts[operator.kind] += operator.count
    longest = sorted(times, key=lambda kind: -times[kind])
    bars = [Bar(name=kind, value=times[kind], note=f"× {counts[kind]}") for kind in longest[:_MOST_OPERATORS]]
    if rest := longest[_MOST_OPERATORS:]:
        bars.append(Bar(name=f"{len(rest)} other kinds", value=sum(times[kind] for kind in rest)))
    return bars

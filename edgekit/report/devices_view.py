"""The devices part of a report as a section: its words, tables and figures."""

from collections import defaultdict

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

_MOST_OPERATORS = 10


def devices_section(part: DevicesPart) -> Section:
    """Everything about the measurements, most wanted first; the details of each run are in panels."""
    blocks: list[Block] = []
    if part.findings:
        blocks.append(Text(sentences=part.findings, as_list=len(part.findings) > 1))
    if part.remarks:
        blocks.append(Text(sentences=part.remarks, as_list=len(part.remarks) > 1, tone="warn"))
    blocks += [latency_table(part.runs), *_latency_figures(part.runs), cold_table(part.runs), coverage_table(part.runs)]
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


def _latency_figures(runs: tuple[ReportedRun, ...]) -> list[Block]:
    """A figure for each device: another device's times would need another scale."""
    groups: dict[str, list[Spread]] = defaultdict(list)
    several = len({run.label for run in runs}) > 1
    for run in runs:
        if run.latency:
            made = run.measurement
            name = f"{made.bundle} · {made.accelerator}" + (f" · {run.label}" if several and run.label else "")
            groups[made.device.address].append(Spread(name=name, summary=run.latency, tone=TONES[made.verdict]))
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
        longest = sorted(made.operators, key=lambda operator: -operator.ms)
        bars = [Bar(name=o.name, value=o.ms, note=f"× {o.count}") for o in longest[:_MOST_OPERATORS]]
        if rest := longest[_MOST_OPERATORS:]:
            bars.append(Bar(name=f"{len(rest)} others", value=sum(operator.ms for operator in rest)))
        svg = bar_plot(bars, unit="ms", label="Time by operator")
        blocks.append(
            Figure(title="Time by operator", svg=svg, caption="Of one inference, by the runtime's own profile.")
        )
        blocks.append(operators_table(made))
    return tuple(blocks)

"""What `bench` and `compare` share: their options as settings, progress on stderr, and the table of what came out."""

import re
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from edgekit.cli.output import print_section, print_sortable, split_list, stderr

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgekit.devices.campaign import Cell, Outcome
    from edgekit.measurement import ComputeUnits, OpenvinoDevice
    from edgekit.report.comparison import Comparison

_SECONDS = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600}


def parse_duration(text: str, option: str) -> float:
    """Seconds of a duration as people write it: 90, 90s, 10m, 1h; a usage error where it is none."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|min|h)?", text.strip())
    if not found:
        raise typer.BadParameter(f"{text!r} is no duration: write 90s, 10m or 1h", param_hint=option)
    return float(found[1]) * _SECONDS[found[2] or ""]


def parse_cores(values: Sequence[str], option: str) -> tuple[int, ...]:
    """Numbers of cores, as 0,2-3; a usage error where they are none."""
    cores: list[int] = []
    for item in split_list(values):
        found = re.fullmatch(r"(\d+)(?:-(\d+))?", item)
        if not found or (found[2] and int(found[2]) < int(found[1])):
            raise typer.BadParameter(f"{item!r} is neither a core nor a range of cores: write 0,2-3", param_hint=option)
        cores += range(int(found[1]), int(found[2] or found[1]) + 1)
    return tuple(dict.fromkeys(cores))


def parse_lengths(values: Sequence[str], option: str) -> tuple[int, ...]:
    """Lengths in tokens, as 16,64; a usage error where they are none."""
    items = split_list(values)
    wrong = next((item for item in items if not item.isdecimal() or int(item) < 1), None)
    if wrong is not None:
        raise typer.BadParameter(f"{wrong!r} is no number of tokens: write 16,64", param_hint=option)
    return tuple(sorted({int(item) for item in items}))


def parse_units(value: str) -> "ComputeUnits":
    """Compute units of Core ML; a usage error for anything else."""
    from edgekit.measurement import COMPUTE_UNITS

    found = next((units for units in COMPUTE_UNITS if units == value), None)
    if found is None:
        raise typer.BadParameter(f"{value!r} is none of {', '.join(COMPUTE_UNITS)}", param_hint="--compute-units")
    return found


def parse_openvino(value: str) -> "OpenvinoDevice":
    """A device of OpenVINO, in any case; a usage error for anything else."""
    from edgekit.measurement import OPENVINO_DEVICES

    found = next((device for device in OPENVINO_DEVICES if device == value.upper()), None)
    if found is None:
        raise typer.BadParameter(f"{value!r} is none of {', '.join(OPENVINO_DEVICES)}", param_hint="--openvino-device")
    return found


def plan_cells(
    bundles: Sequence[Path], devices: Sequence[str], accelerators: Sequence[str], *, beside_cpu: bool = False
) -> "tuple[Cell, ...]":
    """Every bundle on every device with every accelerator; names are checked before anything is connected.

    With `beside_cpu`, each that runs on the CPU is also measured there, after the accelerators, if only others were
    asked for.
    """
    from edgekit.bundle import open_bundle
    from edgekit.devices.accelerators import OFFERED
    from edgekit.devices.campaign import Cell
    from edgekit.devices.registry import open_device
    from edgekit.errors import UnknownNameError
    from edgekit.measurement import ACCELERATORS

    for name in devices:
        open_device(name)
    for accelerator in accelerators:
        if accelerator not in ACCELERATORS:
            raise UnknownNameError("accelerator", accelerator, ACCELERATORS)
    opened = [open_bundle(path) for path in dict.fromkeys(bundles)]
    cells = []
    for device in dict.fromkeys(devices):
        for bundle in opened:
            cells += [Cell(bundle=bundle, device=device, accelerator=name) for name in dict.fromkeys(accelerators)]
            on_cpu = "cpu" in OFFERED.get(bundle.manifest.runtime, ()) and bundle.manifest.compiled is None
            if beside_cpu and "cpu" not in accelerators and on_cpu:
                cells.append(Cell(bundle=bundle, device=device, beside=True))
    return tuple(cells)


class CampaignView:
    """Shows a campaign on stderr while it runs, and collects what came of it."""

    def __init__(self, total: int) -> None:
        self.outcomes: list[Outcome] = []
        self.session = ""
        self._total, self._name = total, ""
        self._bar: Any = None
        self._task: Any = None

    @contextmanager
    def progress(self) -> "Iterator[None]":
        """Show a bar while the block runs; elsewhere than on a terminal the lines of `on_outcome` are all."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}", markup=False),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal) as self._bar:
            self._task = self._bar.add_task("", total=self._total)
            yield
        self._bar = None

    def on_session(self, session: str) -> None:
        """Remember under which id the runs are kept."""
        self.session = session

    def on_start(self, cells: "Sequence[Cell]") -> None:
        """Name what is measured now."""
        self._name = cells[0].name if len(cells) == 1 else f"{len(cells)} in turns on {cells[0].device}"
        self.on_progress("")

    def on_progress(self, text: str) -> None:
        """Say what is being done."""
        if self._bar is not None:
            self._bar.update(self._task, description=f"{self._name}: {text}" if text else self._name)

    def on_outcome(self, outcome: "Outcome") -> None:
        """Print the line of a cell that is through."""
        from edgekit.report.numbers import median_with_interval
        from edgekit.statistics import summarize

        self.outcomes.append(outcome)
        if self._bar is not None:
            self._bar.update(self._task, completed=len(self.outcomes))
        made = outcome.measurement
        if made and made.samples.latency_ms:
            told = f"{made.verdict}, {median_with_interval(summarize(made.samples.latency_ms))}"
            stderr.print(f"{outcome.cell.name}: {'measured before: ' if outcome.resumed else ''}{told}", markup=False)
        for error in filter(None, (outcome.error, outcome.store_error)):
            stderr.print(f"edgekit: error: {outcome.cell.name}: {' '.join(error.split())}", markup=False)
        if outcome.beside:
            stderr.print(f"The measurement is in {outcome.beside}: `edgekit runs import` takes it.", markup=False)


def show_outcomes(outcomes: "Sequence[Outcome]") -> None:
    """Print the table of what was measured, and the evidence of accelerators and where a verdict is not valid."""
    from edgekit.report.beside_cpu import beside_cpu, beside_cpu_table
    from edgekit.report.devices import report_run
    from edgekit.report.devices_tables import bench_table
    from edgekit.report.writing_tables import writing_tables
    from edgekit.results import Run

    made = [outcome.measurement for outcome in outcomes if outcome.measurement]
    runs = [Run(measurement=measurement) for measurement in made]
    if made:
        reported = tuple(report_run(run) for run in runs)
        print_sortable(bench_table(reported))
        for table in writing_tables(reported):
            print_sortable(table)
    if beside := beside_cpu(runs):
        print_sortable(beside_cpu_table(beside))
    for measurement in made:
        if measurement.verdict != "valid" or measurement.accelerator != "cpu":
            evidence = ". ".join(measurement.evidence) or "no evidence"
            where = f"{measurement.bundle} · {measurement.accelerator} · {measurement.device.address}"
            typer.echo(f"{where} is {measurement.verdict}: {evidence}")


def show_comparisons(comparisons: "Sequence[Comparison]") -> None:
    """Print what changed from A to B."""
    from edgekit.report.comparison_view import comparison_section

    for comparison in comparisons:
        print_section(comparison_section(comparison))

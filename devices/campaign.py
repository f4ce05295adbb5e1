"""A campaign: bundles × devices × accelerators, measured one after the other, each kept as soon as it is measured."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from edgekit.bundle import MANIFEST, Bundle, file_sha256
from edgekit.devices.accelerators import OFFERED
from edgekit.devices.benchmark_model import BenchmarkTool
from edgekit.devices.device import Device
from edgekit.devices.measure import Candidate, Interrupted, measure_bundle, measure_interleaved
from edgekit.devices.registry import open_device
from edgekit.errors import DeviceLostError, EdgekitError, ResultsError
from edgekit.measurement import Measurement, Settings
from edgekit.results import Results, save_beside


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One thing to measure: a bundle on a device, by the name the user gave it, with an accelerator.

    `beside` is a cell that nobody asked for: the CPU, for the accelerators of the same bundle to stand beside.
    """

    bundle: Bundle
    device: str
    accelerator: str = "cpu"
    beside: bool = False

    @cached_property
    def key(self) -> str:
        """Names the cell in the store; a bundle that was exported again is another."""
        return f"{file_sha256(self.bundle.path / MANIFEST)} {self.device} {self.accelerator}"

    @property
    def name(self) -> str:
        """As people read it."""
        return f"{self.bundle.manifest.name} · {self.accelerator} · {self.device}"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to measure and how; with `interleave`, all cells of a device run in turns, `settings.rounds` of them."""

    cells: tuple[Cell, ...]
    settings: Settings
    interleave: bool = False
    runtime: str | None = None
    benchmark_tool: BenchmarkTool | None = None

    def fingerprint(self) -> str:
        """Equal for equal plans: by it, `--resume` finds the session that it goes on with."""
        tool = self.benchmark_tool.sha256 if self.benchmark_tool else ""
        parts = [sorted(cell.key for cell in self.cells), self.settings.model_dump(mode="json"), self.interleave]
        return hashlib.sha256(json.dumps([*parts, self.runtime, tool], sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a cell: a measurement, an error, or both (a fault cut it short).

    `beside` is the file that holds the measurement where the store did not take it (`store_error` says why);
    `resumed` tells that an earlier run had measured it.
    """

    cell: Cell
    measurement: Measurement | None = None
    error: str = ""
    beside: Path | None = None
    store_error: str = ""
    resumed: bool = False

    @property
    def complete(self) -> bool:
        """Whether the cell was measured to its end and kept."""
        return self.measurement is not None and not self.error and not self.store_error


class Observer(Protocol):
    """Is told how a campaign goes."""

    def on_session(self, session: str) -> None:
        """The campaign has begun, or goes on, under this id."""

    def on_start(self, cells: Sequence[Cell]) -> None:
        """These cells are measured now: one, or those that take turns."""

    def on_progress(self, text: str) -> None:
        """A short phrase: what is being done."""

    def on_outcome(self, outcome: Outcome) -> None:
        """A cell is through."""


def run_campaign(
    plan: Plan,
    results: Results,
    observer: Observer,
    *,
    resume: bool = False,
    label: str = "",
    open_device: Callable[[str], Device] = open_device,
) -> None:
    """Measure every cell of the plan, or with `resume` those that an unfinished session of it lacks.

    A cell that fails does not keep the others from being measured; a device that vanished is not asked again. Ctrl-C
    (KeyboardInterrupt) goes through, after what was measured is kept.

    Raises ResultsError: the store can't be used at all, or there is nothing to resume.
    """
    session = results.start_session(plan.fingerprint(), resume=resume)
    observer.on_session(session)
    work = _Campaign(plan, results, observer, session, label)
    done = work.tell_what_is_done() if resume else set()
    missing = [cell for cell in plan.cells if cell.key not in done]
    if plan.interleave and missing:
        again = {cell.device for cell in missing}  # turns are taken together or not at all
        missing = [cell for cell in plan.cells if cell.device in again]
    for device in dict.fromkeys(cell.device for cell in missing):
        work.measure_on(open_device, device, [cell for cell in missing if cell.device == device])
    if work.all_complete:
        results.finish_session(session)


class _Campaign:
    def __init__(self, plan: Plan, results: Results, observer: Observer, session: str, label: str) -> None:
        self._plan, self._results, self._observer = plan, results, observer
        self._session, self._label = session, label
        self.all_complete = True
        self._measured: set[tuple[Path, str]] = set()

    def tell_what_is_done(self) -> set[str]:
        """The keys of the cells that the session has; each is told to the observer."""
        runs = {run.cell: run.measurement for run in self._results.find(session=self._session)}
        done = [cell for cell in self._plan.cells if cell.key in runs and not runs[cell.key].fault]
        for cell in done:
            self._tell(Outcome(cell=cell, measurement=runs[cell.key], resumed=True))
        return {cell.key for cell in done}

    def measure_on(self, open_device: Callable[[str], Device], name: str, cells: list[Cell]) -> None:
        """Measure cells on one device; what can't be measured there is told with the reason."""
        waiting = list(cells)
        try:
            with open_device(name) as device:
                for group in self._groups(cells):
                    for _ in group:
                        waiting.pop(0)
                    if self._is_idle(group):
                        continue
                    self._observer.on_start(group)
                    self._measure(device, group)
        except EdgekitError as error:
            for cell in waiting:
                self._tell(Outcome(cell=cell, error=str(error)))

    def _groups(self, cells: list[Cell]) -> Iterator[list[Cell]]:
        yield from [cells] if self._plan.interleave else ([cell] for cell in cells)

    def _is_idle(self, group: list[Cell]) -> bool:
        """Whether a cell would stand beside nothing: its bundle was measured on no accelerator of the device."""
        return len(group) == 1 and group[0].beside and (group[0].bundle.path, group[0].device) not in self._measured

    def _measure(self, device: Device, cells: list[Cell]) -> None:
        """Measure one cell, or several in turns; only a lost device is an error of more than these cells."""
        try:
            made = self._run(device, cells)
        except Interrupted as interrupted:
            self._keep(cells, interrupted.measurements)
            raise
        except EdgekitError as error:
            for cell in cells:
                self._tell(Outcome(cell=cell, error=str(error)))
            if isinstance(error, DeviceLostError):
                raise
        else:
            self._keep(cells, made)

    def _run(self, device: Device, cells: list[Cell]) -> tuple[Measurement, ...]:
        plan, told = self._plan, self._observer.on_progress
        candidates = [
            Candidate(bundle=c.bundle, accelerator=c.accelerator, runtime=_runtime(plan.runtime, c)) for c in cells
        ]
        if plan.interleave:
            return measure_interleaved(
                device,
                candidates,
                settings=plan.settings,
                rounds=plan.settings.rounds,
                benchmark_tool=plan.benchmark_tool,
                on_progress=told,
            )
        return (
            measure_bundle(
                device,
                candidates[0].bundle,
                accelerator=candidates[0].accelerator,
                settings=plan.settings,
                runtime=candidates[0].runtime,
                benchmark_tool=plan.benchmark_tool,
                on_progress=told,
            ),
        )

    def _keep(self, cells: Sequence[Cell], made: Sequence[Measurement]) -> None:
        """Put measurements into the store, or where it takes none, into a file beside."""
        for cell, measurement in zip(cells, made, strict=True):
            fault = measurement.fault
            if not measurement.samples.latency_ms:
                self._tell(Outcome(cell=cell, error=fault or "nothing was measured"))
                continue
            try:
                kept = self._results.add(measurement, session=self._session, label=self._label, cell=cell.key)
            except ResultsError as error:
                self._tell(_beside(cell, measurement, str(error)))
            else:
                self._tell(Outcome(cell=cell, measurement=kept, error=fault))

    def _tell(self, outcome: Outcome) -> None:
        self.all_complete = self.all_complete and (outcome.complete or outcome.cell.beside)
        if outcome.measurement:
            self._measured.add((outcome.cell.bundle.path, outcome.cell.device))
        self._observer.on_outcome(outcome)


def _runtime(asked: str | None, cell: Cell) -> str | None:
    """The runtime asked for; for a cell beside, the device's own where that one has no CPU."""
    return None if cell.beside and asked and cell.accelerator not in OFFERED.get(asked, ()) else asked


def _beside(cell: Cell, measurement: Measurement, store_error: str) -> Outcome:
    try:
        path = save_beside(measurement)
    except ResultsError as error:
        return Outcome(
            cell=cell, measurement=measurement, error=measurement.fault, store_error=f"{store_error}; {error}"
        )
    return Outcome(cell=cell, measurement=measurement, error=measurement.fault, beside=path, store_error=store_error)

"""Measures a bundle with the runner: brings it to the device, starts it there, and collects what it says."""

import contextlib
import math
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from edgekit import __version__
from edgekit.bundle import Bundle
from edgekit.devices.accelerators import RunPlan
from edgekit.devices.collected import Collected, OnProgress
from edgekit.devices.coverage import add_time, read_coverage
from edgekit.devices.device import Device
from edgekit.devices.operators import read_profile
from edgekit.errors import DeviceError, ProcessError, RunnerError
from edgekit.measurement import Settings
from edgekit.proof.golden import read_golden
from edgekit.proof.runner_events import Event, check_run, find_event, job_text, parse_event

RUNNER = Path(__file__).parent / "runner"


def model_name(bundle: Bundle) -> str:
    """What a bundle's file is called on a device: by its content, so that it is sent once."""
    files, model = bundle.manifest.files, bundle.manifest.model
    mark = files[model].sha256[:16] if model in files else bundle.path.name
    return f"{mark}{bundle.model_path.suffix}"


class RunnerSession:
    """One bundle on one device with Python; see `collected.Session`.

    `grace_s` is what loading, proving and warming up may take on top of the time that is measured.
    """

    def __init__(
        self, device: Device, bundle: Bundle, plan: RunPlan, settings: Settings, *, grace_s: float, say: OnProgress
    ) -> None:
        self.collected = Collected()
        self.tool = f"edgekit {__version__}"
        self._device, self._bundle, self._plan, self._settings = device, bundle, plan, settings
        self._grace_s, self._say = grace_s, say
        self._name = bundle.manifest.model
        self._has_outputs = False
        self._cache = ""  # what the runtime said of its own in the last cold start

    def place(self) -> None:
        """Bring the runner, the file and the golden steps there; what is there already is not sent again."""
        self._say("sending")
        model, golden = self._bundle.model_path, self._bundle.golden_path
        mark = Path(model_name(self._bundle)).stem
        self._start = self._device.push(RUNNER, "runner") + "/start.py"
        self._model = self._device.push(model, model_name(self._bundle))
        self._steps = self._device.push(golden, f"{mark}-{golden.name}")
        self._outputs = f"{mark}-outputs.npz"

    def cold_start(self) -> None:
        """Time one start of a process, in which the runner stands for what a program would do.

        Then one more with the runtime's own cache of what it compiled, where it keeps one; the first fills it.
        """
        self._run("cold", timeout_s=self._grace_s)
        folder = f"{self._device.folder}/cache-{self._plan.runtime}-{self._plan.accelerator}-{Path(self._model).stem}"
        with contextlib.suppress(RunnerError):  # what goes wrong with a cache is no fault of the file
            while self._cache in ("able", "written"):
                self._run("cold", timeout_s=self._grace_s, cache=folder)

    def measure(self, turn: int) -> None:
        """Take the samples of one turn; outputs are compared in the first one, also where it ends in a fault."""
        secs = self._settings.max_secs / max(1, self._settings.rounds) + self._settings.sustained_secs
        operation, fields = self.samples_fields(turn)
        try:
            self._run(operation, timeout_s=secs + self._grace_s, turn=turn, **fields)
        except RunnerError:
            with contextlib.suppress(DeviceError):
                self._prove()
            raise
        self._prove()

    def samples_fields(self, turn: int) -> tuple[str, dict[str, Any]]:
        """The operation that takes samples, and what it is told."""
        settings, turns = self._settings, max(1, self._settings.rounds)
        return "measure", {
            "num_runs": math.ceil(settings.num_runs / turns),
            "min_secs": settings.min_secs / turns,
            "max_secs": settings.max_secs / turns,
            "warmup_runs": settings.warmup_runs,
            "sustained_secs": settings.sustained_secs if turn == turns - 1 else 0.0,
            "real_lengths": settings.real_lengths,
            "energy": settings.energy,
            "prove": turn == 0,
        }

    def profile(self) -> None:
        """Ask for the time by operator."""
        self._say("profiling operators")
        self._run("profile", timeout_s=self._grace_s)

    def _prove(self) -> None:
        """Compare the outputs that the runner wrote, once, and only where it said that it did."""
        if not self._has_outputs:
            return
        self._has_outputs = False
        with tempfile.TemporaryDirectory(prefix="edgekit-outputs-") as folder:
            local = Path(folder) / "outputs.npz"
            self._device.pull(self._outputs, local)
            produced = read_golden(local)
        golden = read_golden(self._bundle.golden_path)
        self.collected.prove(self._bundle, golden, produced, self._plan.accelerator)

    def _run(self, operation: str, *, timeout_s: float, turn: int = 0, **fields: object) -> None:
        """Start the runner once; each event is taken as it comes, so that those before a fault are kept."""
        events: list[Event] = []

        def take(line: str) -> None:
            if event := parse_event(line):
                events.append(event)
                self.take(event, turn)

        argv = [self._plan.python, self._start, self._push_job(operation, **fields)]
        argv += ["--cold"] if operation == "cold" else []
        try:
            run = self._device.run(argv, timeout_s=timeout_s, on_line=take)
        except ProcessError as error:
            where = f"{self._name} did not finish on {self._device.address} within {timeout_s:.0f} s and was ended"
            raise RunnerError(where) from error
        if assignment := find_event(events, "assignment"):  # now that the log is known as well
            self.collected.coverage = read_coverage(assignment, self._plan.accelerator, run.stderr)
        try:
            check_run(self._name, run, events)
        except RunnerError as error:
            if run.returncode >= 0 or self._plan.accelerator == "cpu":
                raise
            raise RunnerError(f"{error}. {self._crash_advice}", returncode=run.returncode) from error

    @property
    def _crash_advice(self) -> str:
        asked = f"--accelerator {self._plan.accelerator} with {self._plan.runtime}"
        return f"That was {asked}: the file itself is tried with --accelerator cpu"

    def _push_job(self, operation: str, **fields: object) -> str:
        with tempfile.TemporaryDirectory(prefix="edgekit-job-") as folder:
            job = Path(folder) / "job.json"
            job.write_text(
                job_text(
                    operation=operation,
                    runtime=self._plan.runtime,
                    accelerator=self._plan.accelerator,
                    model=self._model,
                    steps=self._steps,
                    outputs=f"{self._device.folder}/{self._outputs}",
                    num_threads=self._settings.num_threads,
                    pin_cores=list(self._settings.pin_cores),
                    compute_units=self._settings.compute_units if self._plan.accelerator == "coreml" else "cpu",
                    xnnpack=self._settings.xnnpack,
                    delegate=self._settings.delegate if self._plan.accelerator != "cpu" else "",
                    openvino_device=self._settings.openvino_device,
                    die_with_parent=True,
                    **fields,
                )
            )
            return self._device.push(job, "job.json")

    def take(self, event: Event, turn: int) -> None:
        """Add what an event says."""
        into, kind = self.collected, event["event"]
        if kind == "loaded":
            into.runtime_version = event["version"]
        elif kind == "memory":
            into.baseline_memory_bytes, into.peak_memory_bytes = event["baseline_bytes"], event["peak_bytes"]
        elif kind == "assignment":
            into.coverage = read_coverage(event, self._plan.accelerator)
        elif kind == "replayed":
            self._has_outputs = True
        elif kind == "warmup":
            into.warmup_ms += event["ms"]
            into.warm = into.warm and event["stable"]
        elif kind == "samples":
            self._take_samples(event, turn)
        elif kind == "window":
            into.curve.append((event["t_s"], event["median_ms"], event["temperature_c"]))
            self._say(f"sustained: {event['t_s']:.0f} of {self._settings.sustained_secs:.0f} s")
        elif kind == "energy":
            into.energy_mj.append(event["mj_per_inference"])
        elif kind == "cold":
            self._take_cold(event)
        elif kind == "profile":
            into.operators = read_profile(event)
            into.coverage = add_time(into.coverage, into.operators)

    def _take_cold(self, event: Event) -> None:
        """A start without a cache, or one with the runtime's own; the start that fills a cache is neither."""
        into, self._cache = self.collected, event["cache"]
        if self._cache == "read":
            into.cached_load_ms.append(event["load_ms"])
        elif self._cache in ("", "able"):
            into.cold_start_ms.append(event["start_ms"])
            into.load_ms.append(event["load_ms"])
            into.first_inference_ms.append(event["first_ms"])

    def _take_samples(self, event: Event, turn: int) -> None:
        into = self.collected
        into.latency_ms += event["ms"]
        into.transfer_ms += event["transfer_ms"]
        into.steps += event["steps"]
        into.rounds += [turn] * len(event["ms"])
        self._say(f"measuring: {len(into.latency_ms)} samples, median {median(event['ms']):.3g} ms")

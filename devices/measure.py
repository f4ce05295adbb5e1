"""Measures bundles on a device: cold starts, latency, memory, operators, conditions, and the verdict on all of it."""

import contextlib
import datetime
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgekit.bundle import MANIFEST, Bundle, check_files, file_sha256
from edgekit.devices.accelerators import BENCHMARK_MODEL, RunPlan, plan_run
from edgekit.devices.benchmark_model import BenchmarkTool, find_benchmark_tool
from edgekit.devices.collected import OnProgress, Session
from edgekit.devices.conditions import read_conditions
from edgekit.devices.device import Device
from edgekit.devices.runner_session import RunnerSession
from edgekit.devices.tool_session import ToolSession
from edgekit.devices.verdict import Facts, judge
from edgekit.devices.writing_session import WritingSession, check_writing, writes
from edgekit.errors import EdgekitError, RefusedError
from edgekit.measurement import Conditions, DeviceFacts, Measurement, Settings
from edgekit.proof.golden import read_golden

GRACE_S = 300.0
#: settings that have to be equal for two measurements to be comparable, always and where they are not the default
_COMPARED = {"num_threads", "pin_cores", "real_lengths"}
_COMPARED_IF_SET = {"xnnpack", "delegate", "openvino_device", "context_lengths"}


class Interrupted(KeyboardInterrupt):
    """Ctrl-C while measuring; `measurements` has one for each candidate, in order, with what it had by then."""

    def __init__(self, measurements: tuple[Measurement, ...]) -> None:
        self.measurements = measurements
        super().__init__()


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A bundle, the accelerator that it is to run on, and the runtime (None: the first that the device has)."""

    bundle: Bundle
    accelerator: str = "cpu"
    runtime: str | None = None


def measure_bundle(
    device: Device,
    bundle: Bundle,
    *,
    accelerator: str = "cpu",
    settings: Settings | None = None,
    runtime: str | None = None,
    benchmark_tool: BenchmarkTool | None = None,
    on_progress: OnProgress | None = None,
    grace_s: float = GRACE_S,
) -> Measurement:
    """Measure one bundle on a device that was entered.

    A fault after the first samples is in `Measurement.fault`, with what was measured until then.

    Raises EdgekitError where nothing was measured: RefusedError (this combination is not offered), BundleError,
    RunnerError (missing runtime, refused file, crash, hang), DeviceError; Interrupted on Ctrl-C.
    """
    candidate = Candidate(bundle=bundle, accelerator=accelerator, runtime=runtime)
    chosen = (settings or Settings()).model_copy(update={"rounds": 1})
    return _measure(device, [candidate], chosen, benchmark_tool, on_progress, grace_s)[0]


def measure_interleaved(
    device: Device,
    candidates: Sequence[Candidate],
    *,
    settings: Settings | None = None,
    rounds: int = 5,
    benchmark_tool: BenchmarkTool | None = None,
    on_progress: OnProgress | None = None,
    grace_s: float = GRACE_S,
) -> tuple[Measurement, ...]:
    """Measure candidates in turns, A B A B …, each turn in a fresh process, so that a drift of the device hits all.

    `num_runs`, `min_secs` and `max_secs` are shared among the turns of a candidate. A candidate that fails has its line
    in `fault` (and no samples, if it never ran); the others go on. Raises as `measure_bundle` does where none was
    measured.
    """
    chosen = (settings or Settings()).model_copy(update={"rounds": rounds})
    return _measure(device, candidates, chosen, benchmark_tool, on_progress, grace_s)


@dataclass(kw_only=True)
class _Work:
    """One candidate on its way."""

    candidate: Candidate
    plan: RunPlan
    session: Session
    before: Conditions
    after: Conditions
    error: EdgekitError | None = None


def _measure(
    device: Device,
    candidates: Sequence[Candidate],
    settings: Settings,
    tool: BenchmarkTool | None,
    on_progress: OnProgress | None,
    grace_s: float,
) -> tuple[Measurement, ...]:
    say = on_progress or (lambda _: None)
    facts = device.facts()
    tool = tool or find_benchmark_tool(device, facts)
    plans = [_plan(candidate, facts, tool, settings) for candidate in candidates]  # refusals come before any work
    at_start = read_conditions(device)
    _check_energy(settings, at_start)
    works = [
        _Work(
            candidate=candidate,
            plan=plan,
            session=_open_session(device, candidate, plan, settings, tool, grace_s, say),
            before=at_start,
            after=at_start,
        )
        for candidate, plan in zip(candidates, plans, strict=True)
    ]
    try:
        _work_through(device, works, settings, say)
    except KeyboardInterrupt:
        for work in works:
            work.session.collected.fault = work.session.collected.fault or "interrupted by Ctrl-C"
        raise Interrupted(tuple(_conclude(work, facts, settings) for work in works)) from None
    if not any(work.session.collected.latency_ms for work in works):
        raise next(work.error for work in works if work.error is not None)
    return tuple(_conclude(work, facts, settings) for work in works)


def _work_through(device: Device, works: Sequence[_Work], settings: Settings, say: OnProgress) -> None:
    for work in works:
        _attempt(work, work.session.place)
    for turn in range(settings.rounds):
        for work in works:
            _take_turn(device, work, settings, turn, say)
    for work in works:
        if settings.op_profile:
            _attempt(work, work.session.profile)


def _plan(candidate: Candidate, facts: DeviceFacts, tool: BenchmarkTool | None, settings: Settings) -> RunPlan:
    check_files(candidate.bundle)
    plan = plan_run(
        candidate.bundle.manifest,
        facts,
        accelerator=candidate.accelerator,
        runtime=candidate.runtime,
        has_tool=tool is not None,
        delegate=settings.delegate,
    )
    if writes(candidate.bundle):
        check_writing(candidate.bundle, plan, settings)
    return plan


def _open_session(
    device: Device,
    candidate: Candidate,
    plan: RunPlan,
    settings: Settings,
    tool: BenchmarkTool | None,
    grace_s: float,
    say: OnProgress,
) -> Session:
    if plan.runtime == BENCHMARK_MODEL and tool is not None:
        return ToolSession(device, candidate.bundle, tool, plan, settings, grace_s=grace_s, say=say)
    if writes(candidate.bundle):
        return WritingSession(device, candidate.bundle, plan, settings, grace_s=grace_s, say=say)
    return RunnerSession(device, candidate.bundle, plan, settings, grace_s=grace_s, say=say)


def _check_energy(settings: Settings, conditions: Conditions) -> None:
    if settings.energy and conditions.charging:
        raise RefusedError(
            "energy can't be known while the device is charging: unplug it (adb works over Wi-Fi: `adb tcpip 5555`, "
            "`adb connect HOST`), or leave --energy out"
        )


def _take_turn(device: Device, work: _Work, settings: Settings, turn: int, say: OnProgress) -> None:
    """Cool down, start cold where it is the first turn, measure, and look at the device before and after."""
    if work.error is not None:
        return
    if settings.cooldown_secs:
        say(f"cooling down for {settings.cooldown_secs:.0f} s")
        time.sleep(settings.cooldown_secs)

    def run() -> None:
        if turn == 0:
            work.before = read_conditions(device)
            for start in range(settings.cold_starts):
                say(f"cold start {start + 1} of {settings.cold_starts}")
                work.session.cold_start()
        try:
            work.session.measure(turn)
        finally:
            with contextlib.suppress(EdgekitError):  # how it was when a run failed is worth knowing, where it can be
                work.after = read_conditions(device)

    _attempt(work, run)


def _attempt(work: _Work, action: Callable[[], None]) -> None:
    """Do something for a candidate that has not failed yet; its first error ends it, what it has is kept."""
    if work.error is not None:
        return
    try:
        action()
    except EdgekitError as error:
        work.error = error
        work.session.collected.fault = str(error)


def _conclude(work: _Work, facts: DeviceFacts, settings: Settings) -> Measurement:
    collected, bundle = work.session.collected, work.candidate.bundle
    manifest, samples = bundle.manifest, collected.as_samples()
    verdict, evidence = judge(
        Facts(
            accelerator=work.plan.accelerator,
            coverage=collected.coverage,
            parity=collected.parity,
            samples=samples,
            before=work.before,
            after=work.after,
            groups=_groups(bundle, samples.steps),
            cores=facts.cores,
            warm=collected.warm,
            fault=collected.fault,
        )
    )
    return Measurement(
        time=datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
        bundle=manifest.name,
        bundle_sha256=file_sha256(bundle.path / MANIFEST),
        model_sha256=_model_sha256(bundle),
        model_size_bytes=bundle.model_size_bytes,
        target=manifest.target,
        scheme=manifest.scheme,
        runtime=work.plan.runtime,
        runtime_version=collected.runtime_version,
        tool=work.session.tool,
        device=facts,
        fingerprint=_fingerprint(work, facts, settings),
        accelerator=work.plan.accelerator,
        coverage=collected.coverage,
        settings=settings,
        samples=samples,
        before=work.before,
        after=work.after,
        parity=collected.parity,
        accuracy=collected.accuracy,
        operators=collected.operators,
        verdict=verdict,
        evidence=evidence,
        fault=collected.fault,
    )


def _groups(bundle: Bundle, steps: Sequence[int]) -> list[int]:
    """For each sample the number of its signature and shapes: only runs of the same ones are alike.

    Of a model that writes, the number of its context length.
    """
    if writes(bundle):
        return list(steps)
    golden = read_golden(bundle.golden_path).steps
    kinds = [(step.signature, *(value.shape for value in step.inputs.values())) for step in golden]
    numbers = {kind: number for number, kind in enumerate(dict.fromkeys(kinds))}
    return [numbers[kinds[step]] for step in steps]


def _model_sha256(bundle: Bundle) -> str:
    """The sha256 of the file, or of the names and hashes of all files of a folder."""
    files, model = bundle.manifest.files, bundle.manifest.model
    if model in files:
        return files[model].sha256
    parts = sorted(f"{name} {record.sha256}\n" for name, record in files.items() if name.startswith(f"{model}/"))
    return hashlib.sha256("".join(parts).encode()).hexdigest()


def _fingerprint(work: _Work, facts: DeviceFacts, settings: Settings) -> str:
    """What has to be equal for two measurements to be comparable: the device, its system, runtime, tool and cores."""
    parts = {
        "device": facts.model_dump(include={"address", "model", "soc", "machine", "cores", "memory_bytes", "os"}),
        "runtime": [work.plan.runtime, work.session.collected.runtime_version, work.session.tool],
        "accelerator": work.plan.accelerator,
        "settings": settings.model_dump(include=_COMPARED, mode="json")
        | settings.model_dump(include=_COMPARED_IF_SET, exclude_defaults=True, mode="json"),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

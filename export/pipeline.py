"""The export pipeline: reference, conversions side by side, proof, bundles."""

import os
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgekit import bundle as bundles
from edgekit import extras
from edgekit.bundle import MANIFEST, Manifest
from edgekit.cache import Cache
from edgekit.checkpoint import Checkpoint
from edgekit.errors import EdgekitError, ExportError
from edgekit.export.job_cache import run_job
from edgekit.export.jobs import Job, JobResult
from edgekit.export.onnx_configs import write_onnx_configs
from edgekit.export.placing import fit_steps_file
from edgekit.export.plan import PlannedExport
from edgekit.export.prepare import CALIBRATION
from edgekit.export.proving import prove_plan
from edgekit.export.quantize.calibration import Calibration, choose_calibration
from edgekit.export.schemes import SCHEMES, requirements
from edgekit.export.slots import COMPRESS, PROVE, REFERENCE, Slots, conversion_rank
from edgekit.export.snippets import write_snippets
from edgekit.export.subjects import CACHE_CALIBRATION, CheckpointSubject, Reference, Subject, WriterSubject
from edgekit.model.rewrites import FLOAT_MASK, REWRITES
from edgekit.outputs import HIDDEN, atomic_directory, scratch_directory
from edgekit.processes import kill_running
from edgekit.program import Signature

DEFAULT_TIMEOUT_S = 1800.0

_STAGES = {
    "convert": "converting",
    "compress": "quantizing",
    "reference": "computing",
    "prepare": "computing",
    "write": "writing texts",
    "quantize-cache": "quantizing the cache",
}

OnStage = Callable[[str, str], None]  # (bundle name or "reference", what happens now)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one planned export: its manifest, or the error that ended it; seconds by stage.

    Stages that are `cached` were not done now: what an earlier export left was taken, and seconds are 0.
    """

    plan: PlannedExport
    manifest: Manifest | None = None
    error: EdgekitError | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    cached: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the bundle was written and its parity, where it can be run here, holds."""
        return self.manifest is not None and self.manifest.parity.verdict != "failed"


@dataclass(frozen=True, kw_only=True)
class _Session:
    """What all exports of one call share."""

    subject: Subject
    scratch: Path
    logs: Path
    force: bool
    timeout_s: float
    on_stage: OnStage
    cache: Cache | None
    slots: Slots
    floats: dict[str, Future[JobResult]] = field(default_factory=dict)
    floats_lock: threading.Lock = field(default_factory=threading.Lock)


def export_checkpoint(
    checkpoint: Checkpoint,
    plans: Sequence[PlannedExport],
    *,
    eval_samples: int | None = 500,
    force: bool = False,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    max_workers: int | None = None,
    calibration: Calibration | None = None,
    cache: Cache | None = None,
    prefill_lengths: Sequence[int] = (),
    on_stage: OnStage = lambda name, stage: None,
) -> list[Outcome]:
    """Make and prove the planned bundles, as many side by side as there are cores; one failure stops no other.

    `eval_samples` held-out examples (None: all) are replayed through every file for parity and accuracy.
    `calibration` are the texts for schemes that need them (None: `choose_calibration`'s own). `prefill_lengths` are
    those of a model that writes (none: the default). `timeout_s` bounds each conversion. What is in `cache` is not made
    again. Raises the first plan's problem before any work is done.
    """
    _check_plans(plans, checkpoint)
    if calibration is None and any(plan.calibrated for plan in plans):
        calibration = choose_calibration(checkpoint, cache=cache)
    subject: Subject
    if checkpoint.config.task == "classify":
        subject = CheckpointSubject(checkpoint, eval_samples=eval_samples, calibration=calibration, cache=cache)
    else:
        subject = WriterSubject(
            checkpoint,
            eval_samples=eval_samples,
            prefill_lengths=prefill_lengths,
            cache=cache,
            int8_cache=any(plan.cache_dtype == "int8" for plan in plans),
        )
    return export_subject(
        subject,
        plans,
        force=force,
        timeout_s=timeout_s,
        max_workers=max_workers,
        cache=cache,
        on_stage=on_stage,
    )


def export_subject(
    subject: Subject,
    plans: Sequence[PlannedExport],
    *,
    force: bool = False,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    max_workers: int | None = None,
    cache: Cache | None = None,
    on_stage: OnStage = lambda name, stage: None,
) -> list[Outcome]:
    """Make and prove the planned bundles of anything that can be exported; the rest as `export_checkpoint`."""
    _check_plans(plans, subject)
    output = plans[0].path.parent
    with scratch_directory(output) as scratch:
        session = _Session(
            subject=subject,
            scratch=scratch,
            logs=output.absolute() / HIDDEN / "logs",
            force=force,
            timeout_s=timeout_s,
            on_stage=on_stage,
            cache=cache,
            slots=Slots(max_workers or os.cpu_count() or 1),
        )
        session.logs.mkdir(exist_ok=True)
        return _run_all(session, plans)


def _check_plans(plans: Sequence[PlannedExport], source: Checkpoint | Subject) -> None:
    """Raise the first plan's problem, or MissingExtraError where the references can't be computed."""
    for plan in plans:
        if plan.problem:
            raise plan.problem
    extras.check_installed((source.framework,), f"the reference outputs of {source.name}")


def _run_all(session: _Session, plans: Sequence[PlannedExport]) -> list[Outcome]:
    """A thread for each export, which mostly waits; `session.slots` limits the processes that really work."""
    pool = ThreadPoolExecutor(max_workers=len(plans) + 1)
    try:
        reference: Future[Reference] = Future()
        first = sorted(plans, key=conversion_rank)  # whoever comes first takes the slots that are free now
        futures = {plan.name: pool.submit(_export_one, session, plan, reference) for plan in first}
        pool.submit(_compute_reference, session, reference)
        return [futures[plan.name].result() for plan in plans]
    except BaseException:  # Ctrl-C above all: no conversion may go on behind the user's back
        pool.shutdown(wait=False, cancel_futures=True)
        session.slots.close()
        kill_running()
        raise
    finally:
        pool.shutdown(wait=True)


def _compute_reference(session: _Session, reference: Future[Reference]) -> None:
    """Run the source model, in the framework that holds it, on the samples; once for all targets."""
    try:
        with session.slots.take(REFERENCE):
            fields = session.subject.ask(session.scratch)
            result = str(session.scratch / "reference.result.json")
            _run_job(session, Job.model_validate(fields | {"result": result}), "reference")
        session.on_stage("reference", "done")
        reference.set_result(session.subject.read(session.scratch))
    except BaseException as error:  # noqa: BLE001  (whatever it was, the exports must not wait for ever)
        reference.set_exception(error)


def _export_one(session: _Session, plan: PlannedExport, reference: Future[Reference]) -> Outcome:
    seconds: dict[str, float] = {}
    try:
        with atomic_directory(plan.path, force=session.force, marker=MANIFEST) as folder:
            result = _convert(session, plan, folder, reference)
            seconds["convert"] = _seconds(result)
            session.on_stage(plan.name, "waiting for the reference")
            known = reference.result()
            with session.slots.take(PROVE):
                session.on_stage(plan.name, "proving")
                started = time.monotonic()
                manifest = _fill_bundle(session, plan, folder, known, result)
                seconds["prove"] = 0.0 if manifest.proven_before else time.monotonic() - started
    except EdgekitError as error:
        session.on_stage(plan.name, "failed")
        return Outcome(plan=plan, error=error, seconds=seconds)
    session.on_stage(plan.name, "done")
    cached = {"convert": result.cached, "prove": bool(manifest.proven_before)}
    stages = tuple(stage for stage, taken in cached.items() if taken)
    return Outcome(plan=plan, manifest=manifest, seconds=seconds, cached=stages)


def _seconds(result: JobResult) -> float:
    return 0.0 if result.cached else result.details.seconds


def _convert(session: _Session, plan: PlannedExport, folder: Path, reference: Future[Reference]) -> JobResult:
    """Write the target file into `folder`, its cache as the plan has it."""
    output = folder / plan.target.file
    if plan.cache_dtype == "float32":
        return _make(session, plan, output, reference)
    source = session.scratch / plan.name / plan.target.file
    source.parent.mkdir()
    made = _make(session, plan, source, reference)
    known = reference.result()  # whose job has written the texts to calibrate with
    fields: dict[str, Any] = {"op": "quantize-cache", "input": str(source), "target": plan.target.name}
    fields |= {"steps": str(session.scratch / CACHE_CALIBRATION), "signatures": _signatures(session, plan, known)}
    name = f"{plan.name}-cache"
    with session.slots.take(COMPRESS):
        packed = _run_job(session, Job.model_validate(fields | _paths(session, name, output)), name)
    counts = {"operators": packed.details.operators, "seconds": _seconds(made) + _seconds(packed)}
    details = made.details.model_copy(update=counts)
    return made.model_copy(update={"details": details, "cached": made.cached and packed.cached})


def _make(session: _Session, plan: PlannedExport, output: Path, reference: Future[Reference]) -> JobResult:
    """Write the target file to `output`: converted in its scheme, or made from the float32 file that schemes share."""
    direct = not plan.recipe and plan.scheme in plan.target.converted and plan.scheme != "none"
    if plan.target.reference or direct or plan.stateful or (plan.coreml and plan.coreml.multifunction):
        job = _conversion(session, plan, plan.scheme, output, reference)
        with session.slots.take(conversion_rank(plan)):
            return _run_job(session, job, plan.name)
    shared = session.scratch / plan.float_name / plan.target.file
    converted = _float_file(session, plan, shared, reference)
    if plan.scheme == "none":
        copy = shutil.copytree if shared.is_dir() else shutil.copyfile
        copy(shared, output)
        return converted
    fields: dict[str, Any] = {"op": "compress", "input": str(shared), "target": plan.target.name}
    source = session.subject.sources[plan.route]
    fields |= {"recipe": plan.recipe, "source": source} if plan.recipe else {"scheme": plan.scheme}
    if plan.calibrated or (_sees_texts(session, plan) and reference.result().calibration):
        fields["calibration"] = str(_calibration_steps(session, plan, reference.result()))
    with session.slots.take(COMPRESS):
        made = _run_job(session, Job.model_validate(fields | _paths(session, plan.name, output)), plan.name)
    counts = {
        "source_weights": converted.details.source_weights,
        "seconds": _seconds(converted) + _seconds(made),
    }
    details = made.details.model_copy(update=counts)
    both = {"tools": converted.tools | made.tools, "cached": converted.cached and made.cached}
    return made.model_copy(update={"details": details} | both)


def _sees_texts(session: _Session, plan: PlannedExport) -> bool:
    """Whether outliers are looked for in texts. edgekit's own encoders have none, and their texts may not be there."""
    return plan.balanced and not isinstance(session.subject, CheckpointSubject)


def _calibration_steps(session: _Session, plan: PlannedExport, reference: Reference) -> Path:
    """The calibration texts as the plan's file takes them."""
    written, name = session.scratch / CALIBRATION, f"{plan.name}.{CALIBRATION}"
    if FLOAT_MASK not in plan.rewrites:
        return written
    return fit_steps_file(written, session.scratch / name, _signatures(session, plan, reference)[0])


def _float_file(session: _Session, plan: PlannedExport, output: Path, reference: Future[Reference]) -> JobResult:
    """Convert to float32 once for all schemes of a target and route; whoever comes second waits."""
    name = output.parent.name
    with session.floats_lock:
        first = name not in session.floats
        future = session.floats.setdefault(name, Future())
    if first:
        try:
            output.parent.mkdir()
            job = _conversion(session, plan, "none", output, reference)
            with session.slots.take(conversion_rank(plan)):
                future.set_result(_run_job(session, job, name))
        except BaseException as error:  # noqa: BLE001  (whatever it was, the others must not wait for ever)
            future.set_exception(error)
    return future.result()


def _conversion(session: _Session, plan: PlannedExport, scheme: str, output: Path, reference: Future[Reference]) -> Job:
    subject, source = session.subject, session.subject.sources[plan.route]
    fields: dict[str, Any] = {"op": "convert", "source": source, "target": plan.target.name, "scheme": scheme}
    fields["rewrites"] = plan.rewrites
    float_cache = replace(plan, cache_dtype="float32")
    known = subject.signatures(float_cache, None)
    if known is None and (plan.writes or len(plan.lengths) > 1):
        known = subject.signatures(float_cache, reference.result())
    if known:  # else the worker finds its one signature out, and need not wait
        fields["signatures"] = known
    if plan.coreml:
        about = {"task": subject.task, "name": subject.name, "labels": subject.labels, "source_sha256": source.sha256}
        fields["coreml"] = plan.coreml.model_copy(update=about)
    return Job.model_validate(fields | _paths(session, f"{plan.name}-{scheme}", output))


def _signatures(session: _Session, plan: PlannedExport, reference: Reference) -> tuple[Signature, ...]:
    """Those of the plan's file, when the source has run."""
    found = session.subject.signatures(plan, reference)
    if found is None:
        raise ExportError(f"the signatures of {session.subject.name} are not known: its reference job found none")
    return found


def _paths(session: _Session, name: str, output: Path) -> dict[str, str]:
    return {"output": str(output), "result": str(session.scratch / f"{name}.result.json")}


def _run_job(session: _Session, job: Job, name: str) -> JobResult:
    """Run one worker process, or take what it left before; its log stays in `.edgekit/logs`."""
    result = run_job(
        job,
        name,
        folder=session.scratch,
        log=session.logs / f"{name}.log",
        timeout_s=session.timeout_s,
        cache=session.cache,
        on_start=lambda: session.on_stage(name, _STAGES[job.op]),
    )
    if result.cached:
        session.on_stage(name, "found in the cache")
    return result


def _fill_bundle(
    session: _Session, plan: PlannedExport, folder: Path, reference: Reference, result: JobResult
) -> Manifest:
    """Put everything beside the target file, run the proof, and seal the bundle."""
    subject, signatures = session.subject, _signatures(session, plan, reference)
    subject.place(session.scratch, folder)
    if isinstance(subject, WriterSubject) and plan.target.name == "onnx" and plan.kv_cache == "dynamic":
        write_onnx_configs(folder, plan.target.file, subject.checkpoint)
    proven = prove_plan(plan, folder, reference, signatures, session.cache, session.scratch)
    _collect_logs(session, plan, folder / bundles.LOG)
    ends, rules = reference.text_ends, reference.text_rules
    write_snippets(folder, plan.name, subject.task, plan.target.name, signatures, text_ends=ends, text_rules=rules)
    return bundles.seal_bundle(
        folder,
        name=plan.name,
        task=subject.task,
        target=plan.target.name,
        via=plan.route,
        scheme=plan.scheme,
        scheme_details=_scheme_details(session, reference, plan, result),
        rewrites=plan.rewrites,
        requires=requirements(plan.schemes, plan.target.name, plan.route, result.details.version),
        model=plan.target.file,
        runtime=plan.runtime,
        signatures=signatures,
        target_options=plan.coreml.recorded() if plan.coreml else {},
        source=subject.sources[plan.route],
        tools=result.tools,
        parity=proven.proof.parity,
        accuracy=proven.proof.accuracy,
        proven_before=proven.before,
        written=proven.proof.written,
        text_ends=ends,
        text_rules=rules,
        golden_texts=reference.origin,
    )


def _scheme_details(session: _Session, reference: Reference, plan: PlannedExport, result: JobResult) -> dict[str, Any]:
    """What the scheme became: in words, as counted, and with which texts it was calibrated."""
    details = result.details.model_dump(mode="json", exclude={"seconds", "steps", "version"}, exclude_none=True)
    if plan.recipe:
        details["recipe"] = plan.recipe.model_dump(mode="json", exclude={"found"})
    if reference.calibration and (plan.calibrated or _sees_texts(session, plan)):
        details["calibration"] = reference.calibration.model_dump(mode="json")
    if plan.cache_dtype != "float32":
        details["cache"] = f"{plan.cache_dtype} between calls, one scale each, by the largest value in training texts"
    if plan.rewrites:
        details["rewrites"] = {name: REWRITES[name].becomes for name in plan.rewrites}
    becomes = [SCHEMES[scheme][plan.target.name] for scheme in plan.schemes]
    return {"becomes": "; beside it: ".join(becomes)} | details


def _collect_logs(session: _Session, plan: PlannedExport, output: Path) -> None:
    """Everything that the converters printed for this bundle, in order."""
    logs = [session.logs / f"{name}.log" for name in (plan.float_name, plan.name)]
    output.write_bytes(b"".join(log.read_bytes() for log in logs if log.is_file()))

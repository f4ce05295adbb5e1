"""How the file of a planned export is made: by jobs in worker processes, float32 once for all schemes of a route."""

import shutil
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgekit.cache import Cache
from edgekit.errors import ExportError
from edgekit.export.job_cache import run_job
from edgekit.export.jobs import Job, JobResult
from edgekit.export.placing import fit_steps_file
from edgekit.export.plan import PlannedExport
from edgekit.export.prepare import CALIBRATION
from edgekit.export.slots import COMPRESS, Slots, conversion_rank
from edgekit.export.subjects import CACHE_CALIBRATION, CheckpointSubject, Reference, Subject
from edgekit.model.rewrites import FLOAT_MASK
from edgekit.program import Signature

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
class Session:
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


def seconds_of(result: JobResult) -> float:
    """What a job took now: nothing, where its result was kept."""
    return 0.0 if result.cached else result.details.seconds


def write_target(session: Session, plan: PlannedExport, folder: Path, reference: Future[Reference]) -> JobResult:
    """Write the target file into `folder`, its cache as the plan has it."""
    output = folder / plan.target.file
    if plan.cache_dtype == "float32":
        return _make(session, plan, output, reference)
    source = session.scratch / plan.name / plan.target.file
    source.parent.mkdir()
    made = _make(session, plan, source, reference)
    known = reference.result()  # whose job has written the texts to calibrate with
    fields: dict[str, Any] = {"op": "quantize-cache", "input": str(source), "target": plan.target.name}
    fields |= {"steps": str(session.scratch / CACHE_CALIBRATION), "signatures": file_signatures(session, plan, known)}
    name = f"{plan.name}-cache"
    with session.slots.take(COMPRESS):
        packed = run_stage(session, Job.model_validate(fields | _paths(session, name, output)), name)
    counts = {"operators": packed.details.operators, "seconds": seconds_of(made) + seconds_of(packed)}
    details = made.details.model_copy(update=counts)
    return made.model_copy(update={"details": details, "cached": made.cached and packed.cached})


def _make(session: Session, plan: PlannedExport, output: Path, reference: Future[Reference]) -> JobResult:
    """Write the target file to `output`: converted in its scheme, or made from the float32 file that schemes share."""
    direct = not plan.recipe and plan.scheme in plan.target.converted and plan.scheme != "none"
    if plan.target.reference or direct or plan.stateful or (plan.coreml and plan.coreml.multifunction):
        job = _conversion(session, plan, plan.scheme, output, reference)
        with session.slots.take(conversion_rank(plan)):
            return run_stage(session, job, plan.name)
    shared = session.scratch / plan.float_name / plan.target.file
    converted = _float_file(session, plan, shared, reference)
    if plan.scheme == "none":
        copy = shutil.copytree if shared.is_dir() else shutil.copyfile
        copy(shared, output)
        return converted
    fields: dict[str, Any] = {"op": "compress", "input": str(shared), "target": plan.target.name}
    source = session.subject.sources[plan.route]
    fields |= {"recipe": plan.recipe, "source": source} if plan.recipe else {"scheme": plan.scheme}
    if plan.calibrated or (sees_texts(session, plan) and reference.result().calibration):
        fields["calibration"] = str(_calibration_steps(session, plan, reference.result()))
    with session.slots.take(COMPRESS):
        made = run_stage(session, Job.model_validate(fields | _paths(session, plan.name, output)), plan.name)
    counts = {
        "source_weights": converted.details.source_weights,
        "seconds": seconds_of(converted) + seconds_of(made),
    }
    details = made.details.model_copy(update=counts)
    both = {"tools": converted.tools | made.tools, "cached": converted.cached and made.cached}
    return made.model_copy(update={"details": details} | both)


def sees_texts(session: Session, plan: PlannedExport) -> bool:
    """Whether outliers are looked for in texts. edgekit's own encoders have none, and their texts may not be there."""
    return plan.balanced and not isinstance(session.subject, CheckpointSubject)


def _calibration_steps(session: Session, plan: PlannedExport, reference: Reference) -> Path:
    """The calibration texts as the plan's file takes them."""
    written, name = session.scratch / CALIBRATION, f"{plan.name}.{CALIBRATION}"
    if FLOAT_MASK not in plan.rewrites:
        return written
    return fit_steps_file(written, session.scratch / name, file_signatures(session, plan, reference)[0])


def _float_file(session: Session, plan: PlannedExport, output: Path, reference: Future[Reference]) -> JobResult:
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
                future.set_result(run_stage(session, job, name))
        except BaseException as error:  # noqa: BLE001  (whatever it was, the others must not wait for ever)
            future.set_exception(error)
    return future.result()


def _conversion(session: Session, plan: PlannedExport, scheme: str, output: Path, reference: Future[Reference]) -> Job:
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


def file_signatures(session: Session, plan: PlannedExport, reference: Reference) -> tuple[Signature, ...]:
    """Those of the plan's file, when the source has run."""
    found = session.subject.signatures(plan, reference)
    if found is None:
        raise ExportError(f"the signatures of {session.subject.name} are not known: its reference job found none")
    return found


def _paths(session: Session, name: str, output: Path) -> dict[str, str]:
    return {"output": str(output), "result": str(session.scratch / f"{name}.result.json")}


def run_stage(session: Session, job: Job, name: str) -> JobResult:
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

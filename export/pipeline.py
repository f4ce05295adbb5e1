"""The export pipeline: reference, conversions side by side, proof, bundles."""

import os
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgekit import bundle as bundles
from edgekit import extras
from edgekit.bundle import MANIFEST, Manifest
from edgekit.cache import Cache
from edgekit.checkpoint import Checkpoint
from edgekit.errors import EdgekitError
from edgekit.export.jobs import Job, JobResult
from edgekit.export.making import OnStage, Session, file_signatures, run_stage, seconds_of, sees_texts, write_target
from edgekit.export.onnx_configs import write_onnx_configs
from edgekit.export.plan import PlannedExport
from edgekit.export.proving import prove_plan
from edgekit.export.quantize.calibration import Calibration, choose_calibration
from edgekit.export.schemes import SCHEMES, requirements
from edgekit.export.slots import PROVE, REFERENCE, Slots, conversion_rank
from edgekit.export.snippets import write_snippets
from edgekit.export.subjects import CheckpointSubject, Reference, Subject, WriterSubject
from edgekit.model.rewrites import REWRITES
from edgekit.outputs import HIDDEN, atomic_directory, scratch_directory
from edgekit.processes import kill_running

DEFAULT_TIMEOUT_S = 1800.0


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
        session = Session(
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


def _run_all(session: Session, plans: Sequence[PlannedExport]) -> list[Outcome]:
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


def _compute_reference(session: Session, reference: Future[Reference]) -> None:
    """Run the source model, in the framework that holds it, on the samples; once for all targets."""
    try:
        with session.slots.take(REFERENCE):
            fields = session.subject.ask(session.scratch)
            result = str(session.scratch / "reference.result.json")
            run_stage(session, Job.model_validate(fields | {"result": result}), "reference")
        session.on_stage("reference", "done")
        reference.set_result(session.subject.read(session.scratch))
    except BaseException as error:  # noqa: BLE001  (whatever it was, the exports must not wait for ever)
        reference.set_exception(error)


def _export_one(session: Session, plan: PlannedExport, reference: Future[Reference]) -> Outcome:
    seconds: dict[str, float] = {}
    try:
        with atomic_directory(plan.path, force=session.force, marker=MANIFEST) as folder:
            result = write_target(session, plan, folder, reference)
            seconds["convert"] = seconds_of(result)
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


def _fill_bundle(
    session: Session, plan: PlannedExport, folder: Path, reference: Reference, result: JobResult
) -> Manifest:
    """Put everything beside the target file, run the proof, and seal the bundle."""
    subject, signatures = session.subject, file_signatures(session, plan, reference)
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


def _scheme_details(session: Session, reference: Reference, plan: PlannedExport, result: JobResult) -> dict[str, Any]:
    """What the scheme became: in words, as counted, and with which texts it was calibrated."""
    details = result.details.model_dump(mode="json", exclude={"seconds", "steps", "version"}, exclude_none=True)
    if plan.recipe:
        details["recipe"] = plan.recipe.model_dump(mode="json", exclude={"found"})
    if reference.calibration and (plan.calibrated or sees_texts(session, plan)):
        details["calibration"] = reference.calibration.model_dump(mode="json")
    if plan.cache_dtype != "float32":
        details["cache"] = f"{plan.cache_dtype} between calls, one scale each, by the largest value in training texts"
    if plan.rewrites:
        details["rewrites"] = {name: REWRITES[name].becomes for name in plan.rewrites}
    becomes = [SCHEMES[scheme][plan.target.name] for scheme in plan.schemes]
    return {"becomes": "; beside it: ".join(becomes)} | details


def _collect_logs(session: Session, plan: PlannedExport, output: Path) -> None:
    """Everything that the converters printed for this bundle, in order."""
    logs = [session.logs / f"{name}.log" for name in (plan.float_name, plan.name)]
    output.write_bytes(b"".join(log.read_bytes() for log in logs if log.is_file()))

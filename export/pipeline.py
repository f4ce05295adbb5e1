"""The export pipeline: reference, conversions side by side, proof, bundles."""

import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from edgekit.export.jobs import Job, JobResult, SchemeName, TargetName, read_result, write_job
from edgekit.export.plan import PlannedExport
from edgekit.export.schemes import RELATIVE_TOLERANCE

from edgekit import bundle as bundles
from edgekit import extras
from edgekit.bundle import MANIFEST, Manifest
from edgekit.checkpoint import Checkpoint
from edgekit.errors import EdgekitError, ExportError
from edgekit.outputs import HIDDEN, atomic_directory, scratch_directory
from edgekit.processes import kill_running, run_process
from edgekit.program import FRAMEWORKS, Framework, SourceRef
from edgekit.proof.prove import Samples, choose_samples, prove_file
from edgekit.sources.checkpoint import checkpoint_source, encoder_signature

DEFAULT_TIMEOUT_S = 1800.0
#: the same hashes in every worker, so that two exports of one checkpoint give the same bytes
WORKER_ENVIRONMENT = {"PYTHONHASHSEED": "0", "TF_CPP_MIN_LOG_LEVEL": "2", "TF_ENABLE_ONEDNN_OPTS": "0"}

OnStage = Callable[[str, str], None]  # (bundle name or "reference", what happens now)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one planned export: its manifest, or the error that ended it; seconds by stage."""

    plan: PlannedExport
    manifest: Manifest | None = None
    error: EdgekitError | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether the bundle was written and its parity, where it can be run here, holds."""
        return self.manifest is not None and self.manifest.parity.verdict != "failed"


@dataclass(frozen=True, kw_only=True)
class _Session:
    """What all exports of one call share."""

    checkpoint: Checkpoint
    sources: dict[Framework, SourceRef]
    samples: Samples
    scratch: Path
    logs: Path
    force: bool
    timeout_s: float
    on_stage: OnStage


def export_checkpoint(
    checkpoint: Checkpoint,
    plans: Sequence[PlannedExport],
    *,
    eval_samples: int | None = 500,
    force: bool = False,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    max_workers: int | None = None,
    on_stage: OnStage = lambda name, stage: None,
) -> list[Outcome]:
    """Make and prove the planned bundles, as many side by side as there are cores; one failure stops no other.

    `eval_samples` held-out examples (None: all) are replayed through every file for parity and accuracy.
    `timeout_s` bounds each conversion. Raises the first plan's problem before any work is done.
    """
    for plan in plans:
        if plan.problem:
            raise plan.problem
    extras.check_installed((checkpoint.framework,), f"the reference outputs of {checkpoint.name}")
    output = plans[0].path.parent
    with scratch_directory(output) as scratch:
        session = _Session(
            checkpoint=checkpoint,
            sources={name: checkpoint_source(checkpoint.path, name) for name in FRAMEWORKS},
            samples=choose_samples(checkpoint, eval_samples),
            scratch=scratch,
            logs=output.absolute() / HIDDEN / "logs",
            force=force,
            timeout_s=timeout_s,
            on_stage=on_stage,
        )
        session.logs.mkdir(exist_ok=True)
        return _run_all(session, plans, max_workers or os.cpu_count() or 1)


def _run_all(session: _Session, plans: Sequence[PlannedExport], workers: int) -> list[Outcome]:
    pool = ThreadPoolExecutor(max_workers=workers)
    try:
        reference = pool.submit(_compute_reference, session)
        futures = [pool.submit(_export_one, session, plan, reference) for plan in plans]
        return [future.result() for future in futures]
    except BaseException:  # Ctrl-C above all: no conversion may go on behind the user's back
        pool.shutdown(wait=False, cancel_futures=True)
        kill_running()
        raise
    finally:
        pool.shutdown(wait=True)


def _compute_reference(session: _Session) -> Path:
    """Run the source model, in the framework that trained it, on the samples; once for all targets."""
    steps, golden = session.scratch / "steps.npz", session.scratch / bundles.GOLDEN
    session.samples.write_steps(steps)
    session.on_stage("reference", "computing")
    job = Job(
        op="reference",
        source=session.sources[session.checkpoint.framework],
        steps=str(steps),
        output=str(golden),
        result=str(session.scratch / "reference.result.json"),
    )
    _run_job(session, job, "reference")
    session.samples.add_labels(golden)
    session.on_stage("reference", "done")
    return golden


def _export_one(session: _Session, plan: PlannedExport, reference: Future[Path]) -> Outcome:
    seconds: dict[str, float] = {}
    try:
        with atomic_directory(plan.path, force=session.force, marker=MANIFEST) as folder:
            started = time.monotonic()
            session.on_stage(plan.name, "converting")
            result = _convert(session, plan, folder)
            seconds["convert"] = time.monotonic() - started
            session.on_stage(plan.name, "waiting for the reference")
            golden = reference.result()
            started = time.monotonic()
            session.on_stage(plan.name, "proving")
            manifest = _fill_bundle(session, plan, folder, golden, result)
            seconds["prove"] = time.monotonic() - started
    except EdgekitError as error:
        session.on_stage(plan.name, "failed")
        return Outcome(plan=plan, error=error, seconds=seconds)
    session.on_stage(plan.name, "done")
    return Outcome(plan=plan, manifest=manifest, seconds=seconds)


def _convert(session: _Session, plan: PlannedExport, folder: Path) -> JobResult:
    target: TargetName = plan.target.name  # type: ignore[assignment]  # the plan holds known names only
    scheme: SchemeName = plan.scheme  # type: ignore[assignment]
    job = Job(
        op="convert",
        source=session.sources[plan.route],
        target=target,
        scheme=scheme,
        output=str(folder / plan.target.file),
        result=str(session.scratch / f"{plan.name}.result.json"),
    )
    return _run_job(session, job, plan.name)


def _run_job(session: _Session, job: Job, name: str) -> JobResult:
    """Run one worker process to its end.

    Raises ExportError: it raised, crashed, was killed or hung. Its log stays in `.edgekit/logs`.
    """
    path, log = session.scratch / f"{name}.job.json", session.logs / f"{name}.log"
    write_job(job, path)
    log.unlink(missing_ok=True)
    argv = [sys.executable, "-P", "-m", "edgekit.export.worker", str(path)]
    try:
        run = run_process(argv, timeout_s=session.timeout_s, log=log, cwd=session.scratch, env=WORKER_ENVIRONMENT)
    except EdgekitError as error:
        raise ExportError(f"{name}: the converter did not finish in {session.timeout_s:.0f} s", log=log) from error
    result = read_result(Path(job.result))
    if result is None:
        ended = f"died of signal {-run.returncode}" if run.returncode < 0 else f"ended with {run.returncode}"
        raise ExportError(f"{name}: the converter {ended}{_last_words(run.stderr)}", returncode=run.returncode, log=log)
    if result.error:
        raise ExportError(f"{name}: {result.error.message}", returncode=run.returncode, log=log)
    return result


def _last_words(text: str) -> str:
    """The last line that says something, for an error message."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f": {lines[-1][:300]}" if lines else ""


def _fill_bundle(session: _Session, plan: PlannedExport, folder: Path, golden: Path, result: JobResult) -> Manifest:
    """Put everything beside the target file, run the proof, and seal the bundle."""
    checkpoint = session.checkpoint
    shutil.copyfile(golden, folder / bundles.GOLDEN)
    shutil.copyfile(session.logs / f"{plan.name}.log", folder / bundles.LOG)
    checkpoint.processor.save(folder / bundles.TOKENIZER)
    bundles.write_labels(folder / bundles.LABELS, checkpoint.labels)
    proof = prove_file(
        folder / plan.target.file,
        plan.target.runtime,
        golden,
        relative_tolerance=RELATIVE_TOLERANCE[plan.scheme],
        population=session.samples.population,
        accuracy_note=session.samples.note,
    )
    return bundles.seal_bundle(
        folder,
        name=plan.name,
        task=checkpoint.config.task,
        target=plan.target.name,
        via=plan.route,
        scheme=plan.scheme,
        scheme_details=result.details.model_dump(exclude={"seconds", "steps"}),
        model=plan.target.file,
        runtime=plan.target.runtime,
        signatures=(encoder_signature(checkpoint, plan.route),),
        source=session.sources[plan.route],
        tools=result.tools,
        parity=proof.parity,
        accuracy=proof.accuracy,
        golden_texts=session.samples.origin,
    )

"""`edgekit bench --advise`: suggests variants from what was measured, exports them, and measures them beside."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from edgekit.cli.output import print_sortable, stderr
from edgekit.errors import EdgekitError, RefusedError

if TYPE_CHECKING:
    from edgekit.bundle import Bundle
    from edgekit.checkpoint import Checkpoint
    from edgekit.cli.measuring import CampaignView
    from edgekit.devices.advice import Evidence, Suggestion
    from edgekit.devices.campaign import Cell, Outcome, Plan
    from edgekit.export.plan import PlannedExport
    from edgekit.measurement import Measurement
    from edgekit.report.trials import Trial

#: turns of each candidate, where --interleave asked for none
ROUNDS = 5


@dataclass(frozen=True, kw_only=True)
class _Attempt:
    """A variant that was suggested: the bundle that came of it, or why there is none."""

    suggestion: "Suggestion"
    name: str
    bundle: "Bundle | None" = None
    problem: str = ""


@dataclass(kw_only=True)
class Advice:
    """What came of the advice: trials, and sentences about what was not tried."""

    trials: "list[Trial]"
    remarks: list[str]


def advise(plan: "Plan", outcomes: "Sequence[Outcome]", *, label: str) -> Advice:
    """Try what the outcomes suggest, bundle by bundle and accelerator by accelerator."""
    from edgekit.devices.advice import remark, suggest

    advice = Advice(trials=[], remarks=[])
    for outcome in outcomes:
        if outcome.cell.beside:
            continue
        evidence, name = _evidence(outcome, outcomes), outcome.cell.name
        suggestions = suggest(evidence)
        if told := remark(evidence):
            advice.remarks.append(f"{name}: {told}")
        if not suggestions:
            advice.remarks.append(f"{name}: nothing to try, it ran as asked and its outputs are right")
            continue
        try:
            attempts = _export(outcome.cell.bundle, suggestions)
        except EdgekitError as error:
            wanted = ", ".join("+".join((each.scheme, *each.rewrites)) for each in suggestions)
            advice.remarks.append(f"{name}: worth trying: {wanted}, but {error}")
            continue
        advice.trials += _try(plan, outcome.cell, evidence, attempts, label)
    return advice


def show_advice(advice: Advice) -> None:
    """Print what was tried and what came of it."""
    from edgekit.report.trials import trials_table

    if advice.trials:
        print_sortable(trials_table(advice.trials))
    for trial in advice.trials:
        if trial.note:
            typer.echo(f"{trial.variant} on {trial.accelerator}: {trial.result}: {trial.note}")
    for remark in advice.remarks:
        typer.echo(remark)


def _evidence(outcome: "Outcome", outcomes: "Sequence[Outcome]") -> "Evidence":
    """What the run knows of one cell: itself, its bundle on the CPU, and the same model's float32 bundle."""
    from edgekit.devices.advice import Evidence

    cell, own = outcome.cell, outcome.cell.bundle.manifest

    def measured(other: "Cell") -> "Measurement | None":
        return next((o.measurement for o in outcomes if o.cell is other and o.measurement), None)

    here = [o.cell for o in outcomes if o.cell.device == cell.device]
    cpu = [c for c in here if c.bundle.path == cell.bundle.path and c.accelerator == "cpu" and c is not cell]
    plain = [
        c
        for c in here
        if c.accelerator == cell.accelerator
        and (c.bundle.manifest.source, c.bundle.manifest.target) == (own.source, own.target)
        and c.bundle.manifest.scheme == "none"
        and c.bundle.manifest.rewrites == own.rewrites
    ]
    return Evidence(
        manifest=own,
        accelerator=cell.accelerator,
        measurement=outcome.measurement,
        error=outcome.error,
        cpu=next(filter(None, map(measured, cpu)), None),
        float32=next(filter(None, map(measured, plain)), None),
    )


def _export(bundle: "Bundle", suggestions: "Sequence[Suggestion]") -> list[_Attempt]:
    """Export what was suggested beside the bundle, or take what is there already.

    Raises RefusedError where the checkpoint that the bundle was made of is not there any more.
    """
    from edgekit.checkpoint import content_sha256, load_checkpoint

    if bundle.manifest.source.kind != "checkpoint":
        raise RefusedError("only variants of edgekit's own checkpoints are exported by themselves: export them by hand")
    if bundle.manifest.compiled:
        raise RefusedError("it is compiled for one device: bench the bundle that it was compiled of with --advise")
    source = Path(bundle.manifest.source.path)
    if not (source / "config.json").is_file():
        raise RefusedError(f"the checkpoint that it was made of is not at {source}")
    if content_sha256(source) != bundle.manifest.source.sha256:
        raise RefusedError(f"{source} is no longer the checkpoint that it was made of: export the bundle again")
    if bundle.manifest.target_options:
        options = ", ".join(bundle.manifest.target_options)
        raise RefusedError(f"it was exported with options of its own ({options}): export the variants with them")
    checkpoint = load_checkpoint(source)
    planned = [_plan(bundle, checkpoint, each) for each in suggestions]
    return _export_missing(checkpoint, suggestions, planned)


def _plan(bundle: "Bundle", checkpoint: "Checkpoint", suggestion: "Suggestion") -> "PlannedExport":
    from edgekit.export.plan import plan_exports

    manifest = bundle.manifest
    (planned,) = plan_exports(
        checkpoint.name,
        checkpoint.config,
        targets=[manifest.target],
        schemes=[suggestion.scheme],
        via=[manifest.via],
        rewrites=suggestion.rewrites,
        output=bundle.path.absolute().parent,
        lengths=_lengths(bundle, checkpoint.config.max_length),
        by_default=manifest.signatures[0].dynamic_length,
    )
    return planned


def _lengths(bundle: "Bundle", longest: int) -> tuple[int, ...]:
    """The bundle's own sequence lengths, which its variants get too; none where it has the longest alone, or any."""
    signatures = bundle.manifest.signatures
    lengths = {spec.shape[1] for signature in signatures for spec in signature.inputs if spec.name == "ids"}
    return () if signatures[0].dynamic_length or lengths == {longest} else tuple(sorted(lengths))


def _export_missing(
    checkpoint: "Checkpoint", suggestions: "Sequence[Suggestion]", planned: "Sequence[PlannedExport]"
) -> list[_Attempt]:
    from edgekit.bundle import open_bundle
    from edgekit.cli.export_view import ExportProgress
    from edgekit.export.pipeline import export_checkpoint

    missing = [plan for plan in planned if not plan.path.exists() and plan.problem is None]
    errors: dict[Path, str] = {plan.path: str(plan.problem) for plan in planned if plan.problem}
    if missing:
        stderr.print(f"Exporting what may help: {', '.join(plan.name for plan in missing)}", markup=False)
        with ExportProgress([plan.name for plan in missing]) as progress:
            made = export_checkpoint(checkpoint, missing, on_stage=progress.show)
        errors |= {outcome.plan.path: str(outcome.error) for outcome in made if outcome.error}
    attempts = []
    for suggestion, plan in zip(suggestions, planned, strict=True):
        found, problem = None, errors.get(plan.path, "")
        if plan.path.exists():
            found = open_bundle(plan.path)
            problem = _unfit(found, checkpoint)
        attempts.append(
            _Attempt(suggestion=suggestion, name=plan.name, bundle=None if problem else found, problem=problem)
        )
    return attempts


def _unfit(found: "Bundle", checkpoint: "Checkpoint") -> str:
    """Why a bundle that is there can't stand for the variant; "" where it can."""
    from edgekit.checkpoint import content_sha256

    if found.manifest.source.sha256 != content_sha256(checkpoint.path):
        return f"{found.path} was made of another checkpoint: move it away, or export it again with --force"
    if found.manifest.parity.verdict == "failed":
        return f"its outputs are wrong on this machine's CPU already: {found.manifest.parity.note or found.path}"
    return ""


def _try(plan: "Plan", cell: "Cell", evidence: "Evidence", attempts: Sequence[_Attempt], label: str) -> "list[Trial]":
    """Measure the variants in turns with the bundle itself, on its accelerator and on the CPU."""
    from edgekit.report.trials import judge_trial

    ran = evidence.measurement is not None and bool(evidence.measurement.samples.latency_ms)
    cells = [cell] if ran else []
    if cell.accelerator != "cpu" and evidence.cpu:
        cells.append(replace(cell, accelerator="cpu", beside=True))
    cells += [replace(cell, bundle=attempt.bundle) for attempt in attempts if attempt.bundle]
    outcomes = _measure(plan, cells, label).outcomes if any(attempt.bundle for attempt in attempts) else []
    made = {(o.cell.bundle.path, o.cell.accelerator): o for o in outcomes}

    def measurement(bundle: "Bundle | None", accelerator: str) -> "Measurement | None":
        outcome = made.get((bundle.path, accelerator)) if bundle else None
        return outcome.measurement if outcome else None

    trials = []
    for attempt in attempts:
        outcome = made.get((attempt.bundle.path, cell.accelerator)) if attempt.bundle else None
        trials.append(
            judge_trial(
                variant=measurement(attempt.bundle, cell.accelerator),
                bundle=measurement(cell.bundle, cell.accelerator),
                cpu=measurement(cell.bundle, "cpu") if cell.accelerator != "cpu" else None,
                note=" ".join((attempt.problem or (outcome.error if outcome else "")).split()),
                names={
                    "bundle": cell.bundle.manifest.name,
                    "device": cell.device,
                    "accelerator": cell.accelerator,
                    "variant": attempt.name,
                    "because": attempt.suggestion.because,
                },
            )
        )
    return trials


def _measure(plan: "Plan", cells: "Sequence[Cell]", label: str) -> "CampaignView":
    from edgekit.cli.measuring import CampaignView
    from edgekit.devices.campaign import run_campaign
    from edgekit.results import Results

    turns = plan.settings.rounds if plan.interleave else ROUNDS
    settings = plan.settings.model_copy(update={"rounds": turns, "cold_starts": min(1, plan.settings.cold_starts)})
    view = CampaignView(len(cells))
    with Results() as results, view.progress():
        run_campaign(replace(plan, cells=tuple(cells), settings=settings, interleave=True), results, view, label=label)
    return view

"""What `edgekit export` shows: its progress, plans, outcomes, and what failed."""

from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from edgekit.export.pipeline import Outcome
    from edgekit.export.plan import PlannedExport


class ExportProgress:
    """One line per bundle on a terminal, with what happens to it now; elsewhere a line for each change."""

    def __init__(self, names: list[str]) -> None:
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        from edgekit.cli.output import stderr

        columns = (SpinnerColumn(), TextColumn("{task.description}"), TextColumn("{task.fields[stage]}"))
        self._bars = Progress(*columns, TimeElapsedColumn(), console=stderr, transient=True)
        self._tasks: dict[str, Any] = {}
        for name in ("reference", *names):
            self.show(name, "waiting")

    def __enter__(self) -> "ExportProgress":
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def show(self, name: str, stage: str) -> None:
        """Say that `name` is now at `stage`."""
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name, total=1, stage=stage)
        self._bars.update(self._tasks[name], stage=stage, completed=1 if stage in ("done", "failed") else 0)
        if not self._bars.console.is_terminal and stage != "waiting":
            self._bars.console.print(f"{name}: {stage}")


def show_plans(plans: "list[PlannedExport]", *, as_json: bool) -> None:
    """Print what would be done, and what stands against it."""
    from edgekit.cli.output import human_size, print_json, print_table

    if as_json:
        print_json(
            [
                {
                    "target": plan.target.name,
                    "via": plan.route,
                    "scheme": plan.scheme,
                    "rewrites": plan.rewrites,
                    "bundle": str(plan.path),
                    "expected_size_bytes": plan.expected_size_bytes,
                    "problem": str(plan.problem) if plan.problem else None,
                }
                for plan in plans
            ]
        )
        return
    print_table(
        ["target", "via", "scheme", "bundle", "expected size (weights)", "problem"],
        [
            [
                plan.target.name,
                plan.route,
                plan.scheme,
                str(plan.path),
                human_size(plan.expected_size_bytes),
                str(plan.problem or ""),
            ]
            for plan in plans
        ],
    )


def as_dict(outcome: "Outcome") -> dict[str, Any]:
    """An outcome as --json prints it."""
    return {
        "bundle": str(outcome.plan.path),
        "target": outcome.plan.target.name,
        "via": outcome.plan.route,
        "scheme": outcome.plan.scheme,
        "rewrites": outcome.plan.rewrites,
        "ok": outcome.ok,
        "error": str(outcome.error) if outcome.error else None,
        "seconds": outcome.seconds,
        "cached": outcome.cached,
        "manifest": outcome.manifest.model_dump(mode="json") if outcome.manifest else None,
    }


def show_outcomes(outcomes: "list[Outcome]") -> None:
    """Print a table of what came of each export."""
    from edgekit.bundle import Bundle
    from edgekit.cli.output import human_size, parity_text, print_table, quality_text

    rows = []
    for outcome in outcomes:
        plan, manifest = outcome.plan, outcome.manifest
        size, parity, accuracy = "–", "failed", "–"
        if manifest:
            size = human_size(Bundle(path=plan.path, manifest=manifest).model_size_bytes)
            parity, accuracy = parity_text(manifest.parity), quality_text(manifest.accuracy, manifest.written)
        scheme = "+".join((plan.scheme, *plan.rewrites))
        rows.append([plan.target.name, plan.route, scheme, size, parity, accuracy, *_times(outcome)])
    headers = ["target", "via", "scheme", "size", "parity with the source", _quality(outcomes)]
    print_table([*headers, "converted in", "proven in"], rows)
    _tell_tolerances(outcomes)


def _times(outcome: "Outcome") -> list[str]:
    """What each stage took; `cached` is what was not done now."""
    taken = {stage: f"{seconds:.1f} s" for stage, seconds in outcome.seconds.items()}
    taken |= dict.fromkeys(outcome.cached, "cached")
    return [taken.get(stage, "–") for stage in ("convert", "prove")]


def _quality(outcomes: "list[Outcome]") -> str:
    """The name of the column that tells how good the answers are."""
    from edgekit.cli.output import QUALITY

    written = any(outcome.manifest and outcome.manifest.written for outcome in outcomes)
    return QUALITY if written else "accuracy"


def _tell_tolerances(outcomes: "list[Outcome]") -> None:
    """Say where a rewrite widened the tolerance of a scheme, by how much, and what was measured."""
    from edgekit.export.schemes import tolerance_of
    from edgekit.model.rewrites import REWRITES

    for outcome in outcomes:
        plan, manifest = outcome.plan, outcome.manifest
        wider = [name for name in plan.rewrites if REWRITES[name].adds_tolerance]
        if wider and manifest and manifest.parity.max_abs_difference is not None:
            added = ", ".join(f"{name} adds {REWRITES[name].adds_tolerance:g}" for name in wider)
            scheme = f"{plan.scheme} ({tolerance_of(plan.schemes).relative:g})"
            largest = max(1.0, manifest.parity.max_abs_reference or 0.0)
            measured = f"measured {manifest.parity.max_abs_difference / largest:.2g}"
            typer.echo(f"{plan.name}: {added} to the relative tolerance of {scheme}; {measured}.")


def complain(outcomes: "list[Outcome]") -> None:
    """Say what failed and why, and what to type next."""
    from edgekit.cli.output import stderr
    from edgekit.program import HUB_WRITERS, WRITING_TASKS

    for outcome in outcomes:
        if outcome.error:
            stderr.print(f"edgekit: error: {' '.join(str(outcome.error).split())}", markup=False)
        elif not outcome.ok and outcome.manifest:
            parity = outcome.manifest.parity
            why = parity.note or f"|Δ| {parity.max_abs_difference:.2g} is over the tolerance {parity.tolerance:.2g}"
            stderr.print(f"edgekit: error: {outcome.plan.path} is written as failed: {why}", markup=False)
    good = next((outcome for outcome in outcomes if outcome.ok), None)
    if good and good.manifest and good.manifest.task in ("classify", "text-classification"):
        stderr.print(f'Next: edgekit predict {good.plan.path} "Datei speichern"', markup=False)
    elif good and good.manifest and (verb := HUB_WRITERS.get(good.manifest.task, good.manifest.task)) in WRITING_TASKS:
        text = "Save" if verb == "generate" else "Delete selected items"
        stderr.print(f'Next: edgekit {verb} {good.plan.path} "{text}"', markup=False)
    elif good:
        stderr.print(f"Next: {good.plan.path}/README.md shows how to call it", markup=False)

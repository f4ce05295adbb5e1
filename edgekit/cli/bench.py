"""`edgekit bench`: measure bundles on devices."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgekit.cli.bench_options import MeasureOptions, PlaceOptions, VerdictOptions
from edgekit.cli.options import grouped

if TYPE_CHECKING:
    from edgekit.cli.advising import Advice
    from edgekit.cli.measuring import CampaignView
    from edgekit.devices.campaign import Outcome, Plan
    from edgekit.report.comparison import Comparison

MANY_TURNS = "--interleave takes turns: give two bundles or accelerators at least"


@grouped
def run_bench(
    *,
    bundles: Annotated[
        list[Path] | None, typer.Argument(help="Bundles; without any, all in bundles/.", show_default=False)
    ] = None,
    places: PlaceOptions,
    how: MeasureOptions,
    verdicts: VerdictOptions,
    label: Annotated[str, typer.Option(help="A name to find these runs by later.")] = "",
    resume: Annotated[bool, typer.Option("--resume", help="Measure what an unfinished bench has left.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with every raw sample.")] = False,
) -> None:
    """Measure bundles on this machine, a board or a phone, and prove their outputs there.

    Every sample is kept (`edgekit runs`), with the conditions before and after and a verdict with its evidence. List
    options may be repeated or comma-separated; every bundle runs on every device with every accelerator. Exit code 1
    where outputs are wrong, an accelerator was not used, or something could not be measured. Of models that write it
    measures the time to the first token, prefill and decode tokens per second and the cache, at several lengths of the
    context; --num-runs counts tokens.

    Examples:

        edgekit bench

        edgekit bench bundles/language-id.tflite-none.edgekit --device local,ssh:pi@raspberrypi --num-threads 4

        edgekit bench --device adb:R58M12ABCDE --sustained 10m --cooldown 60s --label "case on"

        edgekit bench bundles/a.edgekit bundles/b.edgekit --interleave

        edgekit bench bundles/writer.tflite-int8-dynamic.edgekit --context-length 16,64,200

        edgekit bench bundles/a.edgekit --accelerator gpu --runtime litert-compiled --advise

        edgekit bench bundles/a.edgekit --accelerator npu --delegate /usr/lib/libvx_delegate.so
    """
    from edgekit.cli.advising import advise, show_advice
    from edgekit.cli.measuring import show_comparisons, show_outcomes
    from edgekit.cli.output import print_json

    plan = _plan(bundles, places, how, beside_cpu=verdicts.beside_cpu)
    view, interrupted = _run(plan, resume=resume, label=label)
    comparisons = _ratios(view.outcomes) if how.interleave else []
    if not as_json:
        show_outcomes(view.outcomes)
        show_comparisons(comparisons)
    advice = advise(plan, view.outcomes, label=label) if verdicts.advise and not interrupted else None
    if as_json:
        print_json(_as_json(view.session, view.outcomes, comparisons, advice))
    elif advice:
        show_advice(advice)
    bad = _is_bad(view.outcomes, verdicts)
    complete = _is_complete(plan, view.outcomes)
    _say_what_next(view, complete=complete)
    raise typer.Exit(130 if interrupted else 1 if bad or not complete else 0)


def _plan(bundles: list[Path] | None, places: PlaceOptions, how: MeasureOptions, *, beside_cpu: bool) -> "Plan":
    """What is to be measured; a usage error for turns of one."""
    from edgekit.bundle import find_bundles
    from edgekit.cli.measuring import plan_cells
    from edgekit.cli.output import split_list
    from edgekit.devices.benchmark_model import open_benchmark_tool
    from edgekit.devices.campaign import Plan

    devices = split_list(places.device or ["local"])
    plan = Plan(
        cells=plan_cells(
            bundles or find_bundles(Path("bundles")), devices, places.accelerators(), beside_cpu=beside_cpu
        ),
        settings=how.settings(),
        interleave=how.interleave,
        runtime=how.runtime,
        benchmark_tool=open_benchmark_tool(how.benchmark_model) if how.benchmark_model else None,
    )
    if how.interleave and len(plan.cells) < 2 * len({cell.device for cell in plan.cells}):
        raise typer.BadParameter(MANY_TURNS, param_hint="--interleave")
    return plan


def _is_bad(outcomes: "Sequence[Outcome]", verdicts: VerdictOptions) -> bool:
    """Whether outputs are wrong, or an accelerator did not take what it had to."""
    bad = {"wrong-output"} if verdicts.allow_fallback else {"wrong-output", "fell-back"}
    wrong = any(outcome.measurement and outcome.measurement.verdict in bad for outcome in outcomes)
    undelegated = verdicts.require_full_delegation and _complain_of_delegation(outcomes)
    return wrong or undelegated


def _is_complete(plan: "Plan", outcomes: "Sequence[Outcome]") -> bool:
    """Whether all that was asked for was measured; the CPU beside it was not asked for."""
    asked = [outcome for outcome in outcomes if not outcome.cell.beside]
    return len(asked) == sum(not cell.beside for cell in plan.cells) and all(each.complete for each in asked)


def _run(plan: "Plan", *, resume: bool, label: str) -> "tuple[CampaignView, bool]":
    """Measure what is planned, or what is left of it; returns what came of it, and whether Ctrl-C ended it."""
    from edgekit.cli.measuring import CampaignView
    from edgekit.devices.campaign import run_campaign
    from edgekit.results import Results

    view = CampaignView(len(plan.cells))
    with Results() as results:
        try:
            with view.progress():
                run_campaign(plan, results, view, resume=resume, label=label)
        except KeyboardInterrupt:
            return view, True
    return view, False


def _ratios(outcomes: "Sequence[Outcome]") -> "list[Comparison]":
    """Each candidate beside the first of its device; the CPU beside accelerators has a table of its own."""
    from edgekit.report.comparison import compare_runs
    from edgekit.results import Run

    made = [outcome.measurement for outcome in outcomes if outcome.measurement and not outcome.cell.beside]
    first: dict[str, Run] = {}
    for measurement in made:
        first.setdefault(measurement.device.address, Run(measurement=measurement))
    return [
        compare_runs(first[measurement.device.address], Run(measurement=measurement))
        for measurement in made
        if first[measurement.device.address].measurement is not measurement
    ]


def _as_json(
    session: str, outcomes: "Sequence[Outcome]", comparisons: "Sequence[Comparison]", advice: "Advice | None"
) -> dict[str, Any]:
    from edgekit.report.beside_cpu import beside_cpu
    from edgekit.results import Run

    runs = [Run(measurement=outcome.measurement) for outcome in outcomes if outcome.measurement]
    return {
        "session": session,
        "outcomes": [
            {
                "bundle": str(outcome.cell.bundle.path),
                "device": outcome.cell.device,
                "accelerator": outcome.cell.accelerator,
                "complete": outcome.complete,
                "resumed": outcome.resumed,
                "error": outcome.error or outcome.store_error or None,
                "file": str(outcome.beside) if outcome.beside else None,
                "measurement": outcome.measurement.model_dump(mode="json") if outcome.measurement else None,
            }
            for outcome in outcomes
        ],
        "comparisons": [comparison.model_dump(mode="json") for comparison in comparisons],
        "advice": advice
        and {"trials": [trial.model_dump(mode="json") for trial in advice.trials], "remarks": advice.remarks},
        "beside_cpu": [each.model_dump(mode="json") for each in beside_cpu(runs)],
    }


def _complain_of_delegation(outcomes: "Sequence[Outcome]") -> bool:
    """Name each measurement whose accelerator did not take every operator, or that can't tell; whether there is one."""
    from edgekit.cli.output import stderr

    found = False
    for outcome in outcomes:
        made = outcome.measurement
        if made is None or (made.coverage.nodes and made.coverage.nodes_on_accelerator == made.coverage.nodes):
            continue
        found, covered = True, made.coverage
        taken = f"{covered.nodes_on_accelerator} of {covered.nodes} operators ran on it"
        if covered.nodes is None or covered.nodes_on_accelerator is None:
            taken = "the runtime does not tell how many operators ran on it"
        message = f"{outcome.cell.name}: not fully delegated to {covered.actual}: {taken}"
        stderr.print(f"edgekit: error: {message}", markup=False)
    return found


def _say_what_next(view: "CampaignView", *, complete: bool) -> None:
    from edgekit.cli.output import stderr

    if complete:
        stderr.print(f"Next: edgekit report --runs {view.session} -o report.html", markup=False)
    elif any(outcome.measurement for outcome in view.outcomes):
        command = shlex.join(["edgekit", *(word for word in sys.argv[1:] if word != "--resume"), "--resume"])
        stderr.print(f"What was measured is kept. For the rest:\n  {command}", markup=False)
    elif not view.outcomes:
        stderr.print("Interrupted before anything was measured.", markup=False)

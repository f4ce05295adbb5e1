"""`edgekit compare`: A beside B."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from edgekit.devices.campaign import Plan
    from edgekit.results import Run


def run_compare(
    a: Annotated[str, typer.Argument(metavar="A", help="The baseline: a run, a label, or a bundle.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The candidate: of the same kind.")],
    fail_on: Annotated[
        list[str] | None,
        typer.Option(
            help="Limits of the change from A to B, such as p50>5%,size>2%,accuracy<-0.2 (points). Metrics: p50, p90, "
            "p99, mean, throughput, cold-start, load, first-inference, memory, size, accuracy."
        ),
    ] = None,
    markdown: Annotated[Path | None, typer.Option(help="Also write Markdown, for a pull request.")] = None,
    junit: Annotated[Path | None, typer.Option(help="Also write JUnit XML, for a CI server.")] = None,
    device: Annotated[str, typer.Option(help="Where two bundles are run, as for bench.")] = "local",
    accelerator: Annotated[str, typer.Option(help="What two bundles are run on.")] = "cpu",
    num_threads: Annotated[int, typer.Option(min=1, help="Threads of the runtime.")] = 1,
    num_runs: Annotated[int, typer.Option(min=1, help="Inferences of each bundle, at least.")] = 50,
    min_secs: Annotated[float, typer.Option(min=0, help="Seconds of measuring each, at least.")] = 1.0,
    rounds: Annotated[int, typer.Option(min=2, help="Turns of each bundle, A B A B ….")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare two runs, labels or bundles: the ratio of medians with its interval, size, accuracy.

    Runs and labels are those of `edgekit runs`; of two labels the runs that are alike in bundle, device, accelerator
    and threads are paired. Two bundles are run now, in turns, so that a drift of the device hits both. A limit fails,
    with exit code 1, where a median changed by more and its 95 % interval leaves no doubt that it changed, and where
    it can't be checked; wrong outputs in B fail every comparison with limits.

    Examples:

        edgekit compare 1f3a 9c0d

        edgekit compare main pr-12 --fail-on "p50>5%,size>2%,accuracy<-0.2" --markdown change.md --junit change.xml

        edgekit compare bundles/a.tflite-none.edgekit bundles/a.tflite-int8.edgekit --device ssh:pi@raspberrypi
    """
    from edgekit.bundle import MANIFEST
    from edgekit.cli.measuring import plan_cells, show_comparisons
    from edgekit.cli.output import print_json, split_list
    from edgekit.devices.campaign import Plan
    from edgekit.errors import EdgekitError, RefusedError
    from edgekit.measurement import Settings
    from edgekit.outputs import write_text
    from edgekit.report.comparison import compare_runs, parse_limit
    from edgekit.report.comparison_view import comparisons_junit, comparisons_markdown

    try:
        limits = [parse_limit(text) for text in split_list(fail_on or [])]
    except EdgekitError as error:
        raise typer.BadParameter(str(error), param_hint="--fail-on") from error
    are_bundles = [(Path(name) / MANIFEST).is_file() for name in (a, b)]
    if any(are_bundles) and not all(are_bundles):
        raise RefusedError(f"{a} and {b}: one is a bundle and one is not: compare two bundles, or two runs or labels")
    if all(are_bundles):
        settings = Settings(num_threads=num_threads, num_runs=num_runs, min_secs=min_secs, rounds=rounds)
        cells = plan_cells([Path(a), Path(b)], [device], [accelerator])
        pairs = [_measure(Plan(cells=cells, settings=settings, interleave=True))]
    else:
        pairs = _kept(a, b)
    comparisons = [compare_runs(first, second, limits) for first, second in pairs]
    for path, write in ((markdown, comparisons_markdown), (junit, comparisons_junit)):
        if path:
            write_text(path, write(comparisons))
    if as_json:
        print_json([comparison.model_dump(mode="json") for comparison in comparisons])
    else:
        show_comparisons(comparisons)
    raise typer.Exit(0 if all(check.passed for comparison in comparisons for check in comparison.checks) else 1)


def _measure(plan: "Plan") -> "tuple[Run, Run]":
    """Run two bundles in turns and keep both; raises RunnerError where one could not be measured."""
    from edgekit.cli.measuring import CampaignView
    from edgekit.devices.campaign import run_campaign
    from edgekit.errors import RunnerError
    from edgekit.results import Results, Run

    if len(plan.cells) != 2:
        raise typer.BadParameter("A and B are the same bundle", param_hint="B")
    view = CampaignView(len(plan.cells))
    try:
        with Results() as results, view.progress():
            run_campaign(plan, results, view)
    except KeyboardInterrupt as interrupt:
        raise typer.Exit(130) from interrupt
    made = [outcome.measurement for outcome in view.outcomes if outcome.measurement]
    failed = [outcome.error for outcome in view.outcomes if outcome.error]
    if failed or len(made) != 2:
        raise RunnerError(f"nothing to compare: {'; '.join(dict.fromkeys(failed))}")
    return Run(measurement=made[0], session=view.session), Run(measurement=made[1], session=view.session)


def _kept(a: str, b: str) -> "list[tuple[Run, Run]]":
    """The runs that A and B name, paired; raises ResultsError where nothing pairs."""
    from edgekit.cli.output import stderr
    from edgekit.errors import ResultsError
    from edgekit.report.comparison import pair_runs
    from edgekit.report.selection import runs_by_name
    from edgekit.results import Results

    with Results() as results:
        pairs, alone = pair_runs(runs_by_name(results, [a]), runs_by_name(results, [b]))
    for remark in alone:
        stderr.print(f"edgekit: warning: {remark}", markup=False)
    if not pairs:
        raise ResultsError(f"no run of {a} is alike one of {b} in bundle, device, accelerator and threads")
    return pairs

"""`edgekit bench`: measure bundles on devices."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from edgekit.cli.advising import Advice
    from edgekit.cli.measuring import CampaignView
    from edgekit.devices.campaign import Outcome, Plan
    from edgekit.report.comparison import Comparison

MANY_TURNS = "--interleave takes turns: give two bundles or accelerators at least"


def run_bench(
    bundles: Annotated[
        list[Path] | None, typer.Argument(help="Bundles; without any, all in bundles/.", show_default=False)
    ] = None,
    device: Annotated[
        list[str] | None,
        typer.Option(help="local, ssh:user@host[:port], adb:SERIAL, or a name of devices.toml.", show_default="local"),
    ] = None,
    accelerator: Annotated[
        list[str] | None, typer.Option(help="cpu, gpu, nnapi, npu, edgetpu, coreml.", show_default="cpu")
    ] = None,
    use_gpu: Annotated[bool, typer.Option("--use-gpu", help="The same as --accelerator gpu.")] = False,
    use_nnapi: Annotated[bool, typer.Option("--use-nnapi", help="The same as --accelerator nnapi.")] = False,
    num_threads: Annotated[int, typer.Option(min=1, help="Threads of the runtime.")] = 1,
    num_runs: Annotated[int, typer.Option(min=1, help="Inferences, at least.")] = 50,
    warmup_runs: Annotated[int, typer.Option(min=0, help="Inferences before, at least; on until it is stable.")] = 1,
    min_secs: Annotated[float, typer.Option(min=0, help="Seconds of measuring, at least.")] = 1.0,
    max_secs: Annotated[float, typer.Option(min=0.001, help="Seconds of measuring, at most.")] = 150.0,
    cold_starts: Annotated[int, typer.Option(min=0, help="Fresh processes to time from start to first answer.")] = 3,
    real_lengths: Annotated[
        bool, typer.Option(help="Feed real texts through the signature they belong to; else the first signature only.")
    ] = True,
    context_length: Annotated[
        list[str] | None,
        typer.Option(help="Of models that write: tokens of the prompt.", show_default="16,64,256,1024, as they fit"),
    ] = None,
    op_profile: Annotated[bool, typer.Option("--op-profile", help="Also the time of each operator.")] = False,
    energy: Annotated[bool, typer.Option("--energy", help="Also energy, where the device can tell.")] = False,
    pin_cores: Annotated[list[str] | None, typer.Option(help="Cores to stay on: 0,2-3.")] = None,
    sustained: Annotated[str, typer.Option(help="Go on for so long (10m) and keep the curve of latency.")] = "0",
    cooldown: Annotated[str, typer.Option(help="Wait so long (60s) before each measurement.")] = "0",
    interleave: Annotated[
        bool, typer.Option("--interleave", help="Run in turns, A B A B …, and print ratios.")
    ] = False,
    compute_units: Annotated[
        str, typer.Option(help="What --accelerator coreml may use: cpu, cpu+gpu, cpu+ane, all (on a Mac).")
    ] = "all",
    rounds: Annotated[int, typer.Option(min=2, help="Turns of each, with --interleave.")] = 5,
    runtime: Annotated[
        str | None,
        typer.Option(help="litert, litert-compiled, onnxruntime-qnn, …; else the device's first that fits."),
    ] = None,
    xnnpack: Annotated[
        bool, typer.Option("--xnnpack/--no-xnnpack", help="TFLite files on the CPU: XNNPACK, or TFLite's own kernels.")
    ] = True,
    delegate: Annotated[
        str, typer.Option(help="Library of an external TFLite delegate on the device: PATH[:key=value,…].")
    ] = "",
    openvino_device: Annotated[
        str, typer.Option(help="What OpenVINO compiles for with --accelerator npu: NPU, GPU, CPU.")
    ] = "NPU",
    benchmark_model: Annotated[
        str | None, typer.Option(help="Google's benchmark_model for a phone without Python: a path or https address.")
    ] = None,
    beside_cpu: Annotated[
        bool, typer.Option(help="Measure each file that runs on an accelerator on the CPU as well, in the same run.")
    ] = True,
    require_full_delegation: Annotated[
        bool, typer.Option("--require-full-delegation", help="Fail unless the accelerator took every operator.")
    ] = False,
    allow_fallback: Annotated[
        bool, typer.Option("--allow-fallback", help="Do not fail where the accelerator was not used.")
    ] = False,
    advise: Annotated[
        bool,
        typer.Option("--advise", help="Where it loses, falls back or is wrong: export what may help, and measure it."),
    ] = False,
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
    from edgekit.bundle import find_bundles
    from edgekit.cli.advising import advise as make_advice
    from edgekit.cli.advising import show_advice
    from edgekit.cli.measuring import (
        parse_cores,
        parse_duration,
        parse_lengths,
        parse_openvino,
        parse_units,
        plan_cells,
        show_comparisons,
        show_outcomes,
    )
    from edgekit.cli.output import print_json, split_list
    from edgekit.devices.benchmark_model import open_benchmark_tool
    from edgekit.devices.campaign import Plan
    from edgekit.measurement import Settings

    aliases = [name for name, wanted in (("gpu", use_gpu), ("nnapi", use_nnapi)) if wanted]
    plan = Plan(
        cells=plan_cells(
            bundles or find_bundles(Path("bundles")),
            split_list(device or ["local"]),
            [*split_list(accelerator or []), *aliases] or ["cpu"],
            beside_cpu=beside_cpu,
        ),
        settings=Settings(
            num_threads=num_threads,
            num_runs=num_runs,
            min_secs=min_secs,
            max_secs=max(max_secs, min_secs),
            warmup_runs=warmup_runs,
            cold_starts=cold_starts,
            pin_cores=parse_cores(pin_cores or [], "--pin-cores"),
            sustained_secs=parse_duration(sustained, "--sustained"),
            cooldown_secs=parse_duration(cooldown, "--cooldown"),
            op_profile=op_profile,
            real_lengths=real_lengths,
            context_lengths=parse_lengths(context_length or [], "--context-length"),
            energy=energy,
            compute_units=parse_units(compute_units),
            xnnpack=xnnpack,
            delegate=delegate,
            openvino_device=parse_openvino(openvino_device),
            rounds=rounds if interleave else 1,
        ),
        interleave=interleave,
        runtime=runtime,
        benchmark_tool=open_benchmark_tool(benchmark_model) if benchmark_model else None,
    )
    if interleave and len(plan.cells) < 2 * len({cell.device for cell in plan.cells}):
        raise typer.BadParameter(MANY_TURNS, param_hint="--interleave")
    view, interrupted = _run(plan, resume=resume, label=label)
    comparisons = _ratios(view.outcomes) if interleave else []
    if not as_json:
        show_outcomes(view.outcomes)
        show_comparisons(comparisons)
    advice = make_advice(plan, view.outcomes, label=label) if advise and not interrupted else None
    if as_json:
        print_json(_as_json(view.session, view.outcomes, comparisons, advice))
    elif advice:
        show_advice(advice)
    bad = {"wrong-output"} if allow_fallback else {"wrong-output", "fell-back"}
    wrong = any(outcome.measurement and outcome.measurement.verdict in bad for outcome in view.outcomes)
    undelegated = require_full_delegation and _complain_of_delegation(view.outcomes)
    asked = [outcome for outcome in view.outcomes if not outcome.cell.beside]
    complete = len(asked) == sum(not cell.beside for cell in plan.cells) and all(each.complete for each in asked)
    _say_what_next(view, complete=complete)
    raise typer.Exit(130 if interrupted else 1 if wrong or undelegated or not complete else 0)


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

"""`edgekit report`: what was measured, for people."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgekit.cli.sweeps import EvalSamplesOption, TargetOption

if TYPE_CHECKING:
    from edgekit.bundle import Bundle
    from edgekit.report.build import Format
    from edgekit.report.document import DevicesPart, Report

_PARTS = ("quantization", "devices")


def run_report(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[CHECKPOINT|BUNDLES]...",
            help="Bundles, or a checkpoint and its bundles in bundles/; without any, all in bundles/.",
            show_default=False,
        ),
    ] = None,
    runs: Annotated[
        list[str] | None,
        typer.Option(help="Runs, sessions or labels of `edgekit runs` instead; last: the last session; all."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write a file: .html, .md or .json chooses the format.")
    ] = None,
    form: Annotated[str | None, typer.Option("--format", help="json, markdown or html, on stdout or in -o.")] = None,
    only: Annotated[str | None, typer.Option(help="One part alone: quantization or devices.")] = None,
    latency: Annotated[
        bool, typer.Option("--latency/--no-latency", help="Measure latency and time by operator on this host, now.")
    ] = True,
    target: TargetOption = "tflite",
    quantize: Annotated[
        list[str] | None,
        typer.Option(help="Schemes to measure by module, with a CHECKPOINT; else int8 and int4-weight."),
    ] = None,
    eval_samples: EvalSamplesOption = "500",
    title: Annotated[str, typer.Option(help="The heading.")] = "edgekit report",
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of --format json and exit.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Show what was measured: in the terminal, or as Markdown, JSON, or one HTML page that needs nothing else.

    Quantization: bundles beside each other on the same texts, run now on this host: size, accuracy with its change,
    labels changed, latency, what to ship, and why a file is not faster. With a checkpoint also its modules: what
    quantizing each costs (as `edgekit sensitivity`, whose work is kept), ranges, outliers, and why.

    Devices: for each bundle the newest run on each device and accelerator: latency with intervals, cold and warm,
    coverage, verdict with its evidence, conditions, thermal curve. Every number is in the JSON, beside its raw samples.

    Examples:

        edgekit report

        edgekit report -o report.html

        edgekit report checkpoints/mine --target tflite --quantize int8,int4-weight -o report.html

        edgekit report --runs last,nightly --format markdown
    """
    from edgekit.cli.output import print_section
    from edgekit.report.build import report_sections
    from edgekit.report.document import report_schema_text

    if schema:
        typer.echo(report_schema_text(), nl=False)
        return
    chosen = _format(output, "json" if as_json else form)
    report = _build(
        paths or [],
        runs or [],
        title,
        only=only,
        latency=latency,
        target=target,
        quantize=quantize or [],
        eval_samples=eval_samples,
    )
    if chosen is None:
        for section in report_sections(report):
            print_section(section)
    else:
        _write(report, chosen, output)


def _format(output: Path | None, named: str | None) -> "Format | None":
    """The format that was asked for by name or by suffix; None: tables in the terminal."""
    from edgekit.errors import UnknownNameError
    from edgekit.report.build import FORMATS, SUFFIXES

    if named is not None:
        if named not in FORMATS:
            raise UnknownNameError("format", named, FORMATS)
        return next(known for known in FORMATS if known == named)
    if output is None:
        return None
    if output.suffix.lower() not in SUFFIXES:
        known = ", ".join(SUFFIXES)
        raise typer.BadParameter(f"{output} tells no format: end it in {known}, or give --format", param_hint="-o")
    return SUFFIXES[output.suffix.lower()]


def _build(paths: list[Path], runs: list[str], title: str, *, only: str | None, **options: Any) -> "Report":
    from edgekit.cli.diagnosis import choose_paths, diagnose
    from edgekit.cli.output import split_list
    from edgekit.report.build import build_report
    from edgekit.report.devices import devices_part
    from edgekit.report.selection import runs_by_name
    from edgekit.results import Results

    if only not in (None, *_PARTS):
        raise typer.BadParameter(f"{only!r} is no part of a report: choose of {', '.join(_PARTS)}", param_hint="--only")
    if runs and (paths or only == "quantization"):
        raise typer.BadParameter("give bundles or --runs, not both", param_hint="--runs")
    if runs:
        with Results() as results:
            return build_report(title=title, devices=devices_part(runs_by_name(results, split_list(runs))))
    checkpoint, bundles = choose_paths(paths)
    devices, unmeasured = (None, "") if only == "quantization" else _devices(bundles, required=only == "devices")
    if only == "devices":
        return build_report(title=title, devices=devices)
    quantization = diagnose(checkpoint, bundles, remarks=[unmeasured] if unmeasured else [], **options)
    return build_report(title=title, devices=devices, quantization=quantization)


def _devices(bundles: "list[Bundle]", *, required: bool) -> "tuple[DevicesPart | None, str]":
    """The part about devices, or why there is none."""
    from edgekit.errors import ResultsError
    from edgekit.report.devices import devices_part
    from edgekit.report.selection import runs_of_bundles
    from edgekit.results import Results

    if not bundles and not required:
        return None, ""
    with Results() as results:
        try:
            found, remarks = runs_of_bundles(results, bundles)
        except ResultsError as error:
            if required:
                raise
            return None, f"No run on a device is kept: {error}"
    return devices_part(found, remarks=remarks), ""


def _write(report: "Report", form: "Format", output: Path | None) -> None:
    from edgekit.cli.output import stderr
    from edgekit.outputs import write_text
    from edgekit.report.build import render_report

    text = render_report(report, form)
    if output is None:
        typer.echo(text, nl=False)
        return
    write_text(output, text)
    stderr.print(f"Written to {output}.", markup=False)

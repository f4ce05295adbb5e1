"""`edgekit report`: what was measured, for people."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from edgekit.report.build import Format
    from edgekit.report.document import Report


def run_report(
    bundles: Annotated[
        list[Path] | None, typer.Argument(help="Bundles; without any, all in bundles/.", show_default=False)
    ] = None,
    runs: Annotated[
        list[str] | None,
        typer.Option(help="Runs, sessions or labels of `edgekit runs` instead; last: the last session; all."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write a file: .html, .md or .json chooses the format.")
    ] = None,
    form: Annotated[str | None, typer.Option("--format", help="json, markdown or html, on stdout or in -o.")] = None,
    title: Annotated[str, typer.Option(help="The heading.")] = "edgekit report",
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of --format json and exit.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Show what was measured: in the terminal, or as Markdown, JSON, or one HTML page that needs nothing else.

    For each bundle the newest run on each device and accelerator: latency with intervals, cold and warm, coverage,
    verdict with its evidence, conditions, thermal curve. Every number is in the JSON, beside its raw samples.

    Examples:

        edgekit report

        edgekit report -o report.html

        edgekit report --runs last,nightly --format markdown
    """
    from edgekit.cli.output import print_section
    from edgekit.report.build import report_sections
    from edgekit.report.document import report_schema_text

    if schema:
        typer.echo(report_schema_text(), nl=False)
        return
    chosen = _format(output, "json" if as_json else form)
    report = _build(bundles or [], runs or [], title)
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


def _build(bundles: list[Path], runs: list[str], title: str) -> "Report":
    from edgekit.bundle import find_bundles, open_bundle
    from edgekit.cli.output import split_list
    from edgekit.report.build import build_report
    from edgekit.report.devices import devices_part
    from edgekit.report.selection import runs_by_name, runs_of_bundles
    from edgekit.results import Results

    if bundles and runs:
        raise typer.BadParameter("give bundles or --runs, not both", param_hint="--runs")
    with Results() as results:
        if runs:
            return build_report(title=title, devices=devices_part(runs_by_name(results, split_list(runs))))
        found, remarks = runs_of_bundles(results, [open_bundle(p) for p in bundles or find_bundles(Path("bundles"))])
    return build_report(title=title, devices=devices_part(found, remarks=remarks))


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

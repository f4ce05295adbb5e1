"""`edgekit runs`: what was measured."""

from pathlib import Path
from typing import Annotated

import typer

run_runs = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@run_runs.callback()
def list_runs(
    context: typer.Context,
    bundle: Annotated[list[str] | None, typer.Option(help="Only these bundles, by name.")] = None,
    device: Annotated[list[str] | None, typer.Option(help="Only these devices, by address.")] = None,
    accelerator: Annotated[list[str] | None, typer.Option(help="Only these accelerators.")] = None,
    verdict: Annotated[list[str] | None, typer.Option(help="Only these verdicts.")] = None,
    label: Annotated[list[str] | None, typer.Option(help="Only these labels.")] = None,
    session: Annotated[list[str] | None, typer.Option(help="Only these sessions: one is one `edgekit bench`.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="The newest so many.")] = 30,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, without the raw samples.")] = False,
) -> None:
    """List what was measured, the newest first.

    Every run has its raw samples: `edgekit runs samples ID` gives them, `edgekit runs show ID` tells all about one. An
    id may be shortened. They are in a database of yours, or where EDGEKIT_DB says: a path, or postgresql://…

    Examples:

        edgekit runs --device local --verdict valid

        edgekit runs show 1f3a

        edgekit runs samples 1f3a -o samples.csv
    """
    if context.invoked_subcommand is not None:
        return
    from edgekit.cli.output import print_json, print_sortable, split_list
    from edgekit.report.devices import report_run
    from edgekit.report.devices_tables import runs_table
    from edgekit.results import Results

    def only(values: list[str] | None) -> list[str] | None:
        return split_list(values) if values else None

    with Results() as results:
        found = results.find(
            limit=limit,
            bundle=only(bundle),
            device=only(device),
            accelerator=only(accelerator),
            verdict=only(verdict),
            label=only(label),
            session=only(session),
        )
        place = results.name
    reported = [report_run(run) for run in found]
    if as_json:
        without = {"measurement": {"samples": True, "operators": True}}
        print_json([run.model_dump(mode="json", exclude=without) for run in reported])
    elif reported:
        print_sortable(runs_table(tuple(reported)))
    else:
        typer.echo(f"No such run is in {place}: `edgekit bench` measures, `edgekit runs` lists all.")


@run_runs.command("show")
def show_run(
    run_id: Annotated[str, typer.Argument(metavar="ID", help="A run, as `edgekit runs` lists it.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole measurement as JSON.")] = False,
) -> None:
    """Tell everything about one run: numbers, verdict and evidence, coverage, conditions, settings, hashes.

    Example: edgekit runs show 1f3a
    """
    from edgekit.cli.output import print_json, print_section
    from edgekit.report.devices import report_run
    from edgekit.report.devices_view import run_section
    from edgekit.results import Results

    with Results() as results:
        run = results.get(run_id)
    if as_json:
        print_json(run.measurement.model_dump(mode="json"))
    else:
        print_section(run_section(report_run(run)))


@run_runs.command("samples")
def export_samples(
    run_id: Annotated[str, typer.Argument(metavar="ID", help="A run, as `edgekit runs` lists it.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A file: .csv or .json.")] = None,
) -> None:
    """Export the raw samples of one run, unrounded: CSV with a line for each sample, or JSON.

    Example: edgekit runs samples 1f3a -o samples.csv
    """
    from edgekit.outputs import write_text
    from edgekit.report.samples import samples_csv
    from edgekit.results import Results

    if output and output.suffix not in (".csv", ".json"):
        raise typer.BadParameter(f"{output} ends neither in .csv nor in .json", param_hint="-o")
    with Results() as results:
        samples = results.get(run_id).measurement.samples
    text = samples.model_dump_json(indent=1) + "\n" if output and output.suffix == ".json" else samples_csv(samples)
    if output is None:
        typer.echo(text, nl=False)
        return
    write_text(output, text)


@run_runs.command("import")
def import_runs(
    files: Annotated[list[Path], typer.Argument(help="Measurements as JSON, from `runs show --json` or a full disk.")],
    label: Annotated[str, typer.Option(help="A name to find these runs by later.")] = "",
) -> None:
    """Keep measurements that were written as JSON: on a bench host, or where the disk was full.

    Example: edgekit runs import edgekit-run-1f3a5b7c.json
    """
    from pydantic import ValidationError

    from edgekit.errors import DataError
    from edgekit.measurement import Measurement
    from edgekit.results import Results

    with Results() as results:
        for file in files:
            try:
                measurement = Measurement.model_validate_json(file.read_bytes())
            except OSError as error:
                raise DataError(f"{file} can't be read: {error.strerror}") from error
            except ValidationError as error:
                first = error.errors()[0]
                where = ".".join(str(part) for part in first["loc"])
                raise DataError(
                    f"{file} holds no measurement: {where + ': ' if where else ''}{first['msg']}"
                ) from error
            typer.echo(f"{file}: kept as {results.add(measurement, label=label).id}")

"""`edgekit schemes`: the table of scheme × target."""

from typing import Annotated, Any

import typer


def run_schemes(
    rewrites: Annotated[bool, typer.Option("--rewrites", help="List what export --rewrite offers instead.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the quantization schemes: what each becomes in each target, or why it is not offered.

    A scheme that a target can't do is refused by name and never replaced by another.

    Examples:

        edgekit schemes

        edgekit schemes --rewrites

        edgekit schemes --json
    """
    if rewrites:
        _show_rewrites(as_json=as_json)
        return
    from edgekit.cli.output import print_json, print_table
    from edgekit.export.schemes import ALIASES, CALIBRATED, SCHEMES, TOLERANCES, reason, refusal
    from edgekit.export.targets import TARGETS

    rows: list[dict[str, Any]] = [
        {
            "scheme": scheme,
            "aliases": [alias for alias, meant in ALIASES.items() if meant == scheme],
            "calibrated": scheme in CALIBRATED,
            "tolerance": vars(TOLERANCES[scheme]),
            "targets": {
                target: {"offered": False, "reason": reason(scheme, target)}
                if refusal(scheme, target)
                else {"offered": True, "becomes": SCHEMES[scheme][target]}
                for target in TARGETS
            },
        }
        for scheme in SCHEMES
    ]
    if as_json:
        print_json(rows)
        return
    devices = [name for name, target in TARGETS.items() if not target.reference]
    table = [[_name(row), *(_cell(row["targets"][target]) for target in devices)] for row in rows]
    print_table(["scheme (aliases)", *devices], table)
    servers = ", ".join(name for name, target in TARGETS.items() if target.reference)
    typer.echo(f"{servers}: none only, they are float32 references for servers.")
    typer.echo(
        f"{', '.join(sorted(CALIBRATED))}: calibrated with texts of the training data, or --calibration-data FILE."
    )


def _show_rewrites(*, as_json: bool) -> None:
    from edgekit.cli.output import print_json, print_table
    from edgekit.model.rewrites import BUILT_IN, REWRITES

    if as_json:
        rows = {name: vars(rewrite) | {"built_in": False} for name, rewrite in REWRITES.items()}
        print_json(rows | {name: {"becomes": becomes, "built_in": True} for name, becomes in BUILT_IN.items()})
        return
    print_table(
        ["rewrite", "what becomes of the model", "what it helps", "adds to the relative tolerance"],
        [[name, rewrite.becomes, rewrite.helps, f"{rewrite.adds_tolerance:g}"] for name, rewrite in REWRITES.items()],
    )
    for name, becomes in BUILT_IN.items():
        typer.echo(f"{name}: always so, {becomes}.")
    typer.echo("Each keeps the weights and the answers: parity is measured against the model as it was trained.")


def _name(row: dict[str, Any]) -> str:
    return f"{row['scheme']} ({', '.join(row['aliases'])})" if row["aliases"] else str(row["scheme"])


def _cell(cell: dict[str, Any]) -> str:
    return str(cell["becomes"]) if cell["offered"] else f"not offered: {cell['reason']}"

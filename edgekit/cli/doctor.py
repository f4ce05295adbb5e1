"""`edgekit doctor`: what this machine has, and how to get what it lacks."""

from typing import Annotated

import typer


def run_doctor(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List what is installed here, what is missing, and how to get it.

    Libraries come with extras of edgekit-toolkit; processor features tell which quantized kernels run fast here; tools
    reach devices. Nothing missing is an error: each only limits what edgekit can do on this machine.

    Example:

        edgekit doctor
    """
    from dataclasses import asdict

    from edgekit.cli.output import print_json, print_table
    from edgekit.host import run_checks

    checks = run_checks()
    if as_json:
        print_json([asdict(check) for check in checks])
        return
    print_table(
        ["", "name", "found", "for", "to get it"],
        [[c.group, c.name, c.found or "missing", c.purpose, c.fix] for c in checks],
    )

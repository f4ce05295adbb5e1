"""`edgekit lint`: what in a file keeps an accelerator from running it, by published rules."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from edgekit.export.lint_coreml import Finding


def run_lint(
    path: Annotated[Path, typer.Argument(help="A bundle, or an .mlpackage.")],
    accelerator: Annotated[str, typer.Option("--for", help="The accelerator it is to run on: coreml.")],
    strict: Annotated[bool, typer.Option("--strict", help="Exit code 1 where anything falls back.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what in a file keeps an accelerator from running it, or running it fast, and why.

    `--for coreml` reads a Core ML package by the rules that Apple and others published for the Neural Engine, each with
    its source. The file is read, never run: what really runs where is measured on the device.

    Examples:

        edgekit lint bundles/language-id.coreml-fp16.edgekit --for coreml

        edgekit lint somebody-elses.mlpackage --for coreml --json
    """
    from edgekit.cli.output import print_json, stderr
    from edgekit.export.lint_coreml import lint_mlpackage
    from edgekit.extras import skip_frameworks

    _check_accelerator(accelerator)
    package = _package(path)
    skip_frameworks()
    findings = lint_mlpackage(package)
    back = sum(finding.effect == "falls back" for finding in findings)
    if as_json:
        print_json({"file": str(package), "findings": [finding.model_dump(mode="json") for finding in findings]})
    else:
        _show(findings)
        stderr.print(f"{len(findings)} findings, {back} of them where the Neural Engine is said to leave the work.")
    raise typer.Exit(code=1 if strict and back else 0)


def _check_accelerator(name: str) -> None:
    from edgekit.errors import RefusedError, UnknownNameError
    from edgekit.measurement import ACCELERATORS

    if name not in ACCELERATORS:
        raise UnknownNameError("accelerator", name, ACCELERATORS)
    if name != "coreml":
        raise RefusedError(f"lint --for {name} is not offered yet: there are rules for coreml only")


def _package(path: Path) -> Path:
    """The package to read: of a bundle its model."""
    from edgekit.bundle import MANIFEST, open_bundle
    from edgekit.errors import RefusedError

    if (path / MANIFEST).is_file():
        bundle = open_bundle(path)
        if bundle.manifest.target != "coreml":
            raise RefusedError(f"{path} is a {bundle.manifest.target} bundle: --for coreml reads Core ML packages")
        return bundle.model_path
    if path.suffix != ".mlpackage":
        raise RefusedError(f"{path} is neither a bundle nor an .mlpackage, which --for coreml reads")
    return path


def _show(findings: "list[Finding]") -> None:
    from edgekit.cli.output import print_table

    sources = list(dict.fromkeys(finding.source for finding in findings))
    rows = []
    for finding in findings:
        places = ", ".join(finding.where) + (", …" if finding.count > len(finding.where) else "")
        what = f"{finding.count} × {finding.operation} in {finding.function}: {places}"
        source = f"[{sources.index(finding.source) + 1}]"
        rows.append([finding.rule, finding.effect, what, f"{finding.why} {source}", finding.advice])
    print_table(["rule", "effect", "where", "why", "what to do"], rows)
    for number, source in enumerate(sources, start=1):
        typer.echo(f"[{number}] {source}")

"""`edgekit lint`: what in a file keeps an accelerator from running it, before there is any hardware."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from edgekit.export.lint.findings import Finding, LintReport

_FOR = "The accelerator: gpu, nnapi, qnn (or qnn:SM8550, …), coreml, ethos-u (or ethos-u55-128, …)."


def run_lint(
    paths: Annotated[list[Path], typer.Argument(help="Bundles, or .tflite, .onnx or .mlpackage files.")],
    accelerator: Annotated[str, typer.Option("--for", help=_FOR)],
    timeout: Annotated[float, typer.Option(min=1, help="Time limit of one compiler, in seconds.")] = 600,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit code 1 where anything falls back, is refused or would be wrong.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what in a file keeps an accelerator from running it, or running it fast, and why.

    Asked is whoever decides: for qnn and ethos-u their compilers, for gpu LiteRT's own accelerator where there is a
    Vulkan driver (else the published list), for nnapi onnxruntime's usability checker and the operators that TFLite's
    delegate maps, for coreml the rules that Apple and others published. Each finding names its source and the change
    that would help. Nothing is measured: edgekit bench does that, on the device.

    Examples:

        edgekit lint bundles/language-id.tflite-none.edgekit --for gpu

        edgekit lint bundles/language-id.tflite-int8.edgekit --for qnn:SM8550

        edgekit lint bundles/*.tflite-*.edgekit --for ethos-u --strict

        edgekit lint bundles/language-id.onnx-none.edgekit --for nnapi --json

        edgekit lint somebody-elses.mlpackage --for coreml
    """
    from edgekit.cli.output import print_json
    from edgekit.export.lint.run import check_accelerator, file_to_lint, lint_file
    from edgekit.extras import skip_frameworks

    check_accelerator(accelerator)
    files = [file_to_lint(path, accelerator) for path in paths]
    if accelerator == "coreml":
        skip_frameworks()
    reports = [lint_file(file, accelerator, timeout_s=timeout) for file in files]
    if as_json:
        answers = [report.model_dump(mode="json") for report in reports]
        print_json(answers[0] if len(answers) == 1 else answers)
    else:
        for path, report in zip(paths, reports, strict=True):
            _show(path, report)
    raise typer.Exit(code=1 if strict and any(report.held_back for report in reports) else 0)


def _show(path: Path, report: "LintReport") -> None:
    from edgekit.cli.output import counted, print_table, stderr

    sources = list(dict.fromkeys(finding.source for finding in report.findings))
    rows = [
        [f.rule, f.effect, _place(f), f"{f.why} [{sources.index(f.source) + 1}]", f.advice] for f in report.findings
    ]
    if rows:
        print_table(["rule", "effect", "where", "why", "what to do"], rows, title=str(path))
    for number, source in enumerate(sources, start=1):
        typer.echo(f"[{number}] {source}")
    taken = "" if report.operators_taken is None else f"{_taken(report)}; "
    back = sum(finding.effect != "slower" for finding in report.findings)
    text = f"{path}: {taken}{counted(len(rows), 'finding')}, {back} of them more than slower. Asked: {report.judge}."
    stderr.print(text, markup=False)


def _taken(report: "LintReport") -> str:
    from edgekit.cli.output import counted

    parts = "" if report.partitions is None else f" in {counted(report.partitions, 'partition')}"
    return f"{report.accelerator} would take {report.operators_taken} of {report.operators or '?'} operators{parts}"


def _place(finding: "Finding") -> str:
    from edgekit.cli.output import shorten

    places = ", ".join(shorten(name) for name in finding.where)
    more = ", …" if finding.count > len(finding.where) > 0 else ""
    function = "" if finding.function == "main" else f" in {finding.function}"
    return f"{finding.count} × {finding.operation}{function}{': ' if places else ''}{places}{more}"

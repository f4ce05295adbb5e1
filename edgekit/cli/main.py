"""The `edgekit` command: finds the verb, turns errors into one line and an exit code.

Verbs are imported when they are used: `edgekit --help` loads none of them, and no framework.
"""

import importlib
import sys
from typing import Any

import typer
import typer.core
import typer.main

from edgekit import __version__
from edgekit.errors import EdgekitError

#: verb → its line in `edgekit --help`; each is run_VERB in edgekit/cli/VERB.py, a function or a Typer app
VERBS = {
    "train": "Train a compact Transformer, in PyTorch or TensorFlow.",
    "export": "Convert a checkpoint to TFLite, ONNX and Core ML, and prove each file.",
    "predict": "Label texts with a checkpoint or an exported bundle.",
    "generate": "Write what follows a text with a model that writes, token by token.",
    "translate": "Translate texts with a model that translates, token by token.",
    "verify": "Repeat the proof of a bundle: every byte, parity and accuracy.",
    "inspect": "Show signatures, operators, sizes and where the bytes are.",
    "lint": "Show what in a file keeps an accelerator from running it, or running it fast, and why.",
    "compile": "Compile a bundle for one device's NPU: a bundle of its own, with the compiler's report.",
    "sensitivity": "Measure what quantizing each module costs: each alone, and everything but it.",
    "search": "Find the smallest or fastest mixed recipe within a budget of accuracy.",
    "devices": "List boards and phones and their state; prepare a board.",
    "bench": "Measure bundles on this machine, a board or a phone, and prove their outputs there.",
    "runs": "List what was measured; show, export and import single runs.",
    "compare": "Compare two runs, labels or bundles, with intervals; fail on what got worse.",
    "report": "Show what was measured as tables, Markdown, JSON, or one HTML page.",
    "cache": "Show or clear what earlier exports left for the next ones.",
    "schemes": "List the quantization schemes: what each becomes in each target, or why it is not offered.",
    "models": "List the named sizes: parameters, multiply-accumulates, file size.",
    "doctor": "List what is installed here, what is missing, and how to get it.",
}
EPILOG = (
    "Start with `edgekit export --target tflite`: it exports the embedded model. `edgekit VERB --help` has examples."
)


class LazyVerbs(typer.core.TyperGroup):
    """A command group that knows its verbs by name and imports one only to run it."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]  # Typer's own Context
        """All verbs, in the order of work."""
        return list(VERBS)

    def get_command(self, ctx: typer.Context, cmd_name: str) -> Any:  # type: ignore[override]
        """A stand-in with the verb's line of help; None for an unknown verb."""
        return typer.core.TyperCommand(cmd_name, help=VERBS[cmd_name]) if cmd_name in VERBS else None

    def format_help(self, ctx: typer.Context, formatter: Any) -> None:  # type: ignore[override]
        """Write the help of all verbs."""
        from edgekit.cli.help import load_help

        load_help()
        super().format_help(ctx, formatter)

    def resolve_command(self, ctx: typer.Context, args: list[str]) -> Any:  # type: ignore[override]
        """Find the verb to run; this, and only this, imports it."""
        name, stand_in, rest = super().resolve_command(ctx, args)
        return name, load_verb(name) if name in VERBS else stand_in, rest


def load_verb(name: str) -> Any:
    """Import one verb and build its command: a function, or a Typer app where the verb has verbs of its own."""
    function = getattr(importlib.import_module(f"edgekit.cli.{name}"), f"run_{name}")
    if isinstance(function, typer.Typer):
        return typer.main.get_command(function)
    verb = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    verb.command(name)(function)
    return typer.main.get_command(verb)


app = typer.Typer(
    cls=LazyVerbs,
    name="edgekit",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"edgekit {__version__}")
        raise typer.Exit


@app.callback()
def edgekit(
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    """Take a compact Transformer from training to a phone or a Raspberry Pi, and prove every file on the way."""


def main() -> None:
    """Run the command line and exit: 0 good, 1 edgekit says no, 2 usage, 130 interrupted."""
    try:
        app()
    except EdgekitError as error:
        typer.echo(f"edgekit: error: {' '.join(str(error).split())}", err=True)  # one line, whatever it holds
        sys.exit(1)

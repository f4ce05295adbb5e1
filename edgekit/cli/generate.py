"""`edgekit generate`: what follows a text, token by token."""

from pathlib import Path
from typing import Annotated

import typer

from edgekit.cli import writing
from edgekit.cli.options import grouped


@grouped
def run_generate(
    source: Annotated[Path, typer.Argument(help="Folder of a bundle or of a checkpoint.")],
    texts: Annotated[list[str], typer.Argument(help="Texts to go on from; a lone - reads one from standard input.")],
    *,
    how: writing.WritingOptions,
    on_long_prompt: Annotated[
        str,
        typer.Option(
            help="A text longer than the context: refuse it, or slide, which forgets its oldest tokens but the first."
        ),
    ] = "refuse",
    where: writing.RunOptions,
) -> None:
    """Write what follows a text, with a model that was trained with --task generate, or one of Hugging Face.

    The text appears as it is written; the speed comes last, on stderr. A bundle runs in its own runtime, here or on a
    board or phone, where the loop from token to token runs too; a checkpoint runs in its framework; a model of Hugging
    Face is exported first. By default the likeliest token is taken at each step: --temperature, --top-k and --top-p
    choose by chance, the same for a --seed. What the generation settings of a model of Hugging Face forbid, force or
    penalize is followed; its bundle's README.md names what is not.
    An empty text lets the model begin by itself. A text that fills the context ends there, or --on-long-prompt slide
    forgets the oldest half and goes on. Ctrl-C keeps what was written (exit code 130).

    Examples:

        edgekit generate bundles/mine.tflite-none.edgekit "Save"

        edgekit generate bundles/mine.onnx-int8-dynamic.edgekit "Save" --temperature 0.8 --top-p 0.9 --seed 1

        edgekit generate bundles/mine.tflite-none.edgekit "Save" --device ssh:pi@raspberrypi --json

        cat prompt.txt | edgekit generate checkpoints/mine - --on-long-prompt slide
    """
    settings = how.settings(writing.parse_long_prompt(on_long_prompt))
    writing.write_and_show(source, "generate", writing.read_texts(texts, by_line=False), settings, where)

"""`edgekit translate`: translations, token by token."""

from pathlib import Path
from typing import Annotated

import typer

from edgekit.cli import writing
from edgekit.cli.options import grouped


@grouped
def run_translate(
    source: Annotated[Path, typer.Argument(help="Folder of a bundle or of a checkpoint.")],
    texts: Annotated[
        list[str], typer.Argument(help="Texts to translate; a lone - reads one a line from standard input.")
    ],
    *,
    how: writing.WritingOptions,
    where: writing.RunOptions,
) -> None:
    """Translate texts, with a model that was trained with --task translate, or one of Hugging Face.

    A translation appears as it is written; the speed comes last, on stderr. A bundle runs in its own runtime, here or
    on a board or phone, where the loop from token to token runs too; a checkpoint runs in its framework; a model of
    Hugging Face is exported first. By default the likeliest token is taken at each step; --num-beams looks for the
    likeliest translation as a whole. The generation settings of a model of Hugging Face are followed, their beams too,
    as far as its bundle's README.md does not name what is not. A text that is longer than the model reads is refused.
    Ctrl-C keeps what was written (exit code 130).

    Examples:

        edgekit translate bundles/english-german.tflite-none.edgekit "Delete selected items"

        edgekit translate bundles/english-german.onnx-none.edgekit "Save" "Delete" --num-beams 4

        cat texts.txt | edgekit translate checkpoints/english-german - --json
    """
    writing.write_and_show(source, "translate", writing.read_texts(texts, by_line=True), how.settings(), where)

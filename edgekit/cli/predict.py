"""`edgekit predict`: labels for texts."""

from pathlib import Path
from typing import Annotated

import typer


def run_predict(
    source: Annotated[Path, typer.Argument(help="Folder of a checkpoint or of a bundle.")],
    texts: Annotated[list[str], typer.Argument(help="Texts; a lone - reads one text a line from standard input.")],
    top_k: Annotated[int, typer.Option(min=1, help="How many labels to show for each text.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Label texts with a checkpoint or an exported bundle.

    A checkpoint runs in the framework that trained it, a bundle in its own runtime: a TFLite bundle needs neither
    PyTorch nor TensorFlow. Off a Mac, edgekit evaluates Core ML bundles itself. A bundle of several sequence lengths
    runs each text by the shortest that holds it; a text that none holds is cut, with a warning.

    Examples:

        edgekit predict checkpoints/mine "Datei speichern"

        edgekit predict bundles/language-id.tflite-none.edgekit "Datei speichern" "Enregistrer"

        cat texts.txt | edgekit predict checkpoints/mine - --json
    """
    import sys

    from edgekit.cli.output import print_json, print_table, stderr
    from edgekit.errors import DataError
    from edgekit.predict import count_cut, predict_texts

    if texts == ["-"]:
        try:
            texts = sys.stdin.buffer.read().decode("utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise DataError(
                f"standard input is not UTF-8: byte {error.start} is 0x{error.object[error.start]:02x}"
            ) from error
    if not texts:
        raise DataError("no text to label: standard input was empty")
    predictions = predict_texts(source, texts, top_k=top_k)
    cut, longest = count_cut(source, texts)
    if cut:
        stderr.print(f"edgekit: warning: {cut} of {len(texts)} texts cut to {longest} tokens", markup=False)
    if as_json:
        print_json(
            [
                {"text": text, "labels": [{"label": label, "probability": p} for label, p in prediction]}
                for text, prediction in zip(texts, predictions, strict=True)
            ]
        )
        return
    print_table(
        ["text", *(f"{rank}." for rank in range(1, len(predictions[0]) + 1))],
        [
            [text, *(f"{label} {100 * p:.1f} %" for label, p in prediction)]
            for text, prediction in zip(texts, predictions, strict=True)
        ],
    )

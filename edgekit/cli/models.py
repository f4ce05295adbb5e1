"""`edgekit models`: the named sizes."""

from typing import Annotated

import typer


def run_models(
    task: Annotated[str, typer.Option(help="classify, generate or translate.")] = "classify",
    vocab_size: Annotated[int, typer.Option(min=1, help="Size of the tokenizer's vocabulary.")] = 8192,
    num_labels: Annotated[int, typer.Option(min=2, help="Number of labels (classify).")] = 40,
    sequence_length: Annotated[int, typer.Option(min=1, help="Tokens of one text, for the multiply-accumulates.")] = 64,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the named sizes: parameters, multiply-accumulates, file size, cache.

    Multiply-accumulates are those of the matrix products for one text of --sequence-length tokens; the file size is
    that of the weights as float32, the cache that of the keys and values of so many tokens, as float32.

    Examples:

        edgekit models

        edgekit models --vocab-size 30000 --num-labels 4 --sequence-length 128

        edgekit models --task translate
    """
    from edgekit.cli.output import human_size, print_json, print_table
    from edgekit.errors import UnknownNameError
    from edgekit.model.sizes import size_rows
    from edgekit.program import MODEL_TASKS

    known = next((name for name in MODEL_TASKS if name == task), None)
    if known is None:
        raise UnknownNameError("task", task, MODEL_TASKS)
    rows = size_rows(task=known, vocab_size=vocab_size, num_labels=num_labels, length=sequence_length)
    if as_json:
        print_json(
            [
                {
                    "name": row.name,
                    "parameters": row.parameters,
                    "multiply_accumulates": row.multiply_accumulates,
                    "sequence_length": row.length,
                    "size_bytes": row.weights_size_bytes,
                    "cache_size_bytes": row.cache_size_bytes,
                    "config": row.config.model_dump(),
                }
                for row in rows
            ]
        )
        return
    print_table(
        [
            *("size", "layers", "hidden", "parameters", f"multiply-accumulates ({sequence_length} tokens)"),
            *("float32 file", *(["cache"] if known != "classify" else [])),
        ],
        [
            [
                row.name,
                str(row.config.num_layers),
                str(row.config.hidden_size),
                f"{row.parameters:,}",
                f"{row.multiply_accumulates:,}",
                human_size(row.weights_size_bytes),
                *([human_size(row.cache_size_bytes)] if known != "classify" else []),
            ]
            for row in rows
        ],
    )

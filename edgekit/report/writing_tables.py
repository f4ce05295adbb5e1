"""The table of models that write."""

from edgekit.report.document import ReportedRun
from edgekit.report.numbers import human_size, interval, median_with_interval, significant
from edgekit.report.sections import Cell, Table, text_cell


def writing_tables(runs: tuple[ReportedRun, ...]) -> tuple[Table, ...]:
    """One row for each run and length of the context; no table where nothing writes."""
    rows = tuple(row for run in runs for row in _rows(run))
    if not rows:
        return ()
    timed = ("time to first token (95 %)", "prefill tokens/s", "decode tokens/s (95 %)", "cache")
    headers = ("bundle", "device", "asked for", "threads", "context", *timed, "run")
    note = (
        "Context: tokens of the prompt (to translate: of the source text). Medians; prefill: the prompt's tokens over "
        "the time to the first token. Cache: keys and values of one text."
    )
    return (Table(title="Writing", headers=headers, rows=rows, note=note),)


def _rows(run: ReportedRun) -> list[tuple[Cell, ...]]:
    made = run.measurement
    threads = made.settings.num_threads
    return [
        (
            text_cell(made.bundle),
            text_cell(made.device.address),
            text_cell(made.accelerator),
            Cell(text=str(threads), sort=threads),
            Cell(text=f"{each.context_length:,}", sort=each.context_length),
            Cell(text=median_with_interval(each.first_token), sort=each.first_token.p50_ms),
            Cell(text=significant(each.prefill_per_second), sort=each.prefill_per_second),
            Cell(
                text=f"{significant(each.decode_per_second)} "
                f"({interval(1000 / each.decode.high_ms, 1000 / each.decode.low_ms)})",
                sort=each.decode_per_second,
            ),
            Cell(text=human_size(each.cache_bytes), sort=each.cache_bytes),
            text_cell(made.id),
        )
        for each in run.writing
    ]

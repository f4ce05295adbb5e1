"""Tables in a terminal: whole where they fit, a paragraph for each row where they do not."""

import io

from rich.console import Console

from edgekit.cli.output import print_sortable
from edgekit.report.devices import report_run
from edgekit.report.devices_tables import bench_table, latency_table
from edgekit.results import Run
from tests.measurements import fallen_back, measurement


def printed(width: int) -> str:
    runs = tuple(report_run(Run(measurement=each)) for each in (measurement(bundle="[b]x[/b]"), fallen_back()))
    stream = io.StringIO()
    for table in (bench_table(runs), latency_table(runs)):
        print_sortable(table, Console(file=stream, width=width, highlight=False))
    return stream.getvalue()


def test_a_wide_terminal_shows_a_table() -> None:
    shown = printed(220)
    assert "│ [b]x[/b]" in shown
    assert "┏" in shown


def test_a_narrow_terminal_shows_each_row_whole() -> None:
    shown = printed(80)
    assert "┏" not in shown
    assert max(len(line) for line in shown.splitlines()) <= 80
    words = " ".join(shown.split())
    assert (
        "[b]x[/b] device ssh:pi@board, asked for cpu, ran on XNNPACK, verdict valid, p50 (95 %) 3.00 ms (2.99–3.02), "
        "p90 3.14 ms" in words
    )
    assert "verdict fell-back, p50 (95 %) 9.00 ms" in words

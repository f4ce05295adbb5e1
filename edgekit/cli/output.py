"""How verbs print: tables on stdout, progress and remarks on stderr, JSON alone when asked."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgekit.bundle import Accuracy, Parity

#: remarks and progress; stdout stays clean for results
stderr = Console(stderr=True, soft_wrap=True, highlight=False)


def split_list(values: Sequence[str]) -> list[str]:
    """The items of a repeatable option, each of which may be comma-separated."""
    return [item.strip() for value in values for item in value.split(",") if item.strip()]


def print_json(value: Any) -> None:
    """Print one JSON document on stdout and nothing else."""
    print(json.dumps(value, indent=2, ensure_ascii=False))  # noqa: T201


def print_table(headers: Sequence[str], rows: Iterable[Sequence[str]], *, title: str = "") -> None:
    """Print a table on stdout; it is not cut to a terminal's width where stdout is not one."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=200)
    table = Table(title=title or None, title_justify="left")
    for header in headers:
        table.add_column(header, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # as it is: brackets are no markup
    console.print(table)


def human_size(size_bytes: float) -> str:
    """A size in bytes as people read it: 3.42 MB (decimal units)."""
    for unit in ("B", "kB", "MB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} B" if unit == "B" else f"{size_bytes:.2f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.2f} GB"


def parity_text(parity: Parity) -> str:
    """Parity as people read it: the largest difference, the verdict, and labels that changed."""
    if parity.verdict == "not-run":
        return "not run here"
    if parity.max_abs_difference is None:
        return f"FAILED: {parity.note}"
    lossy = parity.labels_changed_tolerance < 1
    verdict = "close" if lossy else "equal"
    if parity.verdict != "within-tolerance":
        verdict = f"FAILED (tolerance {parity.tolerance:.1e})"
    changed = f"{parity.labels_changed} of {parity.steps} labels changed"
    evaluated = " (evaluated by edgekit)" if parity.evaluated else ""
    return f"{verdict}, |Δ| ≤ {parity.max_abs_difference:.1e}, {changed}{evaluated}"


def accuracy_text(accuracy: Accuracy) -> str:
    """Accuracy as people read it, in percent with its 95 % interval."""
    if accuracy.accuracy is None or accuracy.low is None or accuracy.high is None:
        return accuracy.note if len(accuracy.note) < 60 else "not measured"
    interval = f"{100 * accuracy.low:.1f}–{100 * accuracy.high:.1f}"
    return f"{100 * accuracy.accuracy:.1f} % ({interval}; {accuracy.samples} of {accuracy.population})"

"""How verbs print: tables on stdout, progress and remarks on stderr, JSON alone when asked."""

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from edgekit.bundle import Accuracy, Manifest, Parity, WrittenTexts
from edgekit.report.numbers import human_size as human_size

if TYPE_CHECKING:
    from edgekit.report.sections import Section, Table

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
    _console().print(_rich_table(headers, rows, title))


def _console() -> Console:
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=200)


def _rich_table(headers: Sequence[str], rows: Iterable[Sequence[str]], title: str) -> RichTable:
    table = RichTable(title=Text(title) if title else None, title_justify="left")
    for header in headers:
        table.add_column(Text(header), overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # as it is: brackets are no markup
    return table


def print_sortable(table: "Table", console: Console | None = None) -> None:
    """Print a table of a report, and its note; where it is too wide, a paragraph for each row."""
    from rich.padding import Padding

    console = console or _console()
    rows = [[cell.text for cell in row] for row in table.rows]
    whole = _rich_table(table.headers, rows, table.title)
    wanted = console.measure(whole, options=console.options.update(width=10_000)).maximum
    if wanted <= console.width or len(table.headers) < 4:
        console.print(whole)
    else:
        console.print(Text(table.title))
        for first, *others in rows:
            told = [f"{name} {text}" for name, text in zip(table.headers[1:], others, strict=True) if text != "–"]
            console.print(Text(first), Padding(Text(", ".join(told)), (0, 0, 0, 4)))
    if table.note:
        console.print(Text(table.note))


def print_section(section: "Section") -> None:
    """Print a section of a report: its sentences and tables; panels and figures are for the other formats."""
    from edgekit.report import sections

    print(f"\n{section.title}\n")  # noqa: T201
    for block in section.blocks:
        if isinstance(block, sections.Table) and block.rows:
            print_sortable(block)
        elif isinstance(block, sections.Text):
            print("\n".join(f"{'- ' if block.as_list else ''}{sentence}" for sentence in block.sentences))  # noqa: T201


def points_text(points: float) -> str:
    """A change in percentage points with its sign; nothing changed is 0.00."""
    return f"{points:+.2f}" if abs(points) >= 0.005 else "0.00"


def parity_text(parity: Parity) -> str:
    """Parity as people read it: the largest difference, the verdict, and labels that changed."""
    if parity.verdict == "not-run":
        return "not run here"
    if parity.max_abs_difference is None:
        return f"FAILED: {parity.note}"
    lossy = parity.labels_changed_tolerance < 1
    verdict = "close" if lossy else "equal"
    if parity.verdict != "within-tolerance":
        verdict = f"FAILED ({parity.note or f'tolerance {parity.tolerance:.1e}'})"
    said = [verdict, f"|Δ| ≤ {parity.max_abs_difference:.1e}"]
    if parity.labels_changed is not None:
        said.append(f"{parity.labels_changed} of {parity.labels or parity.steps} labels changed")
    if parity.cosine is not None:
        said.append(f"cosine {parity.cosine:.6f}")
    evaluated = " (evaluated by edgekit)" if parity.evaluated else ""
    return f"{', '.join(said)}{evaluated}"


def accuracy_text(accuracy: Accuracy) -> str:
    """Accuracy as people read it, in percent with its 95 % interval."""
    if accuracy.accuracy is None or accuracy.low is None or accuracy.high is None:
        return accuracy.note if len(accuracy.note) < 60 else "not measured"
    interval = f"{100 * accuracy.low:.1f}–{100 * accuracy.high:.1f}"
    return f"{100 * accuracy.accuracy:.1f} % ({interval}; {accuracy.samples} of {accuracy.population})"


#: the head of a column of `quality_text`, of models that write
QUALITY = "tokens as the source's; scores (the source's)"


def quality_text(accuracy: Accuracy, written: WrittenTexts | None) -> str:
    """Accuracy; or, of a model that writes, the share of the source's tokens that it wrote, and its scores."""
    if written is None:
        return accuracy_text(accuracy)
    share = f"{written.tokens_equal} of {written.tokens} tokens"
    if written.tokens:
        share += f" ({100 * written.tokens_equal / written.tokens:.1f} %) of {written.prompts} texts"
    ours, theirs = written.scores, written.reference_scores
    if ours is None or theirs is None:
        return f"{share}; {written.note if len(written.note) < 60 else 'scores not measured'}"
    said = [share, f"{ours.bits_per_byte:.4f} bits per byte ({theirs.bits_per_byte:.4f})"]
    if ours.chrf is not None and theirs.chrf is not None:
        said.append(f"chrF {ours.chrf:.2f} ({theirs.chrf:.2f})")
    elif ours.note:
        said.append(ours.note)
    return "; ".join(said)


def compiled_rows(manifest: Manifest) -> list[list[str]]:
    """What a compiler left to the CPU: device, operators, places and reason."""
    if manifest.compiled is None:
        return []
    return [
        [
            manifest.compiled.device,
            f"{left.count} × {left.operator}",
            ", ".join(shorten(name) for name in left.where) + (", …" if left.count > len(left.where) else ""),
            left.reason,
        ]
        for left in manifest.compiled.report.left
    ]


def counted(count: int, thing: str) -> str:
    """A number of things: 1 partition, 2 partitions."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def shorten(name: str, most: int = 48) -> str:
    """The end of a long name of a tensor, which is what tells it from others."""
    return name if len(name) <= most else f"…{name[1 - most :]}"

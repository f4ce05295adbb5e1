"""What a report is made of, before it has a format: sections of text, tables, figures and panels.

A part of the report (devices, quantization, ...) turns its numbers into one Section; terminal, Markdown and HTML each
show any Section.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Tone = Literal["", "good", "warn", "bad"]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell of a table: its text, and what it is sorted by where that is not the text."""

    text: str
    sort: float | None = None
    tone: Tone = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table that can be sorted by any column; columns whose cells have numbers to sort by are set to the right."""

    title: str
    headers: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""

    def is_numeric(self, column: int) -> bool:
        """Whether the cells of a column are numbers (a dash where one is missing)."""
        return any(row[column].sort is not None for row in self.rows)


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A plot as inline SVG, and the sentence under it; what it shows is in tables too, for formats without pictures.

    `hint` stands where a point's own words appear once it is pointed at; "" for a plot without such points.
    """

    title: str
    svg: str
    caption: str = ""
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class Text:
    """Sentences; as a list where they are several things."""

    sentences: tuple[str, ...]
    as_list: bool = False
    tone: Tone = ""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Blocks that are closed until somebody wants them."""

    title: str
    blocks: "tuple[Block, ...]"


Block = Table | Figure | Text | Panel


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the report with a heading; `key` names it in links and is unique in a report."""

    key: str
    title: str
    blocks: tuple[Block, ...]


def text_cell(text: str, tone: Tone = "") -> Cell:
    """A cell of words."""
    return Cell(text=text, tone=tone)


def flat_blocks(blocks: tuple[Block, ...]) -> Iterator[tuple[str, Block]]:
    """Every block that is no panel, with the titles of the panels around it ("" outside of any)."""
    for block in blocks:
        if isinstance(block, Panel):
            for inner, found in flat_blocks(block.blocks):
                yield f"{block.title}: {inner}" if inner else block.title, found
        else:
            yield "", block

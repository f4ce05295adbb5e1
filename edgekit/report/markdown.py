"""A report as Markdown, for a pull request or a README."""

from collections.abc import Iterable, Sequence

from edgekit.report.sections import Block, Figure, Section, Table, Text, flat_blocks


def markdown_table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are Markdown, as GitHub renders it; a | in a cell is escaped."""
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in (headers, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(headers), *lines[1:]])


def render_markdown(title: str, made: str, sections: Sequence[Section]) -> str:
    """The whole report; figures are left out, their numbers are in the tables."""
    return f"# {escape_markdown(title)}\n\n{escape_markdown(made)}\n\n{render_sections(sections)}"


def render_sections(sections: Sequence[Section]) -> str:
    """Sections alone, under headings of the second level."""
    parts = []
    for section in sections:
        parts.append(f"## {escape_markdown(section.title)}")
        parts += filter(None, (_block(panel, block) for panel, block in flat_blocks(section.blocks)))
    return "\n\n".join(parts) + "\n"


def _block(panel: str, block: Block) -> str:
    if isinstance(block, Text):
        mark = "- " if block.as_list else ""
        return ("\n" if block.as_list else "\n\n").join(
            f"{mark}{escape_markdown(sentence)}" for sentence in block.sentences
        )
    if isinstance(block, Figure) or not isinstance(block, Table) or not block.rows:
        return ""
    title = ": ".join(filter(None, (panel, block.title)))
    heading = title and f"### {escape_markdown(title)}"
    table = markdown_table(block.headers, ([escape_markdown(cell.text) for cell in row] for row in block.rows))
    return "\n\n".join(filter(None, (heading, table, escape_markdown(block.note))))


def escape_markdown(text: str) -> str:
    """Text as it is: one line, without HTML, and without the marks that Markdown would take for emphasis or links."""
    one_line = " ".join(text.split()).replace("\\", "\\\\").replace("&", "&amp;").replace("<", "&lt;")
    for mark in "*_`[]":
        one_line = one_line.replace(mark, f"\\{mark}")
    return one_line

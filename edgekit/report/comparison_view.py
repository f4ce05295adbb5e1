"""Comparisons as people and CI read them: tables, Markdown, JUnit XML."""

from collections.abc import Sequence
from xml.etree import ElementTree

from edgekit.report.comparison import Change, Comparison, Unit
from edgekit.report.markdown import render_sections
from edgekit.report.numbers import ABSENT, human_size, milliseconds, signed_percent, significant
from edgekit.report.sections import Block, Cell, Section, Table, Text, Tone, text_cell


def comparison_section(comparison: Comparison, number: int = 1) -> Section:
    """The changes, the limits, and what the reader must know."""
    blocks: list[Block] = [_changes_table(comparison)]
    if comparison.checks:
        blocks.append(_checks_table(comparison))
    if comparison.remarks:
        blocks.append(Text(sentences=comparison.remarks, as_list=True, tone="warn"))
    title = f"{comparison.a_name} → {comparison.b_name}"
    return Section(key=f"comparison-{number}", title=title, blocks=tuple(blocks))


def comparisons_markdown(comparisons: Sequence[Comparison]) -> str:
    """All of them, for the comment of a pull request."""
    sections = [comparison_section(comparison, number) for number, comparison in enumerate(comparisons, 1)]
    return "# edgekit compare\n\n" + render_sections(sections)


def comparisons_junit(comparisons: Sequence[Comparison]) -> str:
    """A test case for each limit, as CI servers read JUnit XML."""
    checks = [(comparison, check) for comparison in comparisons for check in comparison.checks]
    counts = {"tests": str(len(checks)), "failures": str(sum(not check.passed for _, check in checks))}
    suites = ElementTree.Element("testsuites", counts)
    suite = ElementTree.SubElement(suites, "testsuite", {"name": "edgekit compare", "errors": "0", **counts})
    for comparison, check in checks:
        names = {"classname": _xml_text(f"{comparison.a_name} → {comparison.b_name}"), "name": _xml_text(check.limit)}
        case = ElementTree.SubElement(suite, "testcase", names)
        if not check.passed:
            ElementTree.SubElement(case, "failure", {"message": _xml_text(check.message)})
        else:
            ElementTree.SubElement(case, "system-out").text = _xml_text(check.message)
    ElementTree.indent(suites)
    return ElementTree.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


def _changes_table(comparison: Comparison) -> Table:
    headers = ("metric", f"A: {comparison.a or 'baseline'}", f"B: {comparison.b or 'candidate'}", "change", "95 %")
    return Table(title="", headers=headers, rows=tuple(_change_row(change) for change in comparison.changes))


def _change_row(change: Change) -> tuple[Cell, ...]:
    moved = ABSENT
    if change.unit == "points" and change.absolute is not None:
        moved = f"{change.absolute:+.2f} points"
    elif change.relative is not None:
        moved = signed_percent(change.relative)
    bounds = ABSENT
    if change.low is not None and change.high is not None:
        bounds = f"{signed_percent(change.low)} to {signed_percent(change.high)}"
        if change.low <= 0 <= change.high:
            bounds = f"{bounds}: no sure change"
    return (
        text_cell(change.metric),
        Cell(text=_value(change.a, change.unit), sort=change.a),
        Cell(text=_value(change.b, change.unit), sort=change.b),
        Cell(text=moved, sort=change.relative),
        text_cell(bounds),
    )


def _checks_table(comparison: Comparison) -> Table:
    tones: dict[bool, Tone] = {True: "good", False: "bad"}
    rows = tuple(
        (
            text_cell(check.limit),
            text_cell("ok" if check.passed else "FAILED", tones[check.passed]),
            text_cell(check.message),
        )
        for check in comparison.checks
    )
    return Table(title="Limits", headers=("limit", "", "because"), rows=rows)


def _value(value: float | None, unit: Unit) -> str:
    if value is None:
        return ABSENT
    if unit == "ms":
        return milliseconds(value)
    if unit == "B":
        return human_size(value)
    return f"{value:.2f} %" if unit == "points" else significant(value)


def _xml_text(text: str) -> str:
    """Text without the control characters that XML 1.0 has no way to write."""
    return "".join(c for c in text if c in "\t\n" or " " <= c <= "\ud7ff" or "\ue000" <= c <= "\ufffd" or c > "\uffff")

"""Builds a report of what was asked for, and writes it in a format."""

import datetime
from collections.abc import Callable
from typing import Literal, get_args

from edgekit import __version__
from edgekit.report.devices_view import devices_section
from edgekit.report.document import DevicesPart, Report
from edgekit.report.quantization import QuantizationPart
from edgekit.report.quantization_view import quantization_section
from edgekit.report.sections import Section

Format = Literal["json", "markdown", "html"]
FORMATS: tuple[Format, ...] = get_args(Format)
#: what the suffix of `-o FILE` chooses
SUFFIXES: dict[str, Format] = {
    ".json": "json",
    ".md": "markdown",
    ".markdown": "markdown",
    ".html": "html",
    ".htm": "html",
}


def build_report(
    *, title: str, devices: DevicesPart | None = None, quantization: QuantizationPart | None = None
) -> Report:
    """A report of these parts, made now."""
    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return Report(edgekit=__version__, created=created, title=title, devices=devices, quantization=quantization)


def report_sections(report: Report) -> tuple[Section, ...]:
    """Its sections, in the order in which they are read; new parts of a report join here."""
    first = (quantization_section(report.quantization),) if report.quantization else ()
    return (*first, *((devices_section(report.devices),) if report.devices else ()))


def render_report(report: Report, form: Format) -> str:
    """The report as text in a format."""
    renderers: dict[Format, Callable[[Report], str]] = {"json": _json, "markdown": _markdown, "html": _html}
    return renderers[form](report)


def _json(report: Report) -> str:
    return report.model_dump_json(indent=1) + "\n"


def _markdown(report: Report) -> str:
    from edgekit.report.markdown import render_markdown

    made = f"Made {report.created} by edgekit {report.edgekit}."
    return render_markdown(report.title, made, report_sections(report))


def _html(report: Report) -> str:
    from edgekit.report.html import render_html

    return render_html(report, report_sections(report))

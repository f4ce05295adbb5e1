"""A report as one HTML page that needs nothing else: style, script, plots and data are in it, and no network."""

import base64
import hashlib
import importlib.resources
from collections.abc import Sequence

import jinja2
from markupsafe import Markup

from edgekit.report import sections as kinds
from edgekit.report.document import Report
from edgekit.report.sections import Section

_TEMPLATES = "templates"


def render_html(report: Report, sections: Sequence[Section]) -> str:
    """The whole page. Every text in it is escaped; only the one script of ours may run in it, by its hash."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("edgekit.report", _TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.tests |= {
        "table": lambda block: isinstance(block, kinds.Table),
        "figure": lambda block: isinstance(block, kinds.Figure),
        "text": lambda block: isinstance(block, kinds.Text),
        "panel": lambda block: isinstance(block, kinds.Panel),
    }
    style, script = _resource("page.css"), _resource("page.js")
    return environment.get_template("page.html.j2").render(
        report=report,
        sections=sections,
        style=Markup(style),
        script=Markup(script),
        style_hash=_source_hash(style),
        script_hash=_source_hash(script),
        data=Markup(_inert(report.model_dump_json())),
    )


def _resource(name: str) -> str:
    return (importlib.resources.files("edgekit.report") / _TEMPLATES / name).read_text(encoding="utf-8")


def _source_hash(source: str) -> str:
    """As a Content-Security-Policy names an inline style or script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"


def _inert(json_text: str) -> str:
    """JSON that can't end the script element it stands in."""
    return json_text.replace("<", "\\u003c")

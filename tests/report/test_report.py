"""A report: every number from the raw samples, one document behind every format, no text that becomes markup."""

import importlib.resources
import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.measurement import DeviceFacts
from edgekit.report.build import FORMATS, build_report, render_report, report_sections
from edgekit.report.devices import devices_part
from edgekit.report.document import Report, report_schema_text
from edgekit.report.numbers import human_size, interval, median_with_interval, milliseconds, significant
from edgekit.report.plots import Bar, Spread, bar_plot, curve_plot, samples_plot, spread_plot
from edgekit.report.sections import Figure, Table, flat_blocks
from edgekit.report.svg import Scale
from edgekit.results import Run
from edgekit.statistics import summarize
from tests.measurements import latencies, measurement
from tests.report.reports import HOSTILE, whole_report


def test_the_published_schema_is_the_one_of_this_code() -> None:
    """After a change of the document: python -m tests.report.write_schema"""
    published = importlib.resources.files("edgekit.report") / "report.schema.json"
    assert published.read_text(encoding="utf-8") == report_schema_text()


def test_the_document_is_whole_and_comes_back() -> None:
    report = whole_report()
    again = Report.model_validate_json(render_report(report, "json"))
    assert again == report


def test_numbers_can_be_computed_again_from_the_samples_in_the_document() -> None:
    document = json.loads(render_report(whole_report(), "json"))
    for run in document["devices"]["runs"]:
        raw = run["measurement"]["samples"]["latency_ms"]
        if not raw:
            assert run["latency"] is None
            continue
        assert run["latency"]["p50_ms"] == pytest.approx(np.median(raw))
        assert run["latency"]["p99_ms"] == pytest.approx(np.percentile(raw, 99))
        assert run["latency"]["low_ms"] <= run["latency"]["p50_ms"] <= run["latency"]["high_ms"]
        assert run["per_second"] == pytest.approx(1000 / np.mean(raw))
        assert run["cold_start"]["p50_ms"] == pytest.approx(np.median(run["measurement"]["samples"]["cold_start_ms"]))
    first = document["devices"]["runs"][0]
    assert first["memory_bytes"] == 8_000_000


def test_findings_name_the_fastest_valid_one_of_each_device() -> None:
    part = whole_report().devices
    assert part
    board, local, wrong = part.findings
    assert board.startswith("ssh:pi@board, 1 thread: tiny.tflite-int8 on cpu is the fastest valid one with 1.40 ms")
    assert "tiny.tflite-none on cpu, the next, takes 11" in board
    assert local.startswith("local, 1 thread: tiny.tflite-none on cpu takes 0.310 ms")
    assert (
        wrong
        == "4 of 7 measurements are not valid (fell-back, throttled, unproven, wrong-output): the evidence is below."
    )


def test_findings_do_not_choose_between_equals() -> None:
    runs = [Run(measurement=measurement(seed=seed, bundle=f"b{seed}")) for seed in (1, 2)]
    (finding,) = devices_part(runs).findings
    assert "can't be told apart" in finding


@pytest.mark.parametrize("form", ["markdown", "html"])
def test_every_row_of_every_table_is_in_every_format(form: str) -> None:
    report = whole_report()
    shown = render_report(report, "html" if form == "html" else "markdown")
    for section in report_sections(report):
        for _, block in flat_blocks(section.blocks):
            if isinstance(block, Table):
                for cell in (
                    cell for row in block.rows for cell in row if HOSTILE not in cell.text and "|" not in cell.text
                ):
                    text = cell.text.replace("_", "\\_") if form == "markdown" else cell.text.replace("'", "&#39;")
                    assert text in shown


class _Elements(HTMLParser):
    """Collects the names of all elements and attributes of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}


def test_hostile_texts_stay_text_in_html() -> None:
    page = _Elements(render_report(whole_report(), "html"))
    assert page.tags.count("script") == 2  # the data and ours
    assert "img" not in page.tags
    assert not any(name.startswith("on") or name == "style" for name in page.attributes)


def test_the_page_needs_nothing_else() -> None:
    page = render_report(whole_report(), "html")
    assert not {"src", "href", "srcset", "action"} & _Elements(page).attributes
    assert "default-src 'none'" in page
    assert "http:" not in page
    assert "https:" not in page


def test_the_data_in_the_page_is_the_document() -> None:
    report = whole_report()
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', render_report(report, "html"), re.S)
    assert found
    assert Report.model_validate_json(found[1]) == report


def test_hostile_texts_stay_text_in_markdown() -> None:
    shown = render_report(whole_report(), "markdown")
    assert "<script" not in shown
    assert "<img" not in shown
    for line in shown.splitlines():
        if line.startswith("|") and "document.title" in line:
            cells = re.split(r"(?<!\\)\|", line)
            header = next(row for row in shown.split(line)[0].splitlines()[::-1] if row.startswith("|---"))
            assert len(cells) == header.count("|") + 1


@settings(deadline=None)
@given(st.text(max_size=40), st.text(max_size=40))
def test_no_name_breaks_a_format(bundle: str, address: str) -> None:
    made = measurement(count=5, bundle=bundle, device=DeviceFacts(address=address), evidence=(bundle,))
    report = build_report(title=bundle, devices=devices_part([Run(measurement=made)]))
    for form in FORMATS:
        assert render_report(report, form)
    for figure in (
        block for s in report_sections(report) for _, block in flat_blocks(s.blocks) if isinstance(block, Figure)
    ):
        text = figure.svg.translate(dict.fromkeys(range(32))).translate({0x7F: None, 0xFFFE: None, 0xFFFF: None})
        ElementTree.fromstring(text)


def test_a_report_of_nothing_still_renders() -> None:
    report = build_report(title="nothing", devices=devices_part([]))
    for form in FORMATS:
        assert "nothing" in render_report(report, form)


@pytest.mark.parametrize(
    "values", [(1.0,), (0.0, 0.0), (1e-6, 2e6), tuple(latencies(count=401)), tuple(latencies(count=9))]
)
def test_plots_of_odd_samples_stay_inside_the_drawing(values: tuple[float, ...]) -> None:
    summary = summarize(values)
    curve = [(float(i), v, None if i % 2 else 40.0 + i) for i, v in enumerate(values)]
    bars = [Bar(name="x" * 90, value=v) for v in values[:10]]
    drawn = [
        spread_plot([Spread(name="n", summary=summary)]),
        samples_plot(values, summary),
        curve_plot(curve),
        bar_plot(bars, unit="ms", label="bars"),
    ]
    for svg in drawn:
        tree = ElementTree.fromstring(svg)
        width, height = map(float, tree.attrib["viewBox"].split()[2:])
        for shape in tree.iter():
            for name, most in (
                ("x", width),
                ("x1", width),
                ("x2", width),
                ("cx", width),
                ("y", height),
                ("cy", height),
            ):
                if name in shape.attrib:
                    assert -0.1 <= float(shape.attrib[name]) <= most + 0.1
        assert "nan" not in svg


@given(st.floats(-1e9, 1e9), st.floats(0, 1e9))
def test_ticks_are_few_and_inside(low: float, span: float) -> None:
    scale = Scale(low=low, high=low + span, start=0, end=100)
    ticks = scale.ticks()
    assert 1 <= len(ticks) <= 15
    assert all(
        low - 1e-6 * max(1.0, abs(low), span) <= tick <= low + span + 1e-6 * max(1.0, abs(low), span) for tick in ticks
    )


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (0.01234, "0.0123"),
        (1.2345, "1.23"),
        (123.4, "123"),
        (12345.6, "12,346"),
        (9.999, "10.0"),
        (-0.5, "-0.500"),
    ],
)
def test_numbers_are_written_with_three_digits(value: float, shown: str) -> None:
    assert significant(value) == shown


def test_other_numbers() -> None:
    assert human_size(3_420_000) == "3.42 MB"
    assert milliseconds(3.0171) == "3.02 ms"
    assert median_with_interval(summarize([2.0])) == "2.00 ms"
    assert median_with_interval(summarize([2.0, 2.0])) == "2.00 ms (2.00)"
    assert interval(2.981, 3.06) == "2.98–3.06"
    assert interval(0.21881, 0.21944) == "0.2188–0.2194"
    assert interval(1500.0, 1500.1) == "1,500"

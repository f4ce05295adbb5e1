"""The page in a real browser: headless Chromium opens it from the disk, without a network."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgekit.report.build import render_report
from tests.report.reports import HOSTILE, every_kind, whole_report

WIDE, PHONE, A4 = {"width": 1280, "height": 900}, {"width": 360, "height": 740}, {"width": 718, "height": 1046}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render_report(whole_report(), "html"), encoding="utf-8")
    return path.as_uri()


@pytest.fixture
def open_page(browser: Any, address: str) -> Iterator[Any]:
    """Opens the page with a viewport and colour scheme; whatever the console or the network says fails the test."""
    contexts, said = [], []

    def opened(viewport: dict[str, int], scheme: str = "light") -> Any:
        context = browser.new_context(viewport=viewport, color_scheme=scheme, accept_downloads=True)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: None if request.url == address else said.append(request.url))
        page.goto(address)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert [line for line in said if not line.startswith("blob:")] == []


def test_plots_are_drawn(open_page: Any) -> None:
    page = open_page(WIDE)
    for summary in page.query_selector_all("summary"):
        summary.click()
    boxes = [svg.bounding_box() for svg in page.query_selector_all("svg")]
    runs = len([each for each in every_kind() if each.samples.latency_ms])
    assert len(boxes) > 2 * runs  # samples and operators of each run, latency by device, a curve
    assert all(box["width"] > 300 and box["height"] > 50 for box in boxes)
    colours = "e => { const s = getComputedStyle(e); return [s.fill, s.stroke].join() }"
    for css in ("circle.dot", "polyline.series", "rect.interval", "line.grid", "line.range"):
        shown = page.eval_on_selector(f"svg {css}", colours)
        assert "rgb(" in shown
        assert shown not in ("rgb(0, 0, 0),none", "none,none")


def column(page: Any, number: int) -> list[str]:
    return page.eval_on_selector_all(
        f"table >> nth=0 >> tbody tr td:nth-child({number})", "all => all.map(e => e.textContent)"
    )


def test_tables_sort_by_number_and_by_text(open_page: Any) -> None:
    page = open_page(WIDE)
    headers = page.eval_on_selector_all("table >> nth=0 >> thead th", "all => all.map(e => e.textContent)")
    p50 = headers.index("p50 (95 %)") + 1
    header = page.locator("table >> nth=0 >> thead th").nth(p50 - 1)
    before = column(page, p50)
    header.locator("button").click()
    numbers = [float(text.split(" ")[0]) for text in column(page, p50) if text != "–"]
    assert numbers == sorted(numbers)
    assert column(page, p50) != before
    assert column(page, p50)[-1] == "–"
    assert header.get_attribute("aria-sort") == "ascending"
    header.locator("button").press("Enter")
    numbers = [float(text.split(" ")[0]) for text in column(page, p50) if text != "–"]
    assert numbers == sorted(numbers, reverse=True)
    assert column(page, p50)[-1] == "–"
    page.locator("table >> nth=0 >> thead th button").first.click()
    names = column(page, 1)
    assert names == sorted(names, key=str.lower)
    assert header.get_attribute("aria-sort") is None


def test_a_phone_needs_no_scrolling_sideways(open_page: Any) -> None:
    page = open_page(PHONE)
    for summary in page.query_selector_all("summary"):
        summary.click()
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    sizes = "all => all.map(e => e.getBoundingClientRect().height)"
    assert min(page.eval_on_selector_all("svg text", sizes)) > 9  # readable
    table = page.locator(".wide").first
    assert table.evaluate("e => e.scrollWidth > e.clientWidth")  # a table scrolls inside its own frame


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2) of an `rgb(…)`."""
    channels = [int(part) / 255 for part in colour.split("(")[1].rstrip(")").split(",")[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize(("scheme", "dark"), [("light", False), ("dark", True)])
def test_both_colour_schemes_can_be_read(open_page: Any, scheme: str, dark: bool) -> None:
    page = open_page(WIDE, scheme)
    paper = luminance(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert (paper < 0.1) is dark
    for css, rule in (("body", "color"), (".note", "color"), (".chip.good", "color"), (".chip.warn", "color")):
        ink = luminance(page.eval_on_selector(css, f"e => getComputedStyle(e).{rule}"))
        assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) >= 4.5, css  # WCAG AA
    ink = luminance(page.eval_on_selector("svg text", "e => getComputedStyle(e).fill"))
    assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) >= 4.5


def test_print_is_on_white_with_every_panel_open(open_page: Any, tmp_path: Path) -> None:
    page = open_page(A4, "dark")
    assert not page.locator("details[open]").count()
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    cut = page.eval_on_selector_all(".wide", "all => all.filter(e => e.scrollWidth > e.clientWidth + 1).length")
    assert cut == 0  # paper does not scroll
    page.evaluate(
        "window.opened = 0;"
        "addEventListener('beforeprint', () => opened = document.querySelectorAll('details[open]').length)"
    )
    page.pdf(path=tmp_path / "report.pdf", format="A4")
    assert page.evaluate("window.opened") == len(every_kind())
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
    assert not page.locator("details[open]").count()


def test_hostile_texts_are_shown_and_never_run(open_page: Any) -> None:
    page = open_page(WIDE)
    assert page.title() == f"A report {HOSTILE}"
    assert HOSTILE in column(page, 1)
    assert page.locator("img").count() == 0


def test_the_data_can_be_saved(open_page: Any, tmp_path: Path) -> None:
    page = open_page(WIDE)
    with page.expect_download() as saving:
        page.click("#save")
    saving.value.save_as(tmp_path / "report.json")
    assert saving.value.suggested_filename == "report.json"
    saved = json.loads((tmp_path / "report.json").read_text())
    assert len(saved["devices"]["runs"]) == len(every_kind())

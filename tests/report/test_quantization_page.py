"""The quantization part of the page in headless Chromium: plots that answer, hostile texts, 500 layers."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgekit.report.build import render_report
from edgekit.report.document import Report
from tests.report.quantizations import large_report, quantization_report
from tests.report.reports import HOSTILE

WIDE, PHONE, A4 = {"width": 1280, "height": 900}, {"width": 360, "height": 740}, {"width": 718, "height": 1046}


@pytest.fixture
def open_report(browser: Any, tmp_path: Path) -> Iterator[Any]:
    """Opens a report; whatever the console or the network says fails the test."""
    contexts, said = [], []

    def opened(report: Report, viewport: dict[str, int] = WIDE, **options: Any) -> Any:
        path = tmp_path / "report.html"
        path.write_text(render_report(report, "html"), encoding="utf-8")
        contexts.append(browser.new_context(viewport=viewport, **options))
        page = contexts[-1].new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: None if request.url == path.as_uri() else said.append(request.url))
        page.goto(path.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert said == []


def shown(page: Any) -> str:
    return page.locator("figure .shown").first.text_content()


def test_a_dot_shows_its_row_by_pointer_and_by_keyboard(open_report: Any) -> None:
    page = open_report(quantization_report())
    dots = page.locator("figure >> nth=0 >> circle.point")
    assert dots.count() == 4  # what was not measured has no dot
    assert "Point at a dot" in shown(page)
    dots.nth(1).hover()
    assert shown(page).startswith("int8-dynamic: 1.00 MB, accuracy 89.7 %, change -0.33 (-1.03 to +0.37) points")
    dots.nth(0).focus()
    assert shown(page).startswith("none: 3.76 MB")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert shown(page).startswith("int4-weight: 870.00 kB")
    assert page.locator("figure >> nth=0 >> circle.chosen").count() == 1


def test_a_dot_and_a_cell_answer_a_tap_on_a_phone(open_report: Any) -> None:
    page = open_report(quantization_report(), PHONE, has_touch=True)
    page.locator("figure >> nth=0 >> circle.point").nth(2).tap()
    assert shown(page).startswith("int4-weight")
    heat = page.locator("figure:has(rect.heat)")
    heat.locator("rect.heat").nth(2).tap()
    assert heat.locator(".shown").text_content().startswith("blocks.0.ffn.down: int8: KL 2.00e-02 nats, SNR 30.5 dB")
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]


def test_the_darker_cell_is_the_more_costly(open_report: Any) -> None:
    page = open_report(quantization_report())
    cells = page.eval_on_selector_all("rect.heat", "all => all.map(e => Number(getComputedStyle(e).fillOpacity))")
    assert cells[0] < cells[2] < cells[3]  # 1e-3, 2e-2 and 6e-2 nats
    assert page.locator("rect.heat.bad").count() == 1
    assert page.locator("rect.heat.none").count() == 1


def test_hostile_texts_are_shown_and_never_run(open_report: Any) -> None:
    page = open_report(quantization_report())
    assert page.title() == "Quantization"
    assert page.locator("img").count() == 0
    page.locator("figure >> nth=0 >> circle.point").nth(3).hover()
    assert shown(page).startswith(f"{HOSTILE}: 990.00 kB")
    page.locator("details:has-text('label changed') summary").click()
    assert page.locator("details[open] td").first.text_content() == HOSTILE
    assert page.locator("img").count() == 0


def test_five_hundred_layers_stay_usable(open_report: Any) -> None:
    page = open_report(large_report(), PHONE)
    assert page.locator("rect.heat").count() == 80  # the 40 most costly, two schemes each
    assert page.evaluate("document.body.scrollHeight") < 15 * PHONE["height"]
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    page.locator("summary").click()
    assert page.locator("details tbody").first.locator("tr").count() == 460
    names = page.locator(".block >> nth=1 >> tbody tr td:first-child").all_text_contents()
    assert "blocks.0.ffn.down" not in names  # it costs nothing


def test_print_shows_the_dark_page_on_white(open_report: Any) -> None:
    page = open_report(quantization_report(), A4, color_scheme="dark")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator(".shown").first.is_visible()
    cut = page.eval_on_selector_all(".wide", "all => all.filter(e => e.scrollWidth > e.clientWidth + 1).length")
    assert cut == 0


def test_markdown_and_json_have_the_same_rows() -> None:
    report = quantization_report()
    shown = render_report(report, "markdown")
    assert "| int8-dynamic | tflite | int8-dynamic | 1.00 MB | 89.67 % | -0.33 (-1.03 to +0.37) | 3 of 300 |" in shown
    assert "<img" not in shown
    assert Report.model_validate(json.loads(render_report(report, "json"))) == report

"""The report in a browser: it sorts, can be read in light and dark, runs nothing foreign and asks nobody."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.pages import CLOSING, CONTRAST, SCRIPT
from tests.support.report_data import hostile, ranking

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("reports")
    return {
        "plain": ranking().report(folder / "plain.html"),
        "hostile": hostile().report(folder / "hostile.html"),
    }


@pytest.fixture
def visit(browser: Browser, files: dict[str, Path]) -> Iterator[Any]:
    """Open a report; at the end nothing may have been complained of or asked for."""
    contexts, complaints, requests = [], [], []

    def open_page(name: str, **options: Any) -> Page:
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(dialog.message))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(files[name].as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []
    assert {url for url in requests if not url.startswith("data:")} <= {path.as_uri() for path in files.values()}


def column(page: Page, position: int) -> list[str]:
    return page.eval_on_selector_all(
        "#ranked tbody tr", f"rows => rows.map(row => row.cells[{position}].dataset.value)"
    )


def heading(page: Page, name: str) -> Any:
    return page.locator("#ranked thead").get_by_role("button", name=name)


def test_a_click_sorts_numbers_as_numbers(visit: Any) -> None:
    page = visit("plain")
    assert column(page, 0) == [str(i + 1) for i in range(7)]
    place = 6
    heading(page, "Parameters").click()
    sizes = column(page, place)
    assert [x for x in sizes if x] == [
        "1.0",
        "5.0",
        "22.0",
        "25.0",
        "300.0",
    ]  # as texts, 22 and 25 came before 300 and 5
    assert sizes[-2:] == ["", ""]  # what is unknown is last,
    heading(page, "Parameters").click()
    sizes = column(page, place)
    assert [x for x in sizes if x] == ["300.0", "25.0", "22.0", "5.0", "1.0"]
    assert sizes[-2:] == ["", ""]  # in either direction
    heading(page, "Checkpoint").focus()
    page.keyboard.press("Enter")
    assert page.locator("#ranked th[aria-sort]").text_content() == "Checkpoint"
    names = column(page, 1)
    assert names == sorted(names)
    heading(page, "Accuracy").click()
    scores = [float(x) for x in column(page, 2)]
    assert scores == sorted(scores)


@pytest.mark.parametrize("system", ["light", "dark"])
def test_text_and_plots_can_be_told_from_the_page(visit: Any, system: str) -> None:
    page = visit("plain", color_scheme=system)
    texts = page.locator("h1, h2, h3, p, dt, dd, th, td, li, caption, figcaption, a, code, summary, button")
    found = texts.evaluate_all(f"all => all.filter(e => e.checkVisibility()).map(e => [({CONTRAST})(e), e.outerHTML])")
    assert len(found) > 100
    assert min(found)[0] >= 4.5, min(found)
    letters = page.locator("svg[role=img] > text")
    assert min(letters.evaluate_all(f"all => all.map({CONTRAST})")) >= 4.5
    back = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (int(re.findall(r"\d+", back)[0]) > 128) == (system == "light")
    page.emulate_media(media="print")
    assert int(re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).color"))[0]) < 80  # dark on paper


def test_no_foreign_script_runs(visit: Any) -> None:
    page = visit("hostile")
    assert page.title().startswith("Checkpoints for </title>")
    assert SCRIPT in page.locator("h1").text_content()
    assert CLOSING[:20] in page.locator("h1").text_content()
    assert page.evaluate("document.scripts.length") == 1
    heading(page, "Licence").click()
    assert page.evaluate("document.images.length") == 24
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")


def test_the_page_may_not_reach_out(browser: Browser, files: dict[str, Path]) -> None:
    page = browser.new_page()
    page.goto(files["plain"].as_uri())
    page.evaluate(
        "window.refused = []; addEventListener('securitypolicyviolation', e => refused.push(e.effectiveDirective))"
    )
    page.evaluate(
        """() => {
            document.body.append(Object.assign(new Image(), {src: "http://127.0.0.1:9/x.png"}));
            document.body.append(Object.assign(document.createElement("script"), {textContent: "window.ran = 1"}));
            return new Promise((done) => setTimeout(done, 100));
        }"""
    )
    assert set(page.evaluate("refused")) == {"img-src", "script-src-elem"}
    assert page.evaluate("window.ran") is None
    page.context.close()


def test_it_fits_a_telephone(visit: Any) -> None:
    for name in ("plain", "hostile"):
        page = visit(name, viewport={"width": 360, "height": 740})
        assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_commands_can_be_copied(visit: Any) -> None:
    page = visit("plain", permissions=["clipboard-read", "clipboard-write"])
    button = page.get_by_role("button", name="Copy: Load the first")
    button.click()
    page.wait_for_function("document.querySelector('.steps li:last-child button').textContent !== 'Copy'")
    if button.text_content() == "Copied":
        assert "ranking.best.load(num_classes=3)" in page.evaluate("navigator.clipboard.readText()")
    else:
        assert "ranking.best.load(num_classes=3)" in page.evaluate("getSelection().toString()")

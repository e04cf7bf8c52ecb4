"""The report in a browser: it sorts, changes its theme, runs nothing foreign and asks nobody for anything."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from report_data import CLOSING, SCRIPT, hostile, ranking

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

_ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright, which drives the browser, is missing")
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("there is no Chromium on this machine")
    with sync_api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=[*_ARGUMENTS, "--disable-sync"])
        yield browser
        browser.close()


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
    heading(page, "Checkpoint").click()
    names = column(page, 1)
    assert names == sorted(names)
    heading(page, "Accuracy").click()
    scores = [float(x) for x in column(page, 2)]
    assert scores == sorted(scores)


def test_sorting_is_told_and_works_by_keyboard(visit: Any) -> None:
    page = visit("plain")

    def sorted_by() -> list[list[str]]:
        return page.eval_on_selector_all(
            "#ranked th[aria-sort]", "all => all.map(th => [th.textContent.trim(), th.getAttribute('aria-sort')])"
        )

    assert sorted_by() == [["#", "ascending"]]
    heading(page, "GMACs").focus()
    page.keyboard.press("Enter")
    assert sorted_by() == [["GMACs", "ascending"]]
    assert page.get_by_role("status").text_content() == "Sorted by GMACs, ascending"
    page.keyboard.press("Space")
    assert sorted_by() == [["GMACs", "descending"]]
    assert page.get_by_role("columnheader", name="GMACs").first.get_attribute("aria-sort") == "descending"


@pytest.mark.parametrize("system", ["light", "dark"])
def test_the_theme_follows_the_system_until_it_is_chosen(visit: Any, system: str) -> None:
    page = visit("plain", color_scheme=system)

    def brightness(name: str = "backgroundColor") -> float:
        colour: str = page.evaluate(f"getComputedStyle(document.body).{name}")
        return sum(float(x) for x in colour.removeprefix("rgb(").removesuffix(")").split(",")) / 765

    other = "dark" if system == "light" else "light"
    assert (brightness() > 0.5) == (system == "light")
    button = page.locator("#theme")
    assert button.text_content() == f"{other.title()} theme"
    button.click()
    assert (brightness() > 0.5) == (other == "light")
    assert button.text_content() == f"{system.title()} theme"
    assert page.evaluate("[document.cookie, localStorage.length, sessionStorage.length]") == ["", 0, 0]
    page.emulate_media(media="print")
    assert brightness("color") < 0.3  # dark letters on paper, whatever was chosen
    assert not button.is_visible()


@pytest.mark.parametrize("system", ["light", "dark"])
def test_text_and_plots_can_be_told_from_the_page(visit: Any, system: str) -> None:
    page = visit("plain", color_scheme=system)
    contrast = """(element) => {
        const parts = (colour) => colour.match(/[\\d.]+/g).slice(0, 3).map(Number);
        const light = (colour) => {
            const [r, g, b] = parts(colour).map((x) => x / 255)
                .map((x) => (x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4));
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
        };
        let behind = element;
        const opaque = (node) => !/rgba\\(.*, 0\\)|color\\(/.test(getComputedStyle(node).backgroundColor);
        while (behind.parentElement && !opaque(behind)) behind = behind.parentElement;
        const style = getComputedStyle(element);
        const front = element.closest("svg") ? style.fill : style.color;
        const [a, b] = [light(front), light(getComputedStyle(behind).backgroundColor)].sort((x, y) => y - x);
        return (a + 0.05) / (b + 0.05);
    }"""
    texts = page.locator("h1, h2, h3, p, dt, dd, th, td, li, caption, figcaption, a, code, summary, button")
    found = texts.evaluate_all(f"all => all.filter(e => e.checkVisibility()).map(e => [({contrast})(e), e.outerHTML])")
    assert len(found) > 100
    assert min(found)[0] >= 4.5, min(found)
    for colour in ("--ink", "--muted"):
        glyphs = page.locator(f"svg[role=img] g[fill='var({colour})'] use")
        assert min(glyphs.evaluate_all(f"all => all.map({contrast})")) >= 4.5


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


def test_what_a_screen_reader_finds(visit: Any) -> None:
    page = visit("plain")
    for role in ("banner", "main", "navigation", "contentinfo"):
        assert page.get_by_role(role).count() == 1
    assert page.get_by_role("heading", level=1).count() == 1
    for button in page.get_by_role("button").all():
        name = button.get_attribute("aria-label") or button.text_content()
        assert name.strip()
    assert page.get_by_role("img", name="Predicted accuracy against size").count() == 1
    assert page.get_by_role("table", name="checkpoints").count() >= 1
    for region in page.locator("[tabindex='0']").all():
        assert region.get_attribute("role") == "region"
        assert region.get_attribute("aria-labelledby")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the report"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"


def test_commands_can_be_copied(visit: Any) -> None:
    page = visit("plain", permissions=["clipboard-read", "clipboard-write"])
    button = page.get_by_role("button", name="Copy: Or load it in Python")
    button.click()
    page.wait_for_function("document.querySelector('.steps li:last-child button').textContent !== 'Copy'")
    if button.text_content() == "Copied":
        assert "ranking.best.load(num_classes=3)" in page.evaluate("navigator.clipboard.readText()")
    else:
        assert "ranking.best.load(num_classes=3)" in page.evaluate("getSelection().toString()")

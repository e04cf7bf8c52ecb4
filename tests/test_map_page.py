"""The page of a map: one file, nothing in it runs, hostile names stay text; in Chromium, what a user points at."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from shipped_map import shipped_map
from synthetic import embedding

from hf_task2vec.plots import map_page
from hf_task2vec.task_map import TaskMap, map_tasks

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

HOSTILE = (
    "<script>document.title='broken'</script>",
    '"><img src=x onerror="document.title=1">',
    "</style></svg></title>",
    "{{ 7 * 7 }} & 'é' 日本語",
    "x" * 300,
)
_VOID = {"meta", "br", "img", "input", "link", "hr"}


class Elements(HTMLParser):
    """Collects elements, and fails on tags that do not match."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[str] = []
        self.text: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture(scope="module")
def hostile() -> TaskMap:
    return map_tasks([embedding(seed) for seed in range(len(HOSTILE))], HOSTILE, [*HOSTILE[::-1]])


@pytest.fixture(scope="module")
def shipped() -> TaskMap:
    return shipped_map()


def test_names_stay_text_and_nothing_is_loaded(hostile: TaskMap) -> None:
    page = Elements(map_page(hostile, title="<b>my</b> tasks"))
    assert {tag for tag, _ in page.found} & {"script", "img", "link", "iframe", "b"} <= {"b"}
    assert len(page.all("b")) == len(HOSTILE)  # headings of the boxes, not the title's
    assert "<b>my</b> tasks" in page.text
    assert all(name in page.text for name in HOSTILE[:4])
    for _, attributes in page.found:
        assert not any(name.startswith("on") or name == "src" for name in attributes)
    links = [a["href"] for a in page.all("a")]
    assert links == ["https://arxiv.org/abs/1902.03545", "https://arxiv.org/abs/2306.13840"]
    (policy,) = [m["content"] for m in page.all("meta") if "http-equiv" in m]
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"


def test_page_holds_the_figures_of_the_map(shipped: TaskMap) -> None:
    page = Elements(map_page(shipped))
    text = " ".join(" ".join(page.text).split())
    found = shipped.diversity
    assert f"{found.mean:.3f} ± {found.std_error:.3f}" in text
    assert "1035" in text
    nearest = shipped.pairs[0]
    assert f"{nearest.first} – {nearest.second} {nearest.distance:.3f} {nearest.noise_ratio:.2f}" in text
    points = [g for g in page.all("g") if g.get("class") == "task"]
    assert [str(g["aria-label"]).partition(";")[0] for g in points] == list(shipped.names)
    assert len(map_page(shipped)) < 100_000
    width, height = map(float, str(page.all("svg")[0]["viewbox"]).split()[2:])
    marks = [(float(str(c["cx"])), float(str(c["cy"]))) for c in page.all("circle")]
    assert all(0 < x < width and 0 < y < height for x, y in marks)
    # The picture is the layout, enlarged and turned to the screen's direction of y.
    placed, wanted = np.array(marks), shipped.positions * [1, -1]
    enlarged = np.ptp(placed, axis=0) / np.ptp(wanted, axis=0)
    assert enlarged[0] == pytest.approx(enlarged[1], rel=1e-2)
    np.testing.assert_allclose(placed - placed.mean(axis=0), enlarged[0] * (wanted - wanted.mean(axis=0)), atol=1.0)


def test_page_of_two_equal_tasks_and_unknown_facts() -> None:
    tasks = map_tasks([embedding(0, descriptors={}), embedding(0, descriptors={})], ["a", "b"])
    text = " ".join(" ".join(Elements(map_page(tasks)).text).split())
    assert "near duplicates cannot be told" in text
    assert re.search(r"\b(nan|inf|None)\b", map_page(tasks)) is None
    assert "±" not in text


# ---------------------------------------------------------------------- in a browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    executable = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if executable is None:
        pytest.skip("no Chromium is installed (apt-get install chromium)")
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    manager = api.sync_playwright().start()
    try:
        found = manager.chromium.launch(executable_path=executable, args=["--no-sandbox", "--disable-gpu", *quiet])
        yield found
        found.close()
    finally:
        manager.stop()


def opened(browser: Browser, tasks: TaskMap, folder: Path, **options: Any) -> tuple[Page, list[str]]:
    """Open the page of a map, and collect what it asks for and complains of."""
    path = folder / "map.html"
    path.write_text(map_page(tasks), encoding="utf-8")
    page = browser.new_page(viewport={"width": 1180, "height": 900}, **options)
    noise: list[str] = []
    page.on("request", lambda request: noise.append(request.url))
    page.on("console", lambda message: noise.append(message.text))
    page.on("pageerror", lambda error: noise.append(str(error)))
    page.goto(path.as_uri())
    return page, noise


def test_pointing_at_a_task_shows_its_facts(browser: Browser, shipped: TaskMap, tmp_path: Path) -> None:
    page, noise = opened(browser, shipped, tmp_path)
    i = shipped.names.index("cifar10")
    tip = page.locator(f"#t{i}")
    assert page.locator(".tip:visible").count() == 0
    page.hover(f"#p{i} path")
    assert page.locator(".tip:visible").count() == 1
    assert "natural-objects, 10 classes, 256 images looked at" in tip.inner_text()
    nearest = shipped.nearest(i)
    assert [line.split()[0] for line in tip.locator("li").all_inner_texts()] == [pair.second for pair in nearest]
    assert page.locator(".links:visible line").count() == 3
    frame, shown = page.locator(".map").bounding_box(), tip.bounding_box()
    assert frame is not None
    assert shown is not None
    assert frame["x"] <= shown["x"]
    assert shown["x"] + shown["width"] <= frame["x"] + frame["width"]
    page.mouse.move(1, 1)
    assert page.locator(".tip:visible").count() == 0
    assert noise == [(tmp_path / "map.html").as_uri()]
    page.close()


def test_tab_reaches_every_task(browser: Browser, hostile: TaskMap, tmp_path: Path) -> None:
    page, noise = opened(browser, hostile, tmp_path)
    for i in range(len(HOSTILE)):
        page.keyboard.press("Tab")
        assert page.locator(".tip:visible").get_attribute("id") == f"t{i}"
    assert page.title() == "Map of 5 tasks"
    assert noise == [(tmp_path / "map.html").as_uri()]
    page.close()


def test_names_on_the_picture_do_not_cover_each_other(browser: Browser, shipped: TaskMap, tmp_path: Path) -> None:
    page, _ = opened(browser, shipped, tmp_path)
    boxes = page.evaluate("""[...document.querySelectorAll('.task text')].map(text => {
        const box = text.getBBox();
        return [box.x, box.y, box.x + box.width, box.y + box.height, text.textContent];
    })""")
    assert len(boxes) >= 0.95 * len(shipped)
    for k, (left, top, right, bottom, name) in enumerate(boxes):
        for other in boxes[:k]:
            # A pixel of the line's height is air.
            apart = right < other[0] + 1 or other[2] < left + 1 or bottom < other[1] + 2 or other[3] < top + 2
            assert apart, (name, other[4])
    page.close()


def test_light_and_dark(browser: Browser, shipped: TaskMap, tmp_path: Path) -> None:
    """Text stands out from the page in either setting by 4.5 times at least, and marks by 1.9 times."""
    for scheme in ("light", "dark"):
        page, _ = opened(browser, shipped, tmp_path, color_scheme=scheme)
        back = luminance(str(page.locator("body").evaluate("e => getComputedStyle(e).backgroundColor")))
        texts = [page.locator(".task text").first.evaluate("e => getComputedStyle(e).fill")]
        texts += [page.locator(s).first.evaluate("e => getComputedStyle(e).color") for s in ("h1", "p.small", "td")]
        marks = [
            page.locator(f".task path.c{k}").first.evaluate("e => getComputedStyle(e).fill")
            for k in range(6)
            if page.locator(f".task path.c{k}").count()
        ]
        assert (back > 0.5) == (scheme == "light")
        assert min(contrast(luminance(text), back) for text in texts) > 4.5
        assert min(contrast(luminance(mark), back) for mark in marks) > 1.9
        page.close()


def luminance(colour: str) -> float:
    """Relative luminance of ``rgb(r, g, b)`` (WCAG 2)."""
    channels = np.array([float(part) for part in colour.strip("rgba()").split(",")[:3]]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(a: float, b: float) -> float:
    return (max(a, b) + 0.05) / (min(a, b) + 0.05)

"""The page of a map: one file, nothing in it runs, hostile names stay text; in Chromium, what a user sees."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from hf_task2vec.report.task_map import TaskMap, map_page, map_tasks
from tests.support.pages import CLOSING, CONTRAST, QUOTED, SCRIPT, Page, check_self_contained
from tests.support.shipped_map import shipped_map
from tests.support.synthetic import embedding

if TYPE_CHECKING:
    from playwright.sync_api import Browser

HOSTILE = (SCRIPT, QUOTED, CLOSING, "{{ 7 * 7 }} & 'é' 日本語", "x" * 300)


@pytest.fixture(scope="module")
def shipped() -> TaskMap:
    return shipped_map()


def test_names_stay_text_and_nothing_is_loaded() -> None:
    tasks = map_tasks([embedding(seed) for seed in range(len(HOSTILE))], HOSTILE, [*HOSTILE[::-1]])
    page = Page(map_page(tasks, title="<b>my</b> tasks"))
    check_self_contained(page)
    assert not {tag for tag, _ in page.tags} & {"script", "img", "iframe", "b"}
    assert "<b>my</b> tasks" in page.text
    assert all(name.replace("\u202e", "") in page.text for name in HOSTILE)
    links = [a["href"] for a in page.all("a")]
    assert links == ["https://arxiv.org/abs/1902.03545", "https://arxiv.org/abs/2306.13840"]


def test_page_holds_the_figures_of_the_map(shipped: TaskMap) -> None:
    page = Page(map_page(shipped))
    found = shipped.diversity
    assert f"{found.mean:.3f} ± {found.std_error:.3f}" in page.text
    assert "1035" in page.text
    i = shipped.names.index("cifar10")
    nearest = ", ".join(f"{pair.second} {pair.distance:.3f}" for pair in shipped.nearest(i))
    assert f"cifar10: natural-objects, 10 classes, 256 images looked at. Nearest: {nearest}" in page.text
    assert [g["aria-label"] for g in page.all("g")] == list(shipped.names)
    # The picture is the layout, enlarged and turned to the screen's direction of y.
    marks = [(float(str(u["x"])), float(str(u["y"]))) for u in page.all("use") if "x" in u]
    placed, wanted = np.array(marks), shipped.positions * [1, -1]
    scale = np.ptp(placed[:, 0]) / np.ptp(wanted[:, 0])
    np.testing.assert_allclose(placed - placed.mean(axis=0), scale * (wanted - wanted.mean(axis=0)), atol=1.0)
    width, height = map(float, str(page.all("svg")[0]["viewbox"]).split()[2:])
    assert ((placed > 0) & (placed < [width, height])).all()


def test_page_of_two_equal_tasks_and_unknown_facts() -> None:
    page = Page(map_page(map_tasks([embedding(0, descriptors={}), embedding(0, descriptors={})], ["a", "b"])))
    assert "near duplicates cannot be told" in page.text
    assert re.search(r"\b(nan|inf|None)\b", page.source) is None
    assert "±" not in page.text


@pytest.mark.parametrize(("scheme", "width"), [("light", 1180), ("dark", 390)])
def test_in_a_browser(browser: Browser, shipped: TaskMap, tmp_path: Path, scheme: Any, width: int) -> None:
    """Names do not cover each other, text stands out, nothing is asked for, and the page fits the window."""
    path = tmp_path / "map.html"
    path.write_text(map_page(shipped), encoding="utf-8")
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    noise: list[str] = []
    page.on("request", lambda request: noise.append(request.url))
    page.on("console", lambda message: noise.append(message.text))
    page.goto(path.as_uri())
    assert noise == [path.as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    boxes = page.evaluate("""[...document.querySelectorAll('.map text')].map(text => {
        const box = text.getBBox();
        return [box.x, box.y, box.x + box.width, box.y + box.height, text.textContent];
    })""")
    assert len(boxes) >= 0.9 * len(shipped)
    for k, (left, top, right, bottom, name) in enumerate(boxes):
        for other in boxes[:k]:
            # A pixel of the line's height is air.
            apart = right < other[0] + 1 or other[2] < left + 1 or bottom < other[1] + 2 or other[3] < top + 2
            assert apart, (name, other[4])
    texts = page.locator("h1, h2, p, dt, dd, td, th, li, .map text")
    assert min(texts.evaluate_all(f"all => all.map({CONTRAST})")) >= 4.5
    assert min(page.locator(".map use").evaluate_all(f"all => all.map({CONTRAST})")) >= 1.9
    back = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (int(re.findall(r"\d+", back)[0]) > 128) == (scheme == "light")
    page.close()

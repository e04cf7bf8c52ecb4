"""The report as text: what it says, what it hides, and what it never lets through."""

from __future__ import annotations

import ast
import base64
import io
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from report_data import CLOSING, QUOTED, SCRIPT, TOKEN, call, hostile, ranking

from hf_task2vec.errors import SelectionError
from hf_task2vec.material import THUMBNAIL_PX, Material
from hf_task2vec.pareto import pareto_front
from hf_task2vec.ranking import Ranking
from hf_task2vec.report import next_steps, render_report
from hf_task2vec.report_parts import budgets, known, signed


class Page(HTMLParser):
    """The tags of a page with their attributes, and its text outside of scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._within = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._within = tag

    def handle_endtag(self, tag: str) -> None:
        self._within = ""

    def handle_data(self, data: str) -> None:
        if self._within not in ("script", "style"):
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def plain() -> Ranking:
    return ranking()


@pytest.fixture(scope="module")
def page(plain: Ranking) -> Page:
    return Page(render_report(plain))


# ---------------------------------------------------------------------- the file


def test_it_is_written_as_one_file(plain: Ranking, tmp_path: Path) -> None:
    path = plain.report(tmp_path / "new" / "report.html")
    assert path == tmp_path / "new" / "report.html"
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]
    assert path.read_text(encoding="utf-8").startswith('<!DOCTYPE html>\n<html lang="en">')
    assert path.stat().st_size < 1_500_000
    assert plain.report(str(path), images=False) == path  # replaces the old one


def test_a_path_that_cannot_be_written_is_refused(plain: Ranking, tmp_path: Path) -> None:
    with pytest.raises(SelectionError, match="it is a folder; give a file in it"):
        plain.report(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(SelectionError, match=r"the report cannot be written to .*file/report.html: "):
        plain.report(tmp_path / "file" / "report.html")
    with pytest.raises(SelectionError, match="holds no candidate, so there is nothing to report"):
        replace(plain, candidates=()).report(tmp_path / "empty.html")
    assert not (tmp_path / "empty.html").exists()


def test_nothing_is_loaded_from_elsewhere(page: Page, plain: Ranking) -> None:
    text = render_report(plain)
    loading = ("src", "srcset", "data", "poster", "action", "background")
    for tag, attributes in page.tags:
        for name in loading:
            assert (attributes.get(name) or "data:").startswith("data:"), (tag, attributes)
        if tag != "a":
            assert (attributes.get("href") or "#").startswith("#"), (tag, attributes)
        assert "style" not in attributes  # the page's own policy would ignore it
        assert not any(name.startswith("on") for name in attributes)
    assert not re.search(r"@import|url\(\s*['\"]?(?!#)", text)
    assert not page.all("link")
    (policy,) = (m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in policy


# ---------------------------------------------------------------------- what it says


def test_it_says_what_the_ranking_says(page: Page, plain: Ranking) -> None:
    words = " ".join(page.text.split())
    assert plain.summary in words
    for warning in plain.warnings:
        assert warning[1:] in words
    for candidate in plain:
        assert candidate.hub_id in words
        assert f"{100 * candidate.score:.1f}" in words
    for neighbour in plain.explain().neighbours:
        assert f"{neighbour.task}" in words
    assert "24 of 24 drawn" in words
    assert "?" in words  # facts that the index does not know
    for library, version in plain.provenance["versions"].items():
        assert f"{library} {version}" in words


def test_its_structure_can_be_read_aloud(page: Page) -> None:
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))
    assert len(page.all("main")) == len(page.all("nav")) == 1
    assert len(page.all("caption")) == len(page.all("table")) >= 4
    assert all(attributes.get("scope") in ("col", "row") for attributes in page.all("th"))
    assert all(attributes.get("alt") for attributes in page.all("img"))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in page.tags:
        for name in (attributes.get("aria-labelledby") or "").split():
            assert name in ids
        if (attributes.get("href") or "").startswith("#"):
            assert str(attributes["href"])[1:] in ids
    plots = [a for a in page.all("svg") if a.get("role") == "img"]
    assert len(plots) == 2
    assert all(a.get("aria-hidden") == "true" for a in page.all("svg") if a not in plots)


def test_plots_take_the_pages_colours_and_name_the_front(plain: Ranking) -> None:
    text = render_report(plain)
    plots = re.findall(r'<svg viewBox="[^"]*" role="img".*?</svg>', text, re.DOTALL)
    assert len(plots) == 2
    for plot in plots:
        assert "var(--accent)" in plot
        assert "#0102" not in plot  # no stand-in colour is left
        assert "<metadata" not in plot
        assert "The best within each budget" in plot
        assert "org/small: " in plot  # what a pointer over its letter shows


def test_without_matplotlib_the_report_is_written_without_plots(
    plain: Ranking, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    page = Page(render_report(plain))
    assert "No plots here: the plots need Matplotlib, which is missing: pip install 'hf-task2vec[report]'" in page.text
    assert "pip install 'hf-task2vec[report]'" in caplog.text
    assert not [a for a in page.all("svg") if a.get("role") == "img"]
    assert "The best within a budget, by size" in page.text  # the table is there all the same


def test_a_ranking_without_its_material_gets_a_report_of_what_it_has(plain: Ranking) -> None:
    bare = replace(plain, _explainer=None, _material=None, provenance={}, warnings=())
    page = Page(render_report(bare))
    assert "Why this one" not in page.text
    assert "Warnings" not in page.text
    assert not page.all("img")
    assert "ranking = select_backbone(dataset, refine=3)" in page.text
    assert "num_classes=NUMBER_OF_CLASSES" in page.text
    assert len([a for a in page.all("svg") if a.get("role") == "img"]) == 2  # of the candidates alone


def test_measured_candidates_get_a_column(plain: Ranking) -> None:
    refined = replace(plain, candidates=(replace(plain[0], measured=0.8125), *plain[1:]))
    page = Page(render_report(refined))
    assert "Measured, %" in page.text
    assert "measured on the sample" in page.text
    assert "81.2" in page.text
    assert "Measure three of the best" not in page.text
    assert "Measured, %" not in Page(render_report(plain)).text


def test_unknown_costs_and_signs() -> None:
    assert known(None, ".1f", "M") == known(float("nan"), ".1f") == "?"
    assert known(0.04, ".1f", "M") == "0.0M"
    assert [signed(x) for x in (1.25, -1.25, 0.04, -0.04)] == ["+1.2", "−1.2", "0.0", "0.0"]


# ---------------------------------------------------------------------- what it never lets through


def test_hostile_names_are_text() -> None:
    text = render_report(hostile())
    page = Page(text)
    assert len(page.all("script")) == text.count("<script") == 1
    assert not [a for a in page.all("img") if not (a["src"] or "").startswith("data:image/")]
    alts = {a["alt"] for a in page.all("img")}
    assert alts == {SCRIPT, QUOTED, CLOSING.replace("\u202e", " ")}
    assert text.count("</title>") == 1 + len(re.findall(r"<title", text)) - 1
    assert "{{ 7*7 }}" in page.text
    assert "\u202e" not in text  # would write the rest of a line backwards
    assert QUOTED in page.text


def test_a_token_is_nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / f"photos-{TOKEN}"
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        for i in range(4):
            Image.new("RGB", (8, 8), (90 * i, 0, 200 * (name == "a"))).save(folder / name / f"{i}.png")
    found = ranking(str(folder), token="a-secret-of-another-form", revision=None)
    assert found._material is not None
    assert TOKEN not in repr(found._material)
    assert "secret" not in repr(found._material)
    monkeypatch.setenv("HF_TOKEN", "logged-in-secret")
    told = replace(found, warnings=(f"{TOKEN} or logged-in-secret was refused",))
    for page in (render_report(told), render_report(told, images=False)):
        assert TOKEN[3:] not in page
        assert "secret" not in page
        assert "*** or *** was refused" in page
        assert "photos-***" in page  # in the code of the next steps


def test_images_can_be_left_out(plain: Ranking) -> None:
    page = Page(render_report(plain, images=False))
    assert not page.all("img")
    assert "The images were left out (images=False)." in page.text
    assert "data:image" not in render_report(plain, images=False)
    assert "This file holds 24 small copies of images of the dataset" in Page(render_report(plain)).text


# ---------------------------------------------------------------------- what to run next


def test_objects_have_no_command(plain: Ranking) -> None:
    assert plain._material is not None
    assert plain._material.call.command() is None  # a dataset, a probe and an index in memory
    (measure, load) = next_steps(replace(plain, warnings=()))[-2:]
    assert measure["code"].startswith(
        "from hf_task2vec import select_backbone\n\nranking = select_backbone(dataset, probe="
    )
    assert "refine=3)" in measure["code"]
    assert load["code"].endswith(f"model, transform = ranking.best.load(num_classes=3)  # {plain.best.hub_id}")
    for step in (measure, load):
        ast.parse(step["code"])


def test_steps_of_a_dataset_with_a_name(plain: Ranking) -> None:
    task = {**plain.provenance["task"], "n_samples": 20, "n_rows": 1000}
    provenance = plain.provenance | {"task": task}
    steps = next_steps(replace(plain, provenance=provenance, _material=Material(call("./my photos", name="a b"))))
    more, measure, tune, _ = (step["code"] for step in steps)
    assert more == "hf-task2vec select './my photos' --name 'a b' --max-samples 48"
    assert measure == "hf-task2vec select './my photos' --name 'a b' --refine 3"
    assert tune == (
        f"python examples/finetune_timm.py --dataset './my photos' --checkpoint {plain.best.hub_id} --name 'a b' "
        "--output fine-tuned"
    )


def test_several_labels_are_not_to_be_measured(plain: Ranking) -> None:
    task = {**plain.provenance["task"], "label_kind": "multi_label"}
    titles = [step["title"] for step in next_steps(replace(plain, provenance=plain.provenance | {"task": task}))]
    assert "Measure three of the best on your sample" not in titles


# ---------------------------------------------------------------------- the front

POINTS = st.lists(
    st.tuples(st.one_of(st.floats(0.01, 1e4), st.just(float("nan"))), st.integers(0, 20)), min_size=1, max_size=30
)


@given(POINTS)
def test_front_is_what_nothing_beats(points: list[tuple[float, int]]) -> None:
    cost, score = np.array([p[0] for p in points]), np.array([p[1] / 20 for p in points])
    front = pareto_front(cost, score)
    assert list(cost[front]) == sorted(cost[front])
    assert np.all(np.diff(score[front]) > 0)
    for i in np.flatnonzero(np.isfinite(cost)):
        assert any(cost[f] <= cost[i] and score[f] >= score[i] for f in front)
    for f in front:
        assert not np.any((cost < cost[f]) & (score >= score[f]))


@given(st.floats(1e-3, 1e5), st.floats(1.0, 1e4))
def test_budgets_are_round_and_cover_all(least: float, factor: float) -> None:
    found = budgets(least, least * factor)
    assert found == sorted(set(found))
    assert found[0] >= least
    assert found[-1] >= least * factor
    assert all(limit < least * factor for limit in found[:-1])
    assert {f"{limit:e}"[0] for limit in found} <= {"1", "2", "5"}


def test_png_of_the_page_is_an_image(page: Page) -> None:
    for attributes in page.all("img"):
        head, _, data = (attributes["src"] or "").partition(",")
        assert head in ("data:image/png;base64", "data:image/jpeg;base64")
        with Image.open(io.BytesIO(base64.b64decode(data))) as image:
            assert max(image.size) <= THUMBNAIL_PX


def test_a_multi_label_ranking_speaks_of_map(plain: Ranking) -> None:
    facts = plain.provenance["descriptors"] | {"probe_map": 0.432}
    found = replace(
        plain, summary="", warnings=(), provenance=plain.provenance | {"score": "mAP", "descriptors": facts}
    )
    text = Page(render_report(found)).text
    assert "ranked by predicted mAP" in text
    assert "Predicted mAP against size" in render_report(found)
    assert "the probe's own mAP" in text
    assert "43.2 %" in text

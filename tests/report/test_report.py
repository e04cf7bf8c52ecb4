"""The report: what it says, what it hides, what it never lets through, and how it is used in a browser."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hf_task2vec.errors import SelectionError
from hf_task2vec.report.page import (
    THUMBNAIL_PX,
    cost_plot,
    next_steps,
    pareto_front,
    render_report,
    round_steps,
    thumbnails,
)
from hf_task2vec.selection.ranking import Ranking
from hf_task2vec.selection.select import select_backbone
from hf_task2vec.tasks.task import Task
from tests.support.pages import CLOSING, CONTRAST, QUOTED, SCRIPT, Page, check_self_contained
from tests.support.synthetic import as_dataset, pictures, tiny_probe, zoo

if TYPE_CHECKING:
    from playwright.sync_api import Page as BrowserPage

Visit = Callable[..., "BrowserPage"]
TOKEN = "hf_" + "a1B2" * 9


def named(names: list[str], count: int = 24) -> datasets.Dataset:
    """Return a small dataset with classes of these names."""
    plain = as_dataset(pictures(count, len(names)), [i % len(names) for i in range(count)], len(names))
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
    return plain.cast(features)


def ranking(data: Any = None, **options: Any) -> Ranking:
    """Return a ranking of every checkpoint of the small index."""
    probe = tiny_probe()
    data = named(["red", "green", "blue"]) if data is None else data
    return select_backbone(
        data, probe=probe, index=zoo(weights_hash=probe.weights_hash), top_k=20, **{"cache": False, **options}
    )


@pytest.fixture(scope="module")
def plain() -> Ranking:
    return ranking()


@pytest.fixture(scope="module")
def hostile() -> Ranking:
    """A ranking whose classes, dataset, warnings, titles and evidence try to break out of a page."""
    found = ranking(Task.from_dataset(named([SCRIPT, QUOTED, CLOSING])))
    table = found.table.copy()
    table.loc[1, ["evidence", "license"]] = [SCRIPT, QUOTED]
    task = {**found.provenance["task"], "dataset": SCRIPT, "skipped": [{"row": 3, "reason": QUOTED}]}
    explanations = {
        name: replace(why, neighbours=tuple(replace(n, title=QUOTED + CLOSING) for n in why.neighbours))
        for name, why in found.explanations.items()
    }
    return replace(
        found,
        table=table,
        dataset=CLOSING + SCRIPT,
        warnings=(SCRIPT, QUOTED),
        provenance=found.provenance | {"task": task},
        explanations=explanations,
    )


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
        replace(plain, top_k=0).report(tmp_path / "empty.html")
    assert not (tmp_path / "empty.html").exists()


# ---------------------------------------------------------------------- what it says


def test_it_says_what_the_ranking_says(page: Page, plain: Ranking) -> None:
    check_self_contained(page)
    assert len(page.all("nav")) == 1
    assert len(page.all("caption")) == len(page.all("table")) >= 4
    words = page.text
    assert plain.summary in words
    assert all(warning in words for warning in plain.warnings)
    assert all(candidate.hub_id in words and f"{100 * candidate.score:.1f}" in words for candidate in plain)
    assert all(neighbour.task in words for neighbour in plain.explain().neighbours)
    assert "24 of 24 drawn" in words
    assert "?" in words  # facts that the index does not know
    for library, version in plain.provenance["versions"].items():
        assert f"{library} {version}" in words


def test_plots_name_the_best_within_each_budget(page: Page, plain: Ranking) -> None:
    assert len([a for a in page.all("svg") if a.get("role") == "img"]) == 2
    table = plain.to_pandas()
    plot = cost_plot(table, "params_m", plain.best.hub_id)
    assert plot is not None
    for mark in plot["marks"]:
        within = table[table["params_m"] <= float(mark["limit"])]
        assert mark["row"].score == within["score"].max()
        assert f"{mark['row'].hub_id}: {100 * mark['row'].score:.1f} %" in page.text  # what a pointer shows
    assert plot["count"] == int(table["params_m"].notna().sum())
    assert cost_plot(table.assign(params_m=np.nan), "params_m", plain.best.hub_id) is None


def test_a_ranking_read_from_a_file_gets_a_report_of_what_it_has(plain: Ranking) -> None:
    bare = replace(plain, explanations={}, request={}, sample=None, provenance={}, warnings=())
    page = Page(render_report(bare))
    assert "Why this one" not in page.text
    assert "Warnings" not in page.text
    assert not page.all("img")
    assert "num_classes=NUMBER_OF_CLASSES" in page.text
    assert len([a for a in page.all("svg") if a.get("role") == "img"]) == 2  # of the candidates alone


def test_measured_candidates_get_a_column(plain: Ranking) -> None:
    refined = replace(plain, table=plain.table.assign(measured=[0.8125, *[np.nan] * (plain.n_ranked - 1)]))
    page = Page(render_report(refined))
    assert "Measured, %" in page.text
    assert "measured on the sample" in page.text
    assert "81.2" in page.text
    assert "Measure three of the best" not in page.text
    assert "Measured, %" not in Page(render_report(plain)).text


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


# ---------------------------------------------------------------------- what it never lets through


def test_hostile_names_are_text(hostile: Ranking) -> None:
    page = Page(render_report(hostile))
    text = page.source
    check_self_contained(page)
    assert len(page.all("script")) == text.count("<script") == 1
    assert not [a for a in page.all("img") if not (a["src"] or "").startswith("data:image/")]
    alts = {a["alt"] for a in page.all("img")}
    assert alts == {SCRIPT, QUOTED, CLOSING.replace("\u202e", " ")}
    assert text.count("</title>") == text.count("<title")
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
    assert "secret" not in repr(found.request)
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


# ---------------------------------------------------------------------- the contact sheet


def photo(i: int) -> dict[str, Any]:
    """An encoded image with the metadata that a camera or a program writes."""
    image = Image.effect_noise((400, 300), 60).convert("RGB")
    exif = Image.Exif()
    exif[0x010F], exif[0x0132] = f"Secret camera {i}", "2024:01:01 00:00:00"
    exif.get_ifd(0x8825)[2] = (52.0, 31.0, 12.0)
    stream = io.BytesIO()
    image.save(stream, "JPEG", exif=exif, comment=b"Secret comment", icc_profile=b"Secret profile")
    return {"bytes": stream.getvalue(), "path": f"/home/secret/{i}.jpg"}


def test_thumbnails_are_small_and_bare() -> None:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    rows = {"image": [photo(i) for i in range(6)], "label": [0, 1] * 3}
    found = thumbnails(Task.from_dataset(datasets.Dataset.from_dict(rows, features=features)))
    assert [t["labels"] for t in found] == ["a"] * 3 + ["b"] * 3
    for thumbnail in found:
        assert (thumbnail["width"], thumbnail["height"]) == (96, 72)
        kind, _, data = thumbnail["src"].partition(",")
        assert kind == "data:image/jpeg;base64"
        assert b"Secret" not in base64.b64decode(data)
        assert b"Exif" not in base64.b64decode(data)
        with Image.open(io.BytesIO(base64.b64decode(data))) as image:
            assert image.size == (96, 72)
            assert not image.getexif()
            assert not {"comment", "icc_profile", "exif"} & set(image.info)


def test_small_images_stay_as_they_are() -> None:
    task = Task.from_dataset("sklearn:digits", max_samples=10)
    found = thumbnails(task)
    assert [t["labels"] for t in found] == [str(i) for i in range(10)]  # balanced
    for picture, position in zip(found, np.argsort(task.labels), strict=True):
        kind, _, data = picture["src"].partition(",")
        assert kind == "data:image/png;base64"
        shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
        assert np.array_equal(shown, np.asarray(task.images[int(position)]))


def test_sheet_of_several_labels_and_of_odd_sizes() -> None:
    image = datasets.Image()
    labels = datasets.List(datasets.ClassLabel(names=["x", "y"]))
    rng = np.random.default_rng(0)
    rows = {"image": [rng.integers(255, size=(*size, 3), dtype=np.uint8) for size in ((1, 3000), (60, 50)) * 4]}
    rows["label"] = [[0], [0, 1], [1], [0]] * 2
    data = datasets.Dataset.from_dict(rows, features=datasets.Features({"image": image, "label": labels}))
    found = thumbnails(Task.from_dataset(data))
    assert {t["labels"] for t in found} == {"x", "x, y", "y"}
    assert {(t["width"], t["height"]) for t in found} == {(THUMBNAIL_PX, 1), (50, 60)}


# ---------------------------------------------------------------------- what to run next


def test_what_to_run_next(plain: Ranking) -> None:
    (load,) = next_steps(plain)  # a dataset, a probe and an index in memory: no command line can say them
    assert load["code"] == f"model, transform = ranking.best.load(num_classes=3)  # {plain.best.hub_id}"
    asked = replace(plain, request={"dataset": "./my photos", "name": "a b"})
    repeat, measure, _ = (step["code"] for step in next_steps(asked))
    assert repeat == "hf-task2vec select './my photos' --name 'a b'"
    assert measure == f"{repeat} --refine 3"
    task = {**plain.provenance["task"], "label_kind": "multi_label"}
    several = replace(asked, provenance=plain.provenance | {"task": task})
    assert len(next_steps(several)) == 2  # several labels are not to be measured


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
    found = round_steps(least, least * factor)
    assert found == sorted(set(found))
    assert found[0] >= least
    assert found[-1] >= least * factor
    assert all(limit < least * factor for limit in found[:-1])
    assert {f"{limit:e}"[0] for limit in found} <= {"1", "2", "5"}


# ---------------------------------------------------------------------- in a browser


@pytest.fixture(scope="module")
def files(plain: Ranking, hostile: Ranking, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("reports")
    return {name: found.report(folder / f"{name}.html") for name, found in (("plain", plain), ("hostile", hostile))}


def column(page: BrowserPage, position: int) -> list[str]:
    return page.eval_on_selector_all(
        "#ranked tbody tr", f"rows => rows.map(row => row.cells[{position}].dataset.value)"
    )


def heading(page: BrowserPage, name: str) -> Any:
    return page.locator("#ranked thead").get_by_role("button", name=name)


def test_a_click_sorts_numbers_as_numbers(visit: Visit, files: dict[str, Path]) -> None:
    page = visit(files["plain"])
    assert column(page, 0) == [str(i + 1) for i in range(7)]
    place = 6
    heading(page, "Parameters").click()
    sizes = column(page, place)
    known = ["1.0", "5.0", "22.0", "25.0", "300.0"]  # as texts, 22 and 25 came before 300 and 5
    assert sizes == [*known, "", ""]  # what is unknown is last,
    heading(page, "Parameters").click()
    assert column(page, place) == [*known[::-1], "", ""]  # in either direction
    heading(page, "Checkpoint").focus()
    page.keyboard.press("Enter")
    assert page.locator("#ranked th[aria-sort]").text_content() == "Checkpoint"
    names = column(page, 1)
    assert names == sorted(names)
    heading(page, "Accuracy").click()
    scores = [float(x) for x in column(page, 2)]
    assert scores == sorted(scores)


@pytest.mark.parametrize("system", ["light", "dark"])
def test_text_and_plots_can_be_told_from_the_page(visit: Visit, files: dict[str, Path], system: str) -> None:
    page = visit(files["plain"], color_scheme=system)
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


def test_no_foreign_script_runs(visit: Visit, files: dict[str, Path]) -> None:
    page = visit(files["hostile"])
    assert page.title().startswith("Checkpoints for </title>")
    assert SCRIPT in page.locator("h1").text_content()
    assert CLOSING[:20] in page.locator("h1").text_content()
    assert page.evaluate("document.scripts.length") == 1
    heading(page, "Licence").click()
    assert page.evaluate("document.images.length") == 24
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")


def test_it_fits_a_telephone(visit: Visit, files: dict[str, Path]) -> None:
    for name in ("plain", "hostile"):
        page = visit(files[name], viewport={"width": 360, "height": 740})
        assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_commands_can_be_copied(visit: Visit, files: dict[str, Path]) -> None:
    page = visit(files["plain"], permissions=["clipboard-read", "clipboard-write"])
    button = page.get_by_role("button", name="Copy: Load the first")
    button.click()
    page.wait_for_function("document.querySelector('.steps li:last-child button').textContent !== 'Copy'")
    if button.text_content() == "Copied":
        assert "ranking.best.load(num_classes=3)" in page.evaluate("navigator.clipboard.readText()")
    else:
        assert "ranking.best.load(num_classes=3)" in page.evaluate("getSelection().toString()")

"""A set of tasks: distances, diversity, near duplicates, their map as a page, and the command `map`."""

from __future__ import annotations

import itertools
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from scipy.spatial.distance import pdist, squareform

from hf_task2vec.cli.inputs import load_embeddings
from hf_task2vec.cli.map_command import map_tasks as map_command
from hf_task2vec.embedding.distance import pairwise
from hf_task2vec.embedding.task_embedding import TaskEmbedding
from hf_task2vec.errors import EmbeddingError, HubNotFoundError, ProbeMismatchError
from hf_task2vec.report.task_map import DUPLICATE_RATIO, LEAST_FOR_TSNE, TaskMap, diversity, map_page, map_tasks
from hf_task2vec.zoo.index import ZooIndex
from tests.support.hub import HubServer
from tests.support.pages import CLOSING, CONTRAST, QUOTED, SCRIPT, Page, check_self_contained
from tests.support.synthetic import REFERENCES, embedding, zoo

# ---------------------------------------------------------------------- diversity


def random_distances(n: int, rng: np.random.Generator) -> np.ndarray:
    """Distances of n points drawn from one population."""
    return squareform(pdist(rng.normal(size=(n, 2)) * [2.0, 1.0]))


def test_diversity_and_its_error_by_leaving_out_each_task() -> None:
    distances = random_distances(7, np.random.default_rng(0))
    found = diversity(distances)
    pairs = list(itertools.combinations(range(7), 2))
    assert found.mean == pytest.approx(np.mean([distances[i, j] for i, j in pairs]))
    assert (found.n_tasks, found.n_pairs) == (7, 21)
    without = [np.mean([distances[i, j] for i, j in pairs if k not in (i, j)]) for k in range(7)]
    assert found.std_error == pytest.approx(math.sqrt(6 / 7 * np.sum((without - np.mean(without)) ** 2)))
    assert diversity(distances[:2, :2]).std_error is None
    equal = diversity(np.zeros((5, 5)))
    assert (equal.mean, equal.std_error) == (0.0, 0.0)


def test_error_of_diversity_is_that_of_drawing_tasks_anew() -> None:
    rng = np.random.default_rng(1)
    sets = [random_distances(20, rng) for _ in range(400)]
    found = [diversity(distances) for distances in sets]
    truth = np.std([f.mean for f in found])
    stated = math.sqrt(np.mean([f.std_error**2 for f in found if f.std_error is not None]))
    # 400 sets: the truth itself is known to within 1/sqrt(800) = 3.5 %, and the jackknife is a little too careful.
    assert 0.95 < stated / truth < 1.2
    naive = np.mean([d[np.triu_indices(20, 1)].std() / math.sqrt(190) for d in sets])
    assert naive < 0.6 * truth  # what taking pairs as independent would state


# ---------------------------------------------------------------------- a map


def noisy(seed: int, noise: float | None) -> TaskEmbedding:
    """Return a made-up embedding of a given noise, or one that is unknown."""
    descriptors = embedding(seed).descriptors | {"noise": noise}
    return embedding(seed, descriptors={name: value for name, value in descriptors.items() if value is not None})


@pytest.fixture(scope="module")
def shipped() -> TaskMap:
    """The map of the shipped index's embedded tasks, with their domains."""
    index = ZooIndex.load()
    table = index.embeddings
    domain = index.tasks.set_index("task")["domain"]
    return map_tasks(list(table), table.names, list(domain[list(table.names)]))


def test_distances_are_those_of_both_directions() -> None:
    embeddings = [embedding(seed) for seed in range(4)]
    for kind in ("log_correlation", "cosine", "asymmetric"):
        found = map_tasks(embeddings, kind=kind)
        both = pairwise(embeddings, kind)
        expected = (both + both.T) / 2 * (1 - np.eye(4))
        np.testing.assert_allclose(found.distances, expected, atol=1e-12)
        assert found.names == ("task0", "task1", "task2", "task3")
        json.dumps(found.to_dict(), allow_nan=False)


def test_noise_ratio_has_one_unit_whatever_the_distance() -> None:
    embeddings = [noisy(0, 0.02), noisy(1, 0.06), noisy(2, None), noisy(3, 0.0)]
    distance = pairwise(embeddings)
    for kind in ("log_correlation", "cosine"):
        found = map_tasks(embeddings, kind=kind)
        assert found.noise_ratios[0, 1] == pytest.approx(distance[0, 1] / 0.04)
        assert np.isnan(found.noise_ratios[2:]).all()
        by_names = {(pair.first, pair.second): pair for pair in found.pairs}
        assert by_names["task0", "task2"].noise_ratio is None
        assert not by_names["task0", "task2"].near_duplicate


def test_near_duplicates_are_within_the_noise() -> None:
    first, rng = embedding(0), np.random.default_rng(4)
    near = embedding(0, values=(first.values * rng.lognormal(0, 0.3, first.values.shape)).astype(np.float32))
    found = map_tasks([embedding(1), first, near], ["other", "first", "near"])
    (pair,) = found.near_duplicates
    assert (pair.first, pair.second) == ("first", "near")
    assert pair.noise_ratio is not None
    assert pair.noise_ratio <= DUPLICATE_RATIO
    assert found.pairs[0] == pair


def test_nearest_tasks() -> None:
    found = map_tasks([embedding(seed) for seed in range(5)])
    pairs = found.nearest(2, 4)
    assert {pair.first for pair in pairs} == {"task2"}
    assert [pair.distance for pair in pairs] == sorted(found.distances[2, [0, 1, 3, 4]])
    assert [pair.distance for pair in found.pairs] == sorted(found.distances[np.triu_indices(5, 1)])


def test_order_of_the_tasks_changes_nothing() -> None:
    embeddings, order = [embedding(seed) for seed in range(6)], [3, 0, 5, 1, 4, 2]
    plain, turned = map_tasks(embeddings), map_tasks([embeddings[i] for i in order])
    assert turned.diversity.mean == pytest.approx(plain.diversity.mean)
    assert turned.diversity.std_error == pytest.approx(plain.diversity.std_error)
    assert [{p.first, p.second} for p in turned.pairs] == [{p.first, p.second} for p in plain.pairs]


@pytest.mark.parametrize("n", [2, 3, LEAST_FOR_TSNE - 1, LEAST_FOR_TSNE, 20])
def test_equal_tasks_are_no_trouble(n: int) -> None:
    for embeddings in ([embedding(0)] * n, [embedding(max(0, seed - 1)) for seed in range(n)]):
        found = map_tasks(embeddings, [f"task{i}" for i in range(n)])
        assert found.positions.shape == (n, 2)
        assert np.isfinite(found.positions).all()


def test_maps_that_cannot_be() -> None:
    two = [embedding(0), embedding(1)]
    for arguments, message in (
        ((two[:1],), "a map needs two tasks or more, found 1"),
        ((two, ["a"]), "1 names for 2 embeddings; give one for each"),
        ((two, None, ["art"] * 3), "3 domains for 2 embeddings"),
        ((two, ["a", "a"]), "names must differ, found more than once: a; pass names="),
    ):
        with pytest.raises(EmbeddingError, match=message):
            map_tasks(*arguments)
    with pytest.raises(EmbeddingError, match="'euclid' is unknown; choose one of log_correlation"):
        map_tasks(two, kind="euclid")
    with pytest.raises(ProbeMismatchError, match="embed both with the same probe"):
        map_tasks([embedding(0), embedding(1, weights_hash="cd" * 32)])


def test_shipped_index(shipped: TaskMap) -> None:
    assert shipped.layout == "tsne"
    far = np.diag(np.full(len(shipped), np.inf))
    drawn = np.argsort(squareform(pdist(shipped.positions)) + far, axis=1)[:, :3]
    nearest = (shipped.distances + far).argmin(axis=1)
    assert (drawn == nearest[:, None]).any(axis=1).mean() > 0.85  # neighbours are kept
    cifar10 = shipped.names.index("cifar10")
    assert shipped.nearest(cifar10)[0].second == "cifar100"
    # Tasks of one domain are nearer to each other than to others, and the map shows it.
    domains = np.array(shipped.domains)
    same = (domains[:, None] == domains[None, :]) & ~np.eye(len(shipped), dtype=bool)
    places = squareform(pdist(shipped.positions))
    for matrix in (shipped.distances, places):
        assert matrix[same].mean() < 0.8 * matrix[~same & ~np.eye(len(shipped), dtype=bool)].mean()
    found = shipped.diversity
    assert found.std_error is not None
    assert found.std_error < 0.1 * found.mean


@pytest.mark.slow
def test_samples_of_one_shared_task_are_near_duplicates(shared: Path, shipped: TaskMap) -> None:
    from hf_task2vec.embedding.embed import embed_task
    from hf_task2vec.tasks.task import Task

    table = ZooIndex.load().embeddings
    again = embed_task(Task.from_dataset(shared / "tasks" / "optdigits_8x8", split="train", max_samples=48, seed=5))
    found = map_tasks([again, *table], ["again", *table.names])
    of_it = [{pair.first, pair.second} for pair in found.near_duplicates if "again" in (pair.first, pair.second)]
    assert of_it == [{"again", "optdigits_8x8"}]


# ---------------------------------------------------------------------- its page


def run(*arguments: object) -> Result:
    return CliRunner().invoke(map_command, [str(argument) for argument in arguments])


HOSTILE = (SCRIPT, QUOTED, CLOSING, "{{ 7 * 7 }} & 'é' 日本語", "x" * 300)


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
    assert str(len(shipped) * (len(shipped) - 1) // 2) in page.text
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


def test_page_of_two_equal_tasks_and_unknown_facts(tmp_path: Path) -> None:
    for name in "ab":
        embedding(0, descriptors={}).save(tmp_path / name)
    result = run(tmp_path / "a", tmp_path / "b", "-o", tmp_path / "map.html")
    assert "as two samples of one task are): unknown." in result.stdout
    page = Page((tmp_path / "map.html").read_text(encoding="utf-8"))
    assert "near duplicates cannot be told" in page.text
    assert re.search(r"\b(nan|inf|None)\b", page.source) is None
    assert "±" not in page.text


@pytest.mark.parametrize(("scheme", "width"), [("light", 1180), ("dark", 390)])
def test_in_a_browser(visit: Any, shipped: TaskMap, tmp_path: Path, scheme: str, width: int) -> None:
    """Names do not cover each other, text stands out, and the page fits the window."""
    path = tmp_path / "map.html"
    path.write_text(map_page(shipped), encoding="utf-8")
    page = visit(path, viewport={"width": width, "height": 900}, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    boxes = page.evaluate("""[...document.querySelectorAll('.map text')].map(text => {
        const box = text.getBBox();
        return [box.x, box.y, box.x + box.width, box.y + box.height, text.textContent];
    })""")
    assert len(boxes) >= 0.6 * len(shipped)  # the rest would lie over another name
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


# ---------------------------------------------------------------------- names on the command line


def test_names_of_files_tasks_and_repositories(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zoo().save(tmp_path / "index")
    embedding(7).save(tmp_path / "mine")
    embedding(8).save(tmp_path / "one.safetensors")
    embedding(9).push_to_hub("org/shared", token=hub.tokens.write, index=zoo())
    names = [str(tmp_path / "mine"), "task2", str(tmp_path / "one.safetensors"), "org/shared"]
    found = load_embeddings(names, tmp_path / "index", token=hub.tokens.read)
    for one, seed in zip(found, (7, 3, 8, 9), strict=True):
        np.testing.assert_array_equal(one.values, embedding(seed).values)
    monkeypatch.chdir(tmp_path)
    embedding(6).save(Path("org/shared"))  # what lies here comes first
    np.testing.assert_array_equal(load_embeddings(["org/shared"])[0].values, embedding(6).values)


def test_names_of_nothing(hub: HubServer, tmp_path: Path) -> None:
    zoo().save(tmp_path / "index")
    with pytest.raises(HubNotFoundError, match="and there is no folder or file 'org/nowhere' here"):
        load_embeddings(["org/nowhere"])
    with pytest.raises(EmbeddingError, match="is neither a file nor a task of the index"):
        load_embeddings(["./org"], tmp_path / "index")  # never asked of the Hub
    with pytest.raises(EmbeddingError, match="cannot be read"):
        load_embeddings([str(tmp_path)])


# ---------------------------------------------------------------------- the command


@pytest.fixture
def index(tmp_path: Path) -> Path:
    zoo().save(tmp_path / "index")
    return tmp_path / "index"


def test_all_tasks_of_an_index(index: Path, tmp_path: Path) -> None:
    result = run("--index", index, "-o", tmp_path / "new" / "all.html", "--json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert [task["name"] for task in document["tasks"]] == list(REFERENCES)
    assert {task["domain"] for task in document["tasks"]} == {"made_up"}
    expected = map_tasks([embedding(i + 1) for i in range(4)], REFERENCES)
    np.testing.assert_allclose(document["distances"], expected.distances)
    assert document["diversity"]["mean"] == pytest.approx(expected.diversity.mean)
    page = (tmp_path / "new" / "all.html").read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>")
    assert all(name in page for name in REFERENCES)


def test_named_tasks(index: Path, tmp_path: Path) -> None:
    embedding(9).save(tmp_path / "mine")
    output = ["-o", tmp_path / "map.html", "--index", index]
    result = run(tmp_path / "mine", "task0", *output)
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].split()[:3] == ["first", "second", "distance"]
    assert lines[1].split()[:2] == [str(tmp_path / "mine"), "task0"]
    by_cosine = run("task0", "task1", *output, "--kind", "cosine").stdout
    assert "Diversity of the 2 tasks (mean distance over 1 pairs, cosine): " in by_cosine
    assert run("task1", "task0", "task1", *output, "-q").stdout == f"{tmp_path / 'map.html'}\n"  # twice is once
    both = json.loads(run(tmp_path / "mine", *output, "--with-index", "--json").stdout)
    assert [task["name"] for task in both["tasks"]] == [str(tmp_path / "mine"), *REFERENCES]
    assert both["tasks"][0]["domain"] is None


def test_commands_that_cannot_be(index: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for arguments, code, message in (
        (["task0"], 2, "A map needs two tasks or more: name more, or add --with-index."),
        (["task0", "task1", "-o", tmp_path / "map.png"], 2, "the map is a web page, so name it .html"),
        (["task0", "task1", "--kind", "euclid"], 2, "'euclid' is not one of 'log_correlation', 'cosine'"),
        (["task0", "nowhere"], 4, "'nowhere' is neither a file nor a task of the index"),
        (["task0", "task1", "-o", tmp_path / "file" / "map.html"], 8, "error: the map cannot be written to"),
    ):
        output = [] if "-o" in arguments else ["-o", tmp_path / "map.html"]
        result = run(*arguments, "--index", index, *output)
        assert (result.exit_code, message in result.stderr) == (code, True), result.stderr
        assert not (tmp_path / "map.html").exists()

"""Plots: what is drawn is what was given, names do not cover each other, and nothing global changes."""

from __future__ import annotations

import io
import itertools
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shipped_map import shipped_map
from synthetic import SIZES, dataset, embedding, tiny_probe

from hf_task2vec import plots
from hf_task2vec.errors import EmbeddingError, ProbeMismatchError, SelectionError, Task2VecError
from hf_task2vec.plots.style import COLOURS, SHAPES, domain_styles
from hf_task2vec.ranking import Candidate, Ranking
from hf_task2vec.task_map import TaskMap, map_tasks

if TYPE_CHECKING:
    from matplotlib.figure import Figure

pytest.importorskip("matplotlib", reason="Matplotlib is not installed (extra [report])")


@pytest.fixture(autouse=True)
def nothing_global() -> Any:
    """Fail a test that changes Matplotlib's settings or opens a figure of pyplot."""
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    before = dict(mpl.rcParams)
    yield
    assert dict(mpl.rcParams) == before
    assert plt.get_fignums() == []


@pytest.fixture(scope="module")
def shipped() -> TaskMap:
    return shipped_map()


def saved(figure: Figure) -> int:
    """Draw a figure as PNG and SVG, and return the bytes of the latter."""
    for form in ("png", "svg"):
        stream = io.BytesIO()
        figure.savefig(stream, format=form, dpi=72)
    return len(stream.getvalue())


def boxes_of(figure: Figure, names: list[str] | tuple[str, ...]) -> dict[str, Any]:
    """Return where the texts among `names` stand, in pixels."""
    from matplotlib.text import Text

    figure.canvas.draw()
    texts = [text for text in figure.findobj(Text) if text.get_text() in names and text.get_visible()]
    return {text.get_text(): text.get_window_extent() for text in texts}


def overlapping(boxes: dict[str, Any]) -> list[tuple[str, str]]:
    return [(a, b) for a, b in itertools.combinations(boxes, 2) if boxes[a].overlaps(boxes[b])]


# ---------------------------------------------------------------------- tasks


def test_map_of_the_shipped_index_is_readable(shipped: TaskMap) -> None:
    figure = plots.task_map(shipped, highlight=["cifar10"])
    names = [name for name in shipped.names if len(name) <= 32]
    boxes = boxes_of(figure, names)
    assert len(boxes) >= 0.95 * len(names)  # a crowd may cost some
    assert overlapping(boxes) == []
    frame = figure.axes[0].get_window_extent()
    assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 for box in boxes.values())
    drawn = np.concatenate([dots.get_offsets() for dots in figure.axes[0].collections[:-1]])
    assert {tuple(p) for p in drawn.round(6)} == {tuple(p) for p in shipped.positions.round(6)}
    assert figure.axes[0].collections[-1].get_offsets().tolist() == [
        shipped.positions[shipped.names.index("cifar10")].tolist()
    ]
    assert len(figure.legends[0].get_texts()) == len(set(shipped.domains))
    assert saved(figure) < 300_000


def test_map_without_domains_has_no_legend() -> None:
    figure = plots.task_map(map_tasks([embedding(seed) for seed in range(3)]))
    assert figure.legends == []
    assert "MDS, which keeps distances" in figure.axes[0].get_title(loc="left")


def test_two_tasks_in_one_place() -> None:
    tasks = map_tasks([embedding(0), embedding(0)], ["a", "b"])
    for plot in (plots.task_map, plots.distance_matrix):
        saved(plot(tasks))


def test_names_that_are_hard_to_draw() -> None:
    names = ["$\\frac{1", "日本語", "a\nb", "<b>&amp;", "_" * 90]
    tasks = map_tasks([embedding(seed) for seed in range(5)], names, ["$x$", "é", None, "\\", "😀"])
    for plot in (plots.task_map, plots.distance_matrix):
        saved(plot(tasks))  # warnings are errors
    assert "$\\frac{1" in boxes_of(plots.task_map(tasks), names)


def test_matrix_is_in_the_order_of_its_dendrogram(shipped: TaskMap) -> None:
    from scipy.cluster.hierarchy import leaves_list

    figure = plots.distance_matrix(shipped)
    order = leaves_list(shipped.linkage())
    image = figure.axes[1].images[0].get_array()
    expected = shipped.distances[np.ix_(order, order)]
    off = ~np.eye(len(shipped), dtype=bool)
    np.testing.assert_array_equal(np.asarray(image)[off], expected[off])
    labels = [label.get_text() for label in figure.axes[1].get_yticklabels()]
    assert labels == [shipped.names[i] for i in order]
    # Neighbours in this order are nearer than tasks at random.
    assert np.diag(expected, 1).mean() < 0.7 * shipped.diversity.mean
    figure.canvas.draw()
    rows = [label.get_window_extent() for label in figure.axes[1].get_yticklabels()]
    assert not any(a.overlaps(b) for a, b in itertools.pairwise(rows))
    assert saved(figure) < 300_000


def test_matrix_marks_near_duplicates() -> None:
    tasks = map_tasks([embedding(0), embedding(1), embedding(0)], ["a", "b", "c"], duplicate_ratio=1.0)
    figure = plots.distance_matrix(tasks)
    labels = [label.get_text() for label in figure.axes[1].get_yticklabels()]
    dots = {tuple(map(int, dot)) for dot in figure.axes[1].collections[0].get_offsets()}
    a, c = labels.index("a"), labels.index("c")
    assert dots == {(a, c), (c, a)}


@given(st.lists(st.one_of(st.none(), st.integers(0, 30).map(str)), max_size=60))
def test_domains_can_be_told_apart(domains: list[str | None]) -> None:
    styles = domain_styles(domains)
    assert set(styles) == set(domains)
    known = [style for domain, style in styles.items() if domain is not None]
    full = len(COLOURS) * len(SHAPES)
    assert len(set(known[:full])) == len(known[:full])
    assert set(known[full:]) <= {(len(COLOURS), 0)}


# ---------------------------------------------------------------------- embeddings


def test_profile_shows_the_quartiles_of_each_layer() -> None:
    mine, others = embedding(0), [embedding(seed) for seed in range(1, 6)]
    axes = plots.layer_profile(mine, others, name="mine").axes[0]
    layers = np.split(mine.values.astype(np.float64), np.cumsum(SIZES)[:-1])
    lines = {line.get_label(): line for line in axes.lines}
    np.testing.assert_allclose(lines["mine: median"].get_ydata(), [np.median(layer) for layer in layers])
    medians = [[np.median(part) for part in np.split(e.values, np.cumsum(SIZES)[:-1])] for e in others]
    np.testing.assert_allclose(lines["their median"].get_ydata(), np.median(medians, axis=0), rtol=1e-6)
    bars = next(c for c in axes.collections if c.get_label() == "quartiles over the filters")
    found = [segment[:, 1] for segment in bars.get_segments()]
    np.testing.assert_allclose(found, [np.quantile(layer, (0.25, 0.75)) for layer in layers])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "2"]
    assert [line.get_label() for line in plots.layer_profile(mine).axes[0].lines] == ["task0: median"]


def test_profile_of_layers_without_information() -> None:
    values = np.concatenate([np.zeros(SIZES[0]), np.full(SIZES[1], 0.5)]).astype(np.float32)
    axes = plots.layer_profile(embedding(0, values=values), [embedding(1)]).axes[0]
    assert axes.get_ylim()[0] > 1e-9  # nothing is drawn down to the logarithm of zero
    saved(plots.layer_profile(embedding(0, values=np.zeros_like(values))))
    with pytest.raises(ProbeMismatchError):
        plots.layer_profile(embedding(0), [embedding(1, weights_hash="cd" * 32)])


def test_noise_curve_of_growing_samples() -> None:
    from hf_task2vec.embed import embed_task
    from hf_task2vec.task import Task

    task = Task.from_dataset(dataset(40, 2), max_samples=40)
    found = plots.embed_prefixes(task, tiny_probe())
    assert [one.descriptors["n_samples"] for one in found] == [16, 32, 40]
    alone = embed_task(task.subset(range(16)), tiny_probe())
    np.testing.assert_array_equal(found[0].values, alone.values)
    figure = plots.noise_curve([found[2], found[0], found[1]], tolerance=0.2)
    (curve, line) = figure.axes[0].lines
    np.testing.assert_array_equal(curve.get_xdata(), [16, 32, 40])
    np.testing.assert_array_equal(curve.get_ydata(), [one.descriptors["noise"] for one in found])
    assert set(line.get_ydata()) == {0.2}
    assert figure.axes[0].get_ylim()[1] > 0.2
    saved(figure)
    for counts in ([1], [16, 41]):
        with pytest.raises(EmbeddingError, match="must lie between 2 and the 40 images of the sample"):
            plots.embed_prefixes(task, tiny_probe(), counts)


def test_noise_curves_have_one_line_a_task() -> None:
    axes = plots.noise_curve([embedding(0), embedding(1), embedding(0)]).axes[0]
    assert [line.get_label() for line in axes.lines][:2] == ["task0", "task1"]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["task0", "task1"]
    with pytest.raises(EmbeddingError, match="none of the 1 embeddings has the descriptors noise and n_fisher"):
        plots.noise_curve([embedding(0, descriptors={})])


# ---------------------------------------------------------------------- rankings


def candidate(rank: int, score: float, cost: float | None, hub_id: str | None = None) -> Candidate:
    facts: dict[str, Any] = dict.fromkeys(("input_px", "license", "pretraining", "in1k_top1"))
    return Candidate(
        rank=rank, hub_id=hub_id or f"org/model-{rank}", score=score, std=0.02, low=score - 0.03, high=score + 0.03,
        prior=score, residual=0.0, params_m=cost, gmacs=None if cost is None else cost / 10, library="timm",
        architecture="net", evidence="", **facts,
    )  # fmt: skip


def ranking(candidates: list[Candidate]) -> Ranking:
    return Ranking(tuple(candidates), "org/data", "", (), {}, n_ranked=len(candidates) + 3)


costs = st.one_of(st.none(), st.integers(1, 8).map(float))


@settings(max_examples=200)
@given(st.lists(st.tuples(st.integers(1, 9), costs), min_size=1, max_size=12))
def test_front_is_what_nothing_beats(facts: list[tuple[int, float | None]]) -> None:
    candidates = [candidate(k, score / 10, cost) for k, (score, cost) in enumerate(facts, start=1)]
    front = plots.pareto_front(candidates)
    known = [c for c in candidates if c.params_m is not None]

    def beaten(c: Candidate) -> bool:
        return any(
            o.params_m <= c.params_m and o.score >= c.score and (o.params_m, o.score) != (c.params_m, c.score)
            for o in known
        )

    best = {(c.params_m, c.score) for c in known if not beaten(c)}
    assert [(c.params_m, c.score) for c in front] == sorted(best)
    assert len({c.hub_id for c in front}) == len(front)


def test_pareto_plot_shows_every_candidate_of_known_cost() -> None:
    rng = np.random.default_rng(0)
    candidates = [candidate(k, float(rng.uniform(0.5, 0.9)), float(rng.lognormal(3, 1))) for k in range(1, 31)]
    figure = plots.pareto(ranking([*candidates, candidate(31, 0.99, None)]))
    axes = figure.axes[0]
    front = plots.pareto_front(candidates)
    dots = {c.get_label(): np.asarray(c.get_offsets()) for c in axes.collections if hasattr(c, "get_sizes")}
    by_label = {label.partition(":")[0]: places for label, places in dots.items()}
    expected = np.array([(c.params_m, 100 * c.score) for c in front])
    np.testing.assert_allclose(by_label["Pareto front"], expected)
    assert len(by_label["other candidates"]) == 30 - len(front)
    bars = [c for c in axes.collections if hasattr(c, "get_segments")]
    ends = sorted(tuple(segment[:, 1]) for c in bars for segment in c.get_segments())
    np.testing.assert_allclose(ends, sorted((100 * c.low, 100 * c.high) for c in candidates))
    assert axes.get_xscale() == "log"
    assert "(not known of 1, left out)" in axes.get_xlabel()
    assert axes.get_title(loc="left") == "30 of 34 checkpoints for org/data"
    numbers = [str(k) for k in range(1, len(front) + 1)]
    boxes = boxes_of(figure, numbers)
    assert list(boxes) == numbers
    assert overlapping(boxes) == []
    (key,) = [text.get_text() for text in axes.texts if "\n" in text.get_text()]
    assert [line.split()[1] for line in key.splitlines()[::2]] == [c.hub_id for c in front[::-1]]
    saved(figure)


def test_pareto_by_compute_and_alone() -> None:
    figure = plots.pareto(ranking([candidate(1, 0.9, 50.0, "org/$a_b")]), cost="gmacs")
    assert "multiply-adds" in figure.axes[0].get_xlabel()
    assert "5 GMACs" in figure.axes[0].texts[0].get_text()
    saved(figure)
    with pytest.raises(SelectionError, match="cost='seconds' is unknown; choose one of params_m, gmacs"):
        plots.pareto(ranking([candidate(1, 0.9, 50.0)]), cost="seconds")
    with pytest.raises(SelectionError, match="params_m is not known of any of the 1 candidates"):
        plots.pareto(ranking([candidate(1, 0.9, None)]))


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    tasks = map_tasks([embedding(0), embedding(1)])
    for plot, argument in (
        (plots.task_map, tasks),
        (plots.distance_matrix, tasks),
        (plots.layer_profile, embedding(0)),
        (plots.noise_curve, [embedding(0)]),
        (plots.pareto, ranking([candidate(1, 0.9, 1.0)])),
    ):
        with pytest.raises(Task2VecError, match=r"which is missing: pip install 'hf-task2vec\[report\]'"):
            plot(argument)
    assert "<svg" in plots.map_page(tasks)

"""Containment of tasks: statistics by their formulas, a model on made-up class trees, its file, and the benchmark."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import containment as relations
import numpy as np
import pytest
from containment import ContainmentModel, containment_scores, contains, f1_threshold
from hypothesis import given
from hypothesis import strategies as st
from synthetic import embedding
from task_pairs import HALF_SIDE, STATISTICS, pair_statistics

from hf_task2vec.distance import DISTANCES, log_correlation
from hf_task2vec.embedding import TaskEmbedding
from hf_task2vec.errors import EmbeddingError, MetricError, ProbeMismatchError, SchemaVersionError, Task2VecError

P = len(STATISTICS)
HASH = "ab" * 32
WIDTH = 48


class World:
    """A made-up dataset: classes are clusters, in branches, and a task is some of the classes."""

    def __init__(self, seed: int, branches: int = 3, leaves: int = 4) -> None:
        rng = np.random.default_rng(seed)
        origin = rng.normal(0, 2, WIDTH)
        centres = origin + np.repeat(rng.normal(0, 0.8, (branches, WIDTH)), leaves, axis=0)
        self.centres = centres + rng.normal(0, 0.8, centres.shape)
        self.spread = rng.uniform(0.3, 1.0, WIDTH)
        self.fisher = rng.lognormal(0, 1, (len(centres), 24))
        every = tuple(range(len(centres)))
        self.nodes = [every, *(every[i * leaves : (i + 1) * leaves] for i in range(branches))]
        self.nodes += [node[:2] for node in self.nodes[1:]] + [node[2:] for node in self.nodes[1 : branches + 1]]
        self.rng = rng

    def embed(self, classes: tuple[int, ...], each: int = 8) -> TaskEmbedding:
        """Draw images of the classes."""
        labels = np.repeat(classes, each)
        z = self.centres[labels] + self.rng.normal(size=(len(labels), WIDTH)) * self.spread
        middle = np.repeat([z[labels == c].mean(axis=0) for c in classes], each, axis=0)
        base = embedding()
        numbers = {"n_classes": len(classes), "n_samples": len(z)}
        numbers["class_separation"] = 1 - ((z - middle) ** 2).sum() / ((z - z.mean(axis=0)) ** 2).sum()
        values = self.fisher[list(classes)].mean(axis=0) * self.rng.lognormal(0, 0.1, 24)
        return replace(
            base,
            values=values.astype(np.float32)[None],
            feature_mean=z.mean(axis=0, keepdims=True).astype(np.float32),
            feature_var=z.var(axis=0, keepdims=True).astype(np.float32),
            task_descriptors=({**base.descriptors, **{k: float(v) for k, v in numbers.items()}},),
        )


def pairs(seeds: range) -> tuple[np.ndarray, np.ndarray]:
    """Statistics and truth of all ordered pairs of nodes of several worlds."""
    worlds = [World(seed) for seed in seeds]
    nodes = [(k, node) for k, world in enumerate(worlds) for node in world.nodes]
    general, special = ([worlds[k].embed(node) for k, node in nodes] for _ in range(2))
    truth = np.array([[a[0] == b[0] and set(a[1]) > set(b[1]) for b in nodes] for a in nodes])
    off = ~np.eye(len(nodes), dtype=bool)
    return pair_statistics(general, special)[off], truth[off]


@pytest.fixture(scope="module")
def model() -> ContainmentModel:
    return ContainmentModel.fit(*pairs(range(5)), HASH, training={"worlds": 5})


def test_statistics_follow_their_formulas() -> None:
    a, b = World(0).embed((0, 1, 2)), World(1).embed((0, 1), each=5)
    found = dict(zip(STATISTICS, pair_statistics([a], [b])[0, 0], strict=True))
    n = np.array([24.0, 10.0])[:, None]
    mean = np.concatenate([a.feature_mean, b.feature_mean]).astype(float)
    var = np.concatenate([a.feature_var, b.feature_var]).astype(float) * n / (n - 1)
    separation = np.array([[a.descriptors["class_separation"]], [b.descriptors["class_separation"]]])
    noise = (var * (1 - separation) / n).sum(axis=0)
    shift = np.maximum((mean[0] - mean[1]) ** 2 - noise, 0)
    within = np.log((var * (1 - separation)).sum(axis=1))
    v = var + 0.01 * var.mean()
    side = HALF_SIDE * np.sqrt(v)
    shared = np.minimum(*(mean + side)) - np.maximum(*(mean - side))
    expected = {
        "shift_by_general": np.log(1e-3 + np.mean(shift / v[0])),
        "shift_by_special": np.log(1e-3 + np.mean(shift / v[1])),
        "shift_of_sums": np.log(1e-3 + shift.sum() / v[0].sum()),
        "spread_mean": np.mean(np.log(v[1] / v[0])),
        "spread_deviation": np.std(np.log(v[1] / v[0])),
        "reach_90": np.percentile(np.log((shift + v[1]) / v[0]), 90),
        "reach_99": np.percentile(np.log((shift + v[1]) / v[0]), 99),
        "overlap": np.mean(np.maximum(shared, 0) / (2 * side[1])),
        "within_ratio": within[1] - within[0],
        "class_ratio": np.log(3 / 2),
        "fisher_distance": log_correlation(a.values.astype(float), b.values.astype(float), a.layer_sizes)[0, 0],
        "fisher_level": np.mean(np.log(b.values.astype(float) / a.values)),
    }
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-9)


@given(scale=st.floats(0.01, 100.0), shift=st.floats(-3.0, 3.0), seed=st.integers(0, 50))
def test_statistics_ignore_the_unit_of_features_and_fisher_values(scale: float, shift: float, seed: int) -> None:
    world = World(seed)
    plain = [world.embed(world.nodes[k]) for k in (0, 1)]
    moved = [
        replace(
            e,
            values=(e.values * np.float32(scale)),
            feature_mean=((e.feature_mean.astype(float) + shift) * scale).astype(np.float32),
            feature_var=(e.feature_var.astype(float) * scale**2).astype(np.float32),
        )
        for e in plain
    ]
    np.testing.assert_allclose(pair_statistics(moved, moved), pair_statistics(plain, plain), rtol=1e-3, atol=1e-3)


def test_statistics_of_many_pairs_are_those_of_each() -> None:
    world = World(3)
    tasks = [world.embed(node) for node in world.nodes[:4]]
    found = pair_statistics(tasks, tasks[:3])
    assert found.shape == (4, 3, P)
    np.testing.assert_allclose(found[2, 1], pair_statistics([tasks[2]], [tasks[1]])[0, 0], rtol=1e-12)
    degenerate = replace(tasks[0], feature_var=np.zeros((1, WIDTH), dtype=np.float32))
    assert np.isfinite(pair_statistics([degenerate, tasks[0]], [degenerate, tasks[0]])).all()


def test_containment_in_worlds_not_learned_from(model: ContainmentModel) -> None:
    statistics, truth = pairs(range(100, 104))
    said = model.probabilities(statistics) >= model.threshold
    f1 = 2 * (said & truth).sum() / (said.sum() + truth.sum())
    assert truth.mean() < 0.1
    assert f1 > 0.8
    world = World(200)
    whole, part, other = world.embed(world.nodes[0]), world.embed(world.nodes[1]), World(201).embed((0, 1, 2, 3))
    assert contains(whole, part, model) > model.threshold
    assert contains(part, whole, model) < model.threshold
    assert contains(whole, other, model) < model.threshold
    matrix = containment_scores([whole, part], [part, other], model)
    assert matrix.shape == (2, 2)
    assert matrix[0, 0] == pytest.approx(contains(whole, part, model))


def test_learning_is_exact_and_counts_stand_for_copies() -> None:
    statistics, truth = pairs(range(2))
    rng = np.random.default_rng(0)
    truth = truth ^ (rng.random(len(truth)) < 0.1)  # else they can be told apart without a mistake
    first, again = (ContainmentModel.fit(statistics, truth, HASH) for _ in range(2))
    assert (first.weights == again.weights).all()
    counts = np.where(truth, 5, 1)
    counted = ContainmentModel.fit(statistics, truth, HASH, counts=counts)
    copied = ContainmentModel.fit(np.repeat(statistics, counts, axis=0), np.repeat(truth, counts), HASH)
    np.testing.assert_allclose(counted.probabilities(statistics), copied.probabilities(statistics), atol=1e-3)
    assert np.abs(first.probabilities(statistics) - copied.probabilities(statistics)).max() > 0.01
    stronger = ContainmentModel.fit(statistics, truth, HASH, l2=10.0)
    assert np.abs(stronger.probabilities(statistics) - truth.mean()).max() < 0.5


def test_threshold_has_the_largest_f1() -> None:
    rng = np.random.default_rng(0)
    scores, truth, counts = rng.integers(0, 8, 60) / 8, rng.random(60) < 0.3, rng.uniform(0.5, 2, 60)

    def f1(threshold: float) -> float:
        said = scores >= threshold
        return 2 * counts[said & truth].sum() / (counts[said].sum() + counts[truth].sum())

    best = f1_threshold(scores, truth, counts)
    assert f1(best) == pytest.approx(max(f1(t) for t in np.unique(scores)))
    assert f1_threshold(np.array([0.1, 0.9, 0.9]), np.array([False, True, True])) == 0.9


def test_a_saved_model_comes_back(model: ContainmentModel, tmp_path: Path) -> None:
    model.save(tmp_path / "m.json")
    again = ContainmentModel.load(tmp_path / "m.json")
    statistics, _ = pairs(range(50, 51))
    np.testing.assert_array_equal(again.probabilities(statistics), model.probabilities(statistics))
    assert (again.threshold, again.weights_hash, again.training) == (model.threshold, HASH, {"worlds": 5})
    assert (tmp_path / "m.json").stat().st_size < 20_000


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"schema_version": 9}, SchemaVersionError, "schema version 9"),
        ({"statistics": ["overlap"]}, SchemaVersionError, "reads other statistics"),
        ({"weights": [0.0]}, MetricError, "weights must be finite, of shape"),
        ({"centre": ["x"] * P}, MetricError, "malformed"),
        ({"bias": None}, MetricError, "malformed"),
        ({"scale": [0.0] * P}, MetricError, "scale must be > 0"),
        ({"threshold": 2.0}, MetricError, r"threshold in \[0, 1\]"),
        ({"training": 3}, MetricError, "malformed"),
    ],
)
def test_a_damaged_file_is_refused(
    model: ContainmentModel, tmp_path: Path, change: dict[str, Any], error: type[Task2VecError], says: str
) -> None:
    path = tmp_path / "m.json"
    model.save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(error, match=says):
        ContainmentModel.load(path)


@pytest.mark.parametrize("text", ["{", "[]", "7"])
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "m.json").write_text(text)
    with pytest.raises(Task2VecError, match=r"m\.json"):
        ContainmentModel.load(tmp_path / "m.json")
    with pytest.raises(MetricError, match="cannot be read"):
        ContainmentModel.load(tmp_path / "missing.json")


def test_wrong_arguments_are_named(model: ContainmentModel) -> None:
    task = World(0).embed((0, 1))
    with pytest.raises(EmbeddingError, match="at least one general and one special task"):
        containment_scores([], [task], model)
    old = replace(task, task_descriptors=({"n_classes": 2.0},))
    with pytest.raises(EmbeddingError, match="lacks the descriptors n_samples, class_separation"):
        contains(task, old, model)
    foreign = replace(task, probe={**task.probe, "weights_hash": "cd" * 32})
    with pytest.raises(ProbeMismatchError, match="embed both with the same probe"):
        contains(task, foreign, model)
    with pytest.raises(ProbeMismatchError, match="the containment model was trained with weights abab"):
        contains(foreign, foreign, model)


@pytest.mark.parametrize(
    ("statistics", "truth", "says"),
    [
        (np.zeros((3, P - 1)), [True, False, True], "must be finite, of shape"),
        (np.full((2, P), np.nan), [True, False], "must be finite"),
        (np.zeros((2, P)), [True, True], "all training pairs are of one kind"),
        (np.zeros((2, P)), [False, False], "all training pairs are of one kind"),
    ],
)
def test_pairs_that_teach_nothing_are_refused(statistics: np.ndarray, truth: list[bool], says: str) -> None:
    with pytest.raises(MetricError, match=says):
        ContainmentModel.fit(statistics, np.array(truth), HASH)


def test_the_shipped_model_fits_the_shipped_index() -> None:
    from hf_task2vec.zoo import ZooIndex

    table = ZooIndex.load().embeddings
    embeddings = [table[name] for name in ("cifar100", "trashnet", "mnist")]
    model = relations.default_model()
    assert 0.0 < model.threshold < 1.0
    scores = containment_scores(embeddings, embeddings)
    off = ~np.eye(3, dtype=bool)
    assert (scores[off] < model.threshold).all()  # none of these contains another
    assert contains(embeddings[0], embeddings[1]) == pytest.approx(scores[0, 1])


@pytest.fixture
def benchmark_module(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1] / "benchmarks"))

    def load(name: str) -> Any:
        import importlib

        return importlib.import_module(name)

    return load


def test_halves_of_a_tree_share_no_image(benchmark_module: Callable[[str], Any], shared: Path) -> None:
    (first, second), nodes = benchmark_module("relations_tasks").halves("eth80")
    assert not set(first.images) & set(second.images)
    assert len(first.images) > 100
    by_name = {node.name: node.cells for node in nodes}
    assert by_name["all"] > by_name["living"] > by_name["living/animal"]
    assert not by_name["living"] > by_name["thing"]


def test_protocols_judge_each_pair_once_and_learn_from_none_judged(benchmark_module: Callable[[str], Any]) -> None:
    tasks, bench = benchmark_module("relations_tasks"), benchmark_module("relations")
    nodes = [tasks.Node(f"tree{k % 7}", str(k), frozenset({("", str(k))})) for k in range(28)]
    for protocol in (bench.novel_datasets, bench.withheld_pairs):
        judged = np.zeros((28, 28), dtype=int)
        for train, valid, test in protocol(nodes):
            assert train.any()
            assert valid.any()
            assert not (train & valid).any()
            assert not ((train | valid) & test).any()
            judged += test
        np.testing.assert_array_equal(judged, 1 - np.eye(28, dtype=int))
    for train, valid, test in bench.novel_datasets(nodes):
        seen = {nodes[i].tree for i in np.argwhere(train | valid).ravel()}
        assert not seen & {nodes[j].tree for j in np.argwhere(test)[:, 1]}


def test_committed_figures_beat_the_untrained_distances() -> None:
    path = Path(__file__).resolve().parents[1] / "benchmarks" / "results" / "relations.json"
    found = json.loads(path.read_text(encoding="utf-8"))["containment"]
    for protocol in ("novel datasets", "withheld pairs"):
        figures = found[protocol]
        assert figures["learned score"]["f1"] > 2 * max(figures[kind]["f1"] for kind in DISTANCES)

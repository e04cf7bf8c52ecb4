"""Containment of tasks: statistics by their formulas, a model on made-up class trees, and the benchmark."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.common import read
from benchmarks.relations.containment import judge, novel_datasets, withheld_pairs
from benchmarks.relations.containment_score import (
    HALF_SIDE,
    STATISTICS,
    ContainmentModel,
    f1_threshold,
    pair_statistics,
)
from benchmarks.relations.nodes import Node, halves
from benchmarks.relations.similarity import Measured, agreement
from hf_task2vec.embedding.distance import DISTANCES, log_correlation
from hf_task2vec.embedding.task_embedding import TaskEmbedding
from tests.support.synthetic import embedding

P = len(STATISTICS)
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
    return ContainmentModel.fit(*pairs(range(5)))


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
    found = model.probabilities(pair_statistics([whole, part], [whole, part, other])) > model.threshold
    assert found[0, 1]
    assert not found[1, 0]
    assert not found[:, 2].any()


def test_counts_stand_for_copies() -> None:
    statistics, truth = pairs(range(2))
    rng = np.random.default_rng(0)
    truth = truth ^ (rng.random(len(truth)) < 0.1)  # else they can be told apart without a mistake
    counts = np.where(truth, 5, 1)
    plain = ContainmentModel.fit(statistics, truth)
    counted = ContainmentModel.fit(statistics, truth, counts)
    copied = ContainmentModel.fit(np.repeat(statistics, counts, axis=0), np.repeat(truth, counts))
    np.testing.assert_allclose(counted.probabilities(statistics), copied.probabilities(statistics), atol=1e-3)
    assert np.abs(plain.probabilities(statistics) - copied.probabilities(statistics)).max() > 0.01


def test_threshold_has_the_largest_f1() -> None:
    rng = np.random.default_rng(0)
    scores, truth, counts = rng.integers(0, 8, 60) / 8, rng.random(60) < 0.3, rng.uniform(0.5, 2, 60)

    def f1(threshold: float) -> float:
        said = scores >= threshold
        return 2 * counts[said & truth].sum() / (counts[said].sum() + counts[truth].sum())

    best = f1_threshold(scores, truth, counts)
    assert f1(best) == pytest.approx(max(f1(t) for t in np.unique(scores)))
    assert f1_threshold(np.array([0.1, 0.9, 0.9]), np.array([False, True, True])) == 0.9


def test_halves_of_a_tree_share_no_image(shared: Path) -> None:
    (first, second), nodes = halves("eth80")
    assert not set(first.images) & set(second.images)
    assert len(first.images) > 100
    by_name = {node.name: node.cells for node in nodes}
    assert by_name["all"] > by_name["living"] > by_name["living/animal"]
    assert not by_name["living"] > by_name["thing"]


def test_protocols_judge_each_pair_once_and_learn_from_none_judged() -> None:
    nodes = [Node(f"tree{k % 7}", str(k), frozenset({("", str(k))})) for k in range(28)]
    for protocol in (novel_datasets, withheld_pairs):
        judged = np.zeros((28, 28), dtype=int)
        for train, valid, test in protocol(nodes):
            assert train.any()
            assert valid.any()
            assert not (train & valid).any()
            assert not ((train | valid) & test).any()
            judged += test
        np.testing.assert_array_equal(judged, 1 - np.eye(28, dtype=int))
    for train, valid, test in novel_datasets(nodes):
        seen = {nodes[i].tree for i in np.argwhere(train | valid).ravel()}
        assert not seen & {nodes[j].tree for j in np.argwhere(test)[:, 1]}


def test_f1_of_what_is_said_by_scikit_learn() -> None:
    from sklearn.metrics import f1_score

    rng = np.random.default_rng(0)
    said, contained = rng.random((2, 12, 12)) < 0.3
    found = judge(said, contained, np.repeat(["a", "b", "c"], 4))
    assert found["f1"] == pytest.approx(100 * f1_score(contained.ravel(), said.ravel()), abs=0.01)
    assert found["f1_interval_95"][0] < found["f1"] < found["f1_interval_95"][1]
    assert judge(contained, contained, np.repeat(["a", "b", "c"], 4))["f1"] == 100.0


def test_near_duplicates_are_no_pairs_and_a_similarity_agrees_with_itself() -> None:
    rows = np.random.default_rng(0).normal(size=(20, 12))
    measured = Measured(np.arange(20), np.corrcoef(rows), np.array([0, *range(19)]))
    assert measured.pairs.sum() == 189
    assert not measured.pairs[0, 1]
    found = agreement(measured.similarity**3, measured)
    assert found["spearman"]["value"] == pytest.approx(1.0)
    assert found["pearson"]["value"] < 1.0


def test_committed_figures_beat_the_untrained_distances() -> None:
    for protocol in ("novel datasets", "withheld pairs"):
        figures = read("containment")[protocol]
        assert figures["learned score"]["f1"] > 2 * max(figures[kind]["f1"] for kind in DISTANCES)

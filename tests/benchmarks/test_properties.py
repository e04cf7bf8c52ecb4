"""The scripts that measure what embeddings tell: their statistics, and the tasks that they cut."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from benchmarks.class_trees import TREES
from benchmarks.common import ROOT
from benchmarks.properties.distances import matched, rank_agreement
from benchmarks.properties.labels import shuffled
from benchmarks.properties.retrieval import judge
from benchmarks.properties.samples import halves_of, shrunk
from benchmarks.properties.taxonomy import tree_agreement, tree_distances
from hf_task2vec import Task


def test_tree_distance_counts_edges() -> None:
    paths = ("living/animal/dogs", "living/animal/cats", "living/trees", "thing/food/fruit")
    assert tree_distances(paths)[0].tolist() == [0, 2, 3, 6]


def test_distances_that_are_the_tree_agree_with_it_wholly() -> None:
    tree = tree_distances(["a/b/1", "a/b/2", "a/c/3", "a/c/4", "d/e/5", "d/e/6", "d/f/7"])
    found = tree_agreement(tree / 10, tree, permutations=499)
    assert found["spearman"] == pytest.approx(1.0)
    assert found["p_value"] < 0.05
    order = np.random.default_rng(3).permutation(7)
    assert tree_agreement(tree[np.ix_(order, order)], tree, permutations=499)["p_value"] > 0.05


def test_leaves_of_the_trees_are_told_apart() -> None:
    for name, tree in TREES.items():
        classes = [label for branch in tree.branches.values() for label in branch if label != "*"]
        assert len(classes) == len(set(classes)), name


def test_halves_that_are_nearest_find_each_other() -> None:
    points = np.array([0.0, 1.0, 5.0, 6.0, 20.0, 22.0])
    found = judge(np.abs(points[:, None] - points[None, :]))
    assert (found["top1"], found["auc"]) == (1.0, 1.0)
    assert found["mean_sibling_distance"] == pytest.approx(4 / 3)
    points[1] = 5.5
    assert judge(np.abs(points[:, None] - points[None, :]))["top1"] < 1.0


def test_tasks_nearest_to_themselves() -> None:
    cross = np.array([[0.1, 1.0, 1.0], [1.0, 0.2, 1.0], [0.2, 1.0, 0.3]])
    assert matched(cross) == {"same_task": 0.2, "other_tasks": 1.0, "top1": pytest.approx(2 / 3)}


def test_agreement_is_of_ranks_alone() -> None:
    distance = np.abs(np.subtract.outer(*[np.random.default_rng(0).normal(size=6)] * 2))
    assert rank_agreement(distance, distance**2) == pytest.approx(1.0)


@pytest.fixture(scope="module")
def digits() -> Task:
    return Task.from_dataset("sklearn:digits", max_samples=40)


def test_halves_share_no_image_and_mix_classes_alike(digits: Task) -> None:
    first, second = halves_of(digits)
    assert len(first) + len(second) == 40
    assert not set(first.images.sha256) & set(second.images.sha256)
    assert sorted(first.labels) == sorted(second.labels)


def test_shuffling_keeps_images_and_numbers_of_each_class(digits: Task) -> None:
    other = shuffled(digits)
    assert sorted(other.labels) == sorted(digits.labels)
    assert list(other.labels) != list(digits.labels)
    assert other.fingerprint != digits.fingerprint


def test_shrunk_images_are_never_enlarged(digits: Task) -> None:
    assert shrunk(digits, 4).images[0].size == (4, 4)
    assert shrunk(digits, 999).images[0].size == digits.images[0].size


@pytest.mark.slow
@pytest.mark.parametrize("name", ["properties.stability", "relations.containment", "selection.multilabel"])
def test_scripts_explain_themselves(name: str) -> None:
    command = [sys.executable, "-m", f"benchmarks.{name}", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert f"python -m benchmarks.{name}" in done.stdout

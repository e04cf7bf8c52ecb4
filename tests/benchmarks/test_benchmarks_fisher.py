"""The scripts that measure the Fisher embedding: their statistics, class trees and resuming."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hf_task2vec.embedding.task_embedding import TaskEmbedding
from hf_task2vec.tasks.task import Task

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def script(name: str) -> ModuleType:
    """Import a script as it is run: its neighbours are importable by their bare names."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(BENCHMARKS))


statistics, trees = script("properties_statistics"), script("properties_trees")
tasks = script("properties_tasks")


def test_tree_distance_counts_edges() -> None:
    d = trees.tree_distances([("living", "animal"), ("living", "animal"), ("living",), ("thing", "food")])
    assert d[0].tolist() == [0, 2, 3, 6]


def test_distances_that_are_the_tree_agree_with_it_wholly() -> None:
    tree = trees.tree_distances([("a", "b"), ("a", "b"), ("a", "c"), ("a", "c"), ("d", "e"), ("d", "e"), ("d", "f")])
    found = statistics.tree_agreement(tree / 10, tree, permutations=499)
    for name in ("cophenetic", "cophenetic_own", "pearson", "spearman", "same_branch_nearest"):
        assert found[name] == pytest.approx(1.0), name
    assert found["p_value"] < 0.05
    assert 0 < found["same_branch_by_chance"] < 0.5


@pytest.fixture(scope="module")
def digits() -> Task:
    return Task.from_dataset("sklearn:digits", max_samples=40)


def test_permuted_classes_keep_their_images(digits: Task) -> None:
    other = tasks.permuted(digits, seed=1)
    assert other.label_names != digits.label_names
    assert [other.label_names[i] for i in other.labels] == [digits.label_names[i] for i in digits.labels]
    assert dict(zip(other.label_names, other.class_counts, strict=True)) == dict(
        zip(digits.label_names, digits.class_counts, strict=True)
    )
    assert other.fingerprint != digits.fingerprint


def test_coarsened_classes_are_unions(digits: Task) -> None:
    other = tasks.coarsened(digits, 3, seed=0)
    assert other.num_classes == 3
    assert other.class_counts.sum() == digits.class_counts.sum()
    assert all(len(set(other.labels[digits.labels == c])) == 1 for c in range(10))


def _embedding(values: np.ndarray) -> TaskEmbedding:
    return TaskEmbedding(
        values=values.astype(np.float32)[None],
        layer_names=("a", "b"),
        layer_sizes=np.array([len(values) // 2] * 2, dtype=np.int64),
        feature_mean=np.zeros((1, 2), dtype=np.float32),
        feature_var=np.zeros((1, 2), dtype=np.float32),
        probe={"name": "p", "weights_hash": "0"},
        tasks=({},),
        task_descriptors=({},),
    )


def test_an_embedding_is_read_again(digits: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def embed_task(task: Task, probe: Any, **settings: Any) -> TaskEmbedding:
        made.append(settings)
        return _embedding(np.arange(8.0))

    probe = SimpleNamespace(config={"name": "p", "preprocessing": {"side": 1}})
    monkeypatch.setattr(tasks, "embed_task", embed_task)
    for _ in range(2):
        assert tasks.embedded(digits, probe, tmp_path).values.tolist() == [list(range(8))]
    assert len(made) == 1
    tasks.embedded(digits, probe, tmp_path, label_sampling="exact")
    probe.config = {"name": "p", "preprocessing": {"side": 2}}
    tasks.embedded(digits, probe, tmp_path)
    assert len(made) == 3

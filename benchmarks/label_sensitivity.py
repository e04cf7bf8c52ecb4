"""Does the representation of a task know its labels? Part of ``retrieval.py``.

The same images with other labels (shuffled, or coarser) should move a task farther than other images with the same
labels do; so should a subset of the classes. Measured for the Fisher vector alone (the default distance) and for what
the selection uses: minus the logarithm of the trained metric's task similarity.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from hf_task2vec.embedding.cache import cached_embedding
from hf_task2vec.embedding.distance import pairwise
from hf_task2vec.embedding.task_embedding import TaskEmbedding
from hf_task2vec.fisher.head import stratified_folds
from hf_task2vec.metric.covariance import task_kernel
from hf_task2vec.metric.observations import join_tasks
from hf_task2vec.metric.ranking_metric import RankingMetric
from hf_task2vec.probes.probe import Probe
from hf_task2vec.tasks.task import Task
from hf_task2vec.zoo.index import ZooIndex

#: CIFAR-10's living classes.
ANIMALS = ("bird", "cat", "deer", "dog", "frog", "horse")


def shuffled(task: Task, seed: int = 0) -> Task:
    """Return the same images with their labels in random order."""
    return task.with_labels(np.random.default_rng(seed).permutation(task.labels), task.label_names)


def coarse(task: Task, parent: Mapping[str, str]) -> Task:
    """Return the same images under the parents of their classes."""
    names = sorted({parent[name] for name in task.label_names})
    labels = np.array([names.index(parent[task.label_names[label]]) for label in task.labels])
    return task.with_labels(labels, names)


def subset(task: Task, classes: Sequence[str]) -> Task:
    """Return the images of some classes, with those classes alone."""
    kept = [i for i, label in enumerate(task.labels) if task.label_names[label] in classes]
    part = task.subset(kept)
    names = [name for name in task.label_names if name in classes]
    labels = np.array([names.index(task.label_names[label]) for label in part.labels])
    return part.with_labels(labels, names)


def halves_of(task: Task) -> tuple[Task, Task]:
    """Two disjoint halves of a sample, each class in both."""
    side = stratified_folds(task.labels, 2, seed=1)
    first, second = (task.subset(np.flatnonzero(side == k)) for k in (0, 1))
    return first, second


class Distances:
    """The two representations' distances between embeddings."""

    def __init__(self, index: ZooIndex) -> None:
        self.metric = RankingMetric.from_index(index)

    def between(self, a: TaskEmbedding, b: TaskEmbedding) -> dict[str, float]:
        """Distance by the Fisher vector alone, and by what the selection uses."""
        space = self.metric.space
        both = join_tasks(space.of_embedding(a), space.of_embedding(b))
        aligned = self.metric.parameters.aligned((), ())
        similarity = task_kernel(aligned, both, both, np.zeros((2, 2), dtype=bool))[0, 1]
        return {"fisher": float(pairwise([a, b])[0, 1]), "selection": float(-np.log(max(similarity, 1e-300)))}


def label_table(
    tasks: Mapping[str, Task], probe: Probe, index: ZooIndex, parents: Mapping[str, Mapping[str, str]]
) -> dict[str, Any]:
    """Measure how far labels and images move a task.

    Parameters
    ----------
    tasks
        Samples by name; each is split into two halves.
    probe, index
        What embeds, and whose trained metric is judged.
    parents
        By task: the coarse class of each class, where there is a class tree.
    """
    distances = Distances(index)
    rows = []
    for name, task in tqdm(tasks.items(), desc="labels", unit="task"):
        a, b = halves_of(task)
        first = cached_embedding(a, probe)
        found = {
            "redrawn": distances.between(first, cached_embedding(b, probe)),
            "shuffled": distances.between(first, cached_embedding(shuffled(a), probe)),
        }
        if name in parents:
            found["coarse"] = distances.between(first, cached_embedding(coarse(a, parents[name]), probe))
        if set(ANIMALS) < set(task.label_names):
            vehicles = [n for n in task.label_names if n not in ANIMALS]
            parts = [[cached_embedding(subset(half, c), probe) for half in (a, b)] for c in (ANIMALS, vehicles)]
            found["animals_redrawn"] = distances.between(*parts[0])
            found["vehicles_redrawn"] = distances.between(*parts[1])
            found["animals_to_vehicles"] = distances.between(parts[0][0], parts[1][0])
            found["animals_to_all"] = distances.between(parts[0][0], first)
        rows.append({"task": name, "images": len(a), **found})
    return {"rows": rows, "summary": {kind: _summary(rows, kind) for kind in ("fisher", "selection")}}


def _summary(rows: Sequence[dict[str, Any]], kind: str) -> dict[str, float]:
    redrawn, other = (np.array([row[name][kind] for row in rows]) for name in ("redrawn", "shuffled"))
    return {
        "median_redrawn": float(np.median(redrawn)),
        "median_shuffled": float(np.median(other)),
        "median_ratio": float(np.median(other / redrawn)),
        "share_of_tasks_where_shuffling_moves_more": float(np.mean(other > redrawn)),
    }

"""Does the representation of a task know its labels?

    python -m benchmarks.properties.labels [--images 64] [--tasks cifar10 mnist ...]

The same images with shuffled labels should move a task farther than other images with the same labels do. Measured for
the Fisher vector alone (the default distance) and for what the selection uses: minus the logarithm of the trained
metric's task similarity. Raw output: results/label_sensitivity.json; with other than the defaults nothing is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.common import parser, task_names, write
from benchmarks.properties.samples import halves_of, shared_task
from hf_task2vec import Probe, Task, TaskEmbedding, ZooIndex
from hf_task2vec.embedding.cache import cached_embedding
from hf_task2vec.embedding.distance import pairwise
from hf_task2vec.embedding.embed import library_versions
from hf_task2vec.metric.covariance import task_kernel
from hf_task2vec.metric.ranking_metric import RankingMetric


def shuffled(task: Task, seed: int = 0) -> Task:
    """Return the same images with their labels in random order."""
    return task.with_labels(np.random.default_rng(seed).permutation(task.labels), task.label_names)


def distances(metric: RankingMetric, a: TaskEmbedding, b: TaskEmbedding) -> dict[str, float]:
    """Distance by the Fisher vector alone, and by what the selection uses."""
    both = metric.space.of_embedding(TaskEmbedding.stack([a, b], ["a", "b"]))
    similarity = task_kernel(metric.parameters, both, both, np.zeros((2, 2), dtype=bool))[0, 1]
    return {"fisher": float(pairwise([a, b])[0, 1]), "selection": float(-np.log(max(similarity, 1e-300)))}


def summary(rows: Sequence[dict[str, Any]], kind: str) -> dict[str, float]:
    """Compare what shuffled labels and what other images do, over tasks."""
    redrawn, other = (np.array([row[name][kind] for row in rows]) for name in ("redrawn", "shuffled"))
    return {
        "median_redrawn": float(np.median(redrawn)),
        "median_shuffled": float(np.median(other)),
        "median_ratio": float(np.median(other / redrawn)),
        "share_of_tasks_where_shuffling_moves_more": float(np.mean(other > redrawn)),
    }


def main() -> None:
    """Run, and write the raw output."""
    arguments = parser(__doc__)
    arguments.add_argument("--images", type=int, default=64)
    arguments.add_argument("--tasks", nargs="*", default=task_names())
    args = arguments.parse_args()
    probe, metric = Probe.default(), RankingMetric.from_index(ZooIndex.load())
    rows = []
    for name in tqdm(args.tasks):
        first, second = halves_of(shared_task(name, 2 * args.images))
        base, redrawn, other = (cached_embedding(task, probe) for task in (first, second, shuffled(first)))
        moved = {"redrawn": distances(metric, base, redrawn), "shuffled": distances(metric, base, other)}
        rows.append({"task": name, "images": len(first), **moved})
    found = {kind: summary(rows, kind) for kind in ("fisher", "selection")}
    for kind, figures in found.items():
        print(f"{kind:10} " + "  ".join(f"{name} {value:.3f}" for name, value in figures.items()))
    if args == arguments.parse_args([]):
        versions = library_versions()
        write(
            "label_sensitivity", {"images_per_half": args.images, "rows": rows, "summary": found, "versions": versions}
        )


if __name__ == "__main__":
    main()

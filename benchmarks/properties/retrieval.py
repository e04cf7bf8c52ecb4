"""Do two disjoint halves of a task find each other among the halves of all tasks? And when are two tasks duplicates?

    python -m benchmarks.properties.retrieval [--images 64] [--tasks cifar10 mnist ...]

Each shared task gives two disjoint, class-balanced halves of N images; every half is embedded by itself (its own head)
with the default probe. For each distance: top-1 (share of halves whose nearest neighbour is their sibling), AUC (of
same-task against other-task pairs) and d' (difference of the mean distances over their pooled standard deviation).
Pairs of near-duplicate tasks (same group in tasks.csv) count as other tasks.

``noise_ratio``: the default distance of siblings over the mean noise of their embeddings, by task; and at the threshold
of near duplicates (`DUPLICATE_RATIO`) the share of siblings that it finds, and the pairs of other tasks.

Raw output: results/retrieval.json; with other than the defaults nothing is written. Resumable: embeddings are kept in
the package's cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score
from tqdm import tqdm

from benchmarks.common import parser, task_names, write
from benchmarks.properties.distances import Array, all_distances
from benchmarks.properties.samples import halves_of, shared_task
from hf_task2vec import Probe, TaskEmbedding
from hf_task2vec.embedding.cache import cached_embedding
from hf_task2vec.embedding.embed import library_versions
from hf_task2vec.report.task_map import DUPLICATE_RATIO, map_tasks


def judge(matrix: Array) -> dict[str, float]:
    """Score a distance matrix of consecutive sibling pairs, shape (2T, 2T)."""
    n = len(matrix)
    sibling, off = np.arange(n) ^ 1, ~np.eye(n, dtype=bool)
    same = np.zeros((n, n), dtype=bool)
    same[np.arange(n), sibling] = True
    a, b = matrix[same], matrix[off & ~same]
    return {
        "top1": float(np.mean(np.where(off, matrix, np.inf).argmin(axis=1) == sibling)),
        "auc": float(roc_auc_score(same[off], -matrix[off])),
        "d_prime": float((b.mean() - a.mean()) / np.sqrt((a.var() + b.var()) / 2)),
        "mean_sibling_distance": float(a.mean()),
        "mean_other_distance": float(b.mean()),
    }


def duplicates(names: Sequence[str], embeddings: Sequence[TaskEmbedding]) -> dict[str, Any]:
    """How far siblings are apart in units of their noise, and what the threshold of near duplicates finds."""
    tasks = map_tasks(embeddings, [f"{name}[{k}]" for name in names for k in (0, 1)])
    of_siblings = tasks.noise_ratios[np.arange(0, len(tasks), 2), np.arange(1, len(tasks), 2)]
    found = [[pair.first.partition("[")[0], pair.second.partition("[")[0]] for pair in tasks.near_duplicates]
    return {
        "threshold": DUPLICATE_RATIO,
        "noise_ratio": dict(zip(names, of_siblings.tolist(), strict=True)),
        "siblings_found": float(np.mean(of_siblings <= DUPLICATE_RATIO)),
        "others_found": [pair for pair in found if pair[0] != pair[1]],
    }


def main() -> None:
    """Run, and write the raw output."""
    arguments = parser(__doc__)
    arguments.add_argument("--images", type=int, default=64)
    arguments.add_argument("--tasks", nargs="*", default=task_names())
    args = arguments.parse_args()
    probe = Probe.default()
    halves = [half for name in tqdm(args.tasks) for half in halves_of(shared_task(name, 2 * args.images))]
    embeddings = [cached_embedding(half, probe) for half in tqdm(halves)]
    document = {
        "images_per_half": args.images,
        "n_tasks": len(args.tasks),
        "distances": {kind: judge(matrix) for kind, matrix in all_distances(embeddings).items()},
        "duplicates": duplicates(args.tasks, embeddings),
        "probe": probe.config,
        "versions": library_versions(),
    }
    for kind, figures in document["distances"].items():
        print(f"{kind:16} " + "  ".join(f"{name} {value:.3f}" for name, value in figures.items()))
    if args == arguments.parse_args([]):
        write("retrieval", document)


if __name__ == "__main__":
    main()

"""Do two disjoint halves of a task find each other among the halves of all tasks?

    python benchmarks/retrieval.py [--images 64] [--estimator fisher|variational] [--tasks cifar10 mnist ...] [--labels]

Each shared task gives two disjoint, class-balanced halves of N images; every half is embedded by itself (its own head)
with the default probe. For each distance: top-1 (share of halves whose nearest neighbour is their sibling), AUC (of
same-task against other-task pairs) and d' (difference of the mean distances over their pooled standard deviation).
Pairs of near-duplicate tasks (same group in tasks.csv) count as other tasks. Raw output of all tasks:
results/retrieval.json, and for the other estimator results/retrieval_variational.json.
With `--labels`: the table of label sensitivity instead (see label_sensitivity.py), into results/label_sensitivity.json.
Resumable: embeddings are kept in the package's cache.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from label_sensitivity import label_table
from properties_trees import CIFAR100
from scipy.stats import rankdata
from tqdm import tqdm

from hf_task2vec.embedding.cache import cached_embedding
from hf_task2vec.embedding.distance import DISTANCES, pairwise
from hf_task2vec.embedding.embed import ESTIMATORS, library_versions
from hf_task2vec.embedding.task_embedding import TaskEmbedding
from hf_task2vec.fisher.head import stratified_folds
from hf_task2vec.probes.probe import Probe
from hf_task2vec.tasks.task import Task
from hf_task2vec.zoo.index import ZooIndex

ROOT = Path(__file__).resolve().parents[1]
TASKS = ROOT.parent / "shared" / "tasks"


def halves(name: str, images: int, probe: Probe, estimator: str) -> list[TaskEmbedding]:
    """Embed two disjoint halves of a task."""
    task = Task.from_dataset(TASKS / name, split="train", max_samples=2 * images)
    side = stratified_folds(task.labels, 2, seed=1)
    return [cached_embedding(task.subset(np.flatnonzero(side == k)), probe, estimator=estimator) for k in (0, 1)]


def moment_distances(embeddings: list[TaskEmbedding]) -> np.ndarray:
    """Rival without any gradient: correlation distance of standardised feature means and log variances."""
    rows = np.array([np.concatenate([e.feature_mean, 0.5 * np.log(e.feature_var + 1e-4)]) for e in embeddings])
    return 1.0 - np.corrcoef((rows - rows.mean(axis=0)) / (rows.std(axis=0) + 1e-6))


def all_distances(embeddings: list[TaskEmbedding]) -> dict[str, np.ndarray]:
    """Distance matrices by name."""
    matrices = {kind: pairwise(embeddings, kind) for kind in DISTANCES}
    matrices["feature_moments"] = moment_distances(embeddings)
    return matrices


def plain(names: list[str], images: int, probe: Probe) -> dict[str, dict[str, float]]:
    """Retrieval by the plain Fisher information, to compare another estimator with."""
    embeddings = [e for name in tqdm(names) for e in halves(name, images, probe, "fisher")]
    return {kind: judge(matrix) for kind, matrix in all_distances(embeddings).items()}


def judge(matrix: np.ndarray) -> dict[str, float]:
    """Score a distance matrix of consecutive sibling pairs, shape (2T, 2T)."""
    n = len(matrix)
    sibling = np.arange(n) ^ 1
    masked = matrix + np.where(np.eye(n, dtype=bool), np.inf, 0.0)
    top1 = masked.argmin(axis=1) == sibling
    off = ~np.eye(n, dtype=bool)
    same = np.zeros((n, n), dtype=bool)
    same[np.arange(n), sibling] = True
    a, b = matrix[same], matrix[off & ~same]
    ranks = rankdata(np.concatenate([a, b]))
    auc = 1.0 - (ranks[: len(a)].sum() - len(a) * (len(a) + 1) / 2) / (len(a) * len(b))
    return {
        "top1": float(top1.mean()),
        "auc": float(auc),
        "d_prime": float((b.mean() - a.mean()) / np.sqrt((a.var() + b.var()) / 2)),
        "mean_sibling_distance": float(a.mean()),
        "mean_other_distance": float(b.mean()),
    }


def show_labels(images: int, tasks: list[str] | None) -> None:
    """Make the table of label sensitivity."""
    names = tasks or [row["name"] for row in json.loads((TASKS / "MANIFEST.json").read_text())]
    drawn = {name: Task.from_dataset(TASKS / name, split="train", max_samples=2 * images) for name in names}
    # CIFAR-100's superclasses as its authors give them.
    parents = {"cifar100": {c: theme for theme, group in CIFAR100.items() for c in group.classes}}
    table = label_table(drawn, Probe.default(), ZooIndex.load(ROOT / "zoo_index"), parents)
    document = {"images_per_half": images, **table, "versions": library_versions()}
    if tasks is None:
        path = ROOT / "benchmarks" / "results" / "label_sensitivity.json"
        path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    for kind, figures in document["summary"].items():
        print(f"{kind:10} " + "  ".join(f"{name} {value:.3f}" for name, value in figures.items()))


def main() -> None:
    """Run and write the raw output."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--estimator", default="fisher", choices=ESTIMATORS)
    parser.add_argument("--tasks", nargs="*")
    parser.add_argument("--labels", action="store_true", help="the table of label sensitivity")
    args = parser.parse_args()
    if args.labels:
        show_labels(args.images, args.tasks)
        return
    probe = Probe.default()
    names = args.tasks or [row["name"] for row in json.loads((TASKS / "MANIFEST.json").read_text())]
    embeddings = [e for name in tqdm(names) for e in halves(name, args.images, probe, args.estimator)]
    matrices = all_distances(embeddings)
    default = matrices["log_correlation"] + np.diag(np.full(len(embeddings), np.inf))
    missed = {
        f"{names[i // 2]}[{i % 2}]": names[int(default[i].argmin()) // 2]
        for i in range(len(embeddings))
        if default[i].argmin() != i ^ 1
    }
    document = {
        "estimator": args.estimator,
        "images_per_half": args.images,
        "n_tasks": len(names),
        "images_used": {n: int(embeddings[2 * i].descriptors["n_samples"]) for i, n in enumerate(names)},
        "distances": {kind: judge(matrix) for kind, matrix in matrices.items()},
        "missed_by_log_correlation": missed,
        **({} if args.estimator == "fisher" else {"fisher_on_the_same_images": plain(names, args.images, probe)}),
        "probe": probe.config,
        "versions": library_versions(),
    }
    if not args.tasks:
        suffix = "" if args.estimator == "fisher" else f"_{args.estimator}"
        path = ROOT / "benchmarks" / "results" / f"retrieval{suffix}.json"
        path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    for kind, figures in sorted(document["distances"].items(), key=lambda item: -item[1]["d_prime"]):
        print(f"{kind:16} " + "  ".join(f"{name} {value:.3f}" for name, value in figures.items()))


if __name__ == "__main__":
    main()

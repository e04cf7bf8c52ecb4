"""Does one task contain another, and does the similarity of tasks follow how checkpoints transfer?

    python benchmarks/relations.py [--only containment similarity] [--cache DIR]

**Containment.** Tasks are the nodes of class trees of real datasets (relations_trees.py): to tell apart the classes
below a node. A node contains another if it has all its classes and more. All ordered pairs of two nodes are judged,
those of different datasets included, which are never containment. Each node is embedded twice, from disjoint halves of
the images (`--images` of each at most): once for its part as the general task and once as the special one, so that no
pair shares an image.

* ``novel datasets``: a special task of one tree against all general ones, by a model that has seen no pair of that tree
  (the two CIFARs are left out together);
* ``withheld pairs``: a fifth of the pairs, both orders together, by a model that has seen the others.

F1 in per cent over all pairs, with a threshold that is chosen on pairs learned from (networks: on a part of them that
they have not learned from), and a 95 % bootstrap interval over trees. ``f1_within_trees`` counts only pairs of one
tree, where siblings, cousins and reversed pairs are what can be mistaken. relations_models.py has the methods.

**Similarity**: see relations_similarity.py.

Deterministic; embeddings are kept in the cache folder, so a second start resumes. Raw output: results/relations.json;
plot: results/relations.png.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from containment import Array, Mask
from numpy.typing import NDArray
from properties_tasks import ROOT
from relations_models import METHODS, Pairs
from relations_plot import plot
from relations_similarity import similarity_study
from relations_tasks import Node, embed_nodes
from relations_trees import TREES
from sklearn.metrics import average_precision_score
from tqdm import tqdm

from hf_task2vec.embedding.embed import library_versions
from hf_task2vec.files import cache_dir, write_json
from hf_task2vec.probes.probe import Probe

RESULTS = ROOT / "benchmarks" / "results" / "relations.json"
FOLDS, RESAMPLES = 5, 2000

Fold = tuple[Mask, Mask, Mask]


def relation(nodes: Sequence[Node]) -> tuple[Mask, Mask]:
    """Return which node contains which, and which are of one tree, shapes (n, n)."""
    contained = np.array([[a.cells > b.cells and a.tree == b.tree for b in nodes] for a in nodes])
    trees = np.array([node.tree for node in nodes])
    return contained, trees[:, None] == trees[None, :]


def novel_datasets(nodes: Sequence[Node]) -> Iterator[Fold]:
    """Yield masks of pairs to learn from, to choose the threshold on, and to judge: special tasks of one group."""
    group = np.array(["cifar" if node.tree.startswith("cifar") else node.tree for node in nodes])
    pairs = ~np.eye(len(nodes), dtype=bool)
    for held_out in dict.fromkeys(group):
        seen = group != held_out
        others = [name for name in dict.fromkeys(group) if name != held_out]
        valid = np.isin(group, others[:: max(2, len(others) // 4)]) & seen
        learn = seen & ~valid
        known = pairs & seen[:, None] & seen[None, :]
        train = known & learn[:, None] & learn[None, :]
        yield train, known & valid[None, :], pairs & ~seen[None, :]


def withheld_pairs(nodes: Sequence[Node], *, seed: int = 0) -> Iterator[Fold]:
    """Yield the same masks for fifths of the pairs: three to learn from, one to choose on, one to judge."""
    n = len(nodes)
    fold = np.triu(np.random.default_rng(seed).integers(FOLDS, size=(n, n)), 1)
    fold = fold + fold.T
    pairs = ~np.eye(n, dtype=bool)
    for k in range(FOLDS):
        judged, chosen = pairs & (fold == k), pairs & (fold == (k + 1) % FOLDS)
        yield pairs & ~judged & ~chosen, chosen, judged


def judge(said: Mask, scores: Array, judged: Mask, pairs: Pairs, trees: NDArray[Any]) -> dict[str, Any]:
    """Count right and wrong decisions by the special task's tree, and return the figures."""
    rng = np.random.default_rng(0)
    figures: dict[str, Any] = {}
    for name, mask in (("f1", judged), ("f1_within_trees", judged & pairs.same)):
        counts = np.array(
            [
                [np.sum((said & pairs.contained & mask)[:, trees == t]), np.sum((said & mask)[:, trees == t]),
                 np.sum((pairs.contained & mask)[:, trees == t])]
                for t in dict.fromkeys(trees)
            ]
        )  # fmt: skip
        drawn = counts[rng.integers(len(counts), size=(RESAMPLES, len(counts)))].sum(axis=1)
        f1 = 200.0 * drawn[:, 0] / np.maximum(1, drawn[:, 1] + drawn[:, 2])
        right, positive, true = counts.sum(axis=0)
        figures[name] = round(200.0 * right / max(1, positive + true), 2)
        figures[f"{name}_interval_95"] = np.percentile(f1, [2.5, 97.5]).round(2).tolist()
        if name == "f1":
            figures |= {"precision": float(right / max(1, positive)), "recall": float(right / true)}
            figures["f1_by_tree"] = {
                t: round(200.0 * r / max(1, p + y), 1)
                for t, (r, p, y) in zip(dict.fromkeys(trees.tolist()), counts.tolist(), strict=True)
            }
    figures["average_precision"] = float(average_precision_score(pairs.contained[judged], scores[judged]))
    figures["said_across_datasets"] = int(np.sum(said & judged & ~pairs.same))
    return figures


def containment_study(nodes: Sequence[Node], pairs: Pairs, images: int) -> dict[str, Any]:
    """Judge all methods under both protocols."""
    trees = np.array([node.tree for node in nodes])
    off = ~np.eye(len(nodes), dtype=bool)
    share = pairs.contained[off].mean()
    found: dict[str, Any] = {
        "images": images,
        "n_tasks": len(nodes),
        "n_trees": len(set(trees.tolist())),
        "n_pairs": int(off.sum()),
        "n_pairs_within_trees": int((off & pairs.same).sum()),
        "n_containment": int(pairs.contained.sum()),
        "others_for_each_containment": float(1 / share - 1),
        "f1_of_always_yes": float(200 * share / (1 + share)),
        "tasks": [{"tree": n.tree, "name": n.name, "cells": len(n.cells)} for n in nodes],
    }
    for title, protocol in (("novel datasets", novel_datasets), ("withheld pairs", withheld_pairs)):
        found[title] = {}
        for name, method in tqdm(METHODS.items(), desc=title, leave=False):
            said, scores, judged = np.zeros_like(off), np.zeros(off.shape), np.zeros_like(off)
            for train, valid, test in protocol(nodes):
                values, threshold = method(pairs, train, valid)
                said[test], scores[test] = values[test] >= threshold, values[test]
                judged |= test
            found[title][name] = judge(said, scores, judged, pairs, trees)
    return found


def main() -> None:
    """Run, and merge into the raw output."""
    import datasets

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = {"containment", "similarity"}
    parser.add_argument("--only", nargs="*", choices=sorted(parts), default=sorted(parts))
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--cache", type=Path, default=cache_dir() / "relations")
    args = parser.parse_args()
    datasets.disable_progress_bars()
    torch.use_deterministic_algorithms(True)
    document = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    if "containment" in args.only:
        probe = Probe.default()
        nodes, general, special = embed_nodes(list(TREES), probe, args.cache, images=args.images)
        pairs = Pairs.of(general, special, *relation(nodes))
        document["containment"] = containment_study(nodes, pairs, args.images)
        document |= {"probe": probe.config, "versions": library_versions()}
    if "similarity" in args.only:
        document["similarity"] = similarity_study()
    write_json(RESULTS, document)
    if parts <= document.keys():
        plot(document, RESULTS.with_suffix(".png"))


if __name__ == "__main__":
    main()

"""Does one task contain another?

    python -m benchmarks.relations.containment [--images 64] [--trees eth80 cifar10 ...]

Tasks are the nodes of class trees of real datasets (class_trees.json): to tell apart the classes below a node. A node
contains another if it has all its classes and more. All ordered pairs of two nodes are judged, those of different
datasets included, which are never containment. Each node is embedded twice, from disjoint halves of the images
(`--images` of each at most): once for its part as the general task and once as the special one, so that no pair shares
an image.

* ``novel datasets``: a special task of one tree against all general ones, by a model that has seen no pair of that tree
  (the two CIFARs are left out together);
* ``withheld pairs``: a fifth of the pairs, both orders together, by a model that has seen the others.

F1 in per cent over all pairs, with a threshold that is chosen on pairs learned from (networks: on a part of them that
they have not learned from), and a 95 % bootstrap interval over trees. containment_rivals.py has the methods.

Deterministic. Raw output: results/containment.json; plot: results/containment.png. With other than the defaults nothing
is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.class_trees import TREES
from benchmarks.common import RESULTS, parser, write
from benchmarks.relations.containment_rivals import METHODS, Pairs
from benchmarks.relations.containment_score import Mask
from benchmarks.relations.nodes import Node, embed_nodes
from hf_task2vec import Probe
from hf_task2vec.embedding.embed import library_versions

FOLDS, RESAMPLES = 5, 2000


def relation(nodes: Sequence[Node]) -> tuple[Mask, Mask]:
    """Return which node contains which, and which are of one tree, shapes (n, n)."""
    contained = np.array([[a.cells > b.cells and a.tree == b.tree for b in nodes] for a in nodes])
    trees = np.array([node.tree for node in nodes])
    return contained, trees[:, None] == trees[None, :]


def novel_datasets(nodes: Sequence[Node]) -> Iterator[tuple[Mask, Mask, Mask]]:
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


def withheld_pairs(nodes: Sequence[Node], *, seed: int = 0) -> Iterator[tuple[Mask, Mask, Mask]]:
    """Yield the same masks for fifths of the pairs: three to learn from, one to choose on, one to judge."""
    n = len(nodes)
    fold = np.triu(np.random.default_rng(seed).integers(FOLDS, size=(n, n)), 1)
    fold = fold + fold.T
    pairs = ~np.eye(n, dtype=bool)
    for k in range(FOLDS):
        judged, chosen = pairs & (fold == k), pairs & (fold == (k + 1) % FOLDS)
        yield pairs & ~judged & ~chosen, chosen, judged


PROTOCOLS = {"novel datasets": novel_datasets, "withheld pairs": withheld_pairs}


def judge(said: Mask, contained: Mask, trees: NDArray[Any]) -> dict[str, Any]:
    """F1 of what is said to be contained, with an interval by resampling the special task's tree."""
    # By tree: right, said to be, and true.
    counts = np.array(
        [[np.sum(mask[:, trees == t]) for mask in (said & contained, said, contained)] for t in dict.fromkeys(trees)]
    )

    def f1(counts: NDArray[Any]) -> Any:
        right, positive, true = counts.sum(axis=-2).T
        return 200.0 * right / np.maximum(1, positive + true)

    drawn = f1(counts[np.random.default_rng(0).integers(len(counts), size=(RESAMPLES, len(counts)))])
    return {"f1": round(float(f1(counts)), 2), "f1_interval_95": np.percentile(drawn, [2.5, 97.5]).round(2).tolist()}


def study(nodes: Sequence[Node], pairs: Pairs) -> dict[str, Any]:
    """Judge all methods under both protocols."""
    trees = np.array([node.tree for node in nodes])
    off = ~np.eye(len(nodes), dtype=bool)
    found: dict[str, Any] = {
        "n_tasks": len(nodes),
        "n_trees": len(set(trees.tolist())),
        "n_pairs": int(off.sum()),
        "n_containment": int(pairs.contained.sum()),
        "tasks": [{"tree": n.tree, "name": n.name, "cells": len(n.cells)} for n in nodes],
    }
    for title, protocol in PROTOCOLS.items():
        found[title] = {}
        for name, method in tqdm(METHODS.items(), desc=title, leave=False):
            said = np.zeros_like(off)
            for train, valid, judged in protocol(nodes):
                scores, threshold = method(pairs, train, valid)
                said[judged] = scores[judged] >= threshold
            found[title][name] = judge(said, pairs.contained, trees)
    return found


def plot(document: dict[str, Any], path: Path) -> None:
    """Draw F1 of the methods."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 5.5), constrained_layout=True)
    names = sorted(document["novel datasets"], key=lambda name: document["novel datasets"][name]["f1"])
    for k, protocol in enumerate(PROTOCOLS):
        rows = [document[protocol][name] for name in names]
        f1, (low, high) = np.array([row["f1"] for row in rows]), np.array([row["f1_interval_95"] for row in rows]).T
        y, style = np.arange(len(names)) + 0.2 - 0.4 * k, {"ecolor": "black", "elinewidth": 1, "capsize": 2}
        # A percentile interval need not hold the value itself.
        beside = np.maximum([f1 - low, high - f1], 0.0)
        axes.barh(y, f1, height=0.38, label=protocol, xerr=beside, error_kw=style)
    axes.set_yticks(np.arange(len(names)), names)
    axes.set(xlabel="F1 of containment in %, with 95 % interval over trees", xlim=(0, 100))
    axes.set_title(
        f"Does one task contain another? {document['n_tasks']} tasks of {document['n_trees']} class trees,\n"
        f"{document['n_containment']} containments among {document['n_pairs']:,} ordered pairs"
    )
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Run, write the raw output, and draw."""
    arguments = parser(__doc__)
    arguments.add_argument("--images", type=int, default=64)
    arguments.add_argument("--trees", nargs="*", choices=TREES, default=list(TREES))
    args = arguments.parse_args()
    torch.use_deterministic_algorithms(True)
    probe = Probe.default()
    nodes, general, special = embed_nodes(args.trees, probe, images=args.images)
    found = study(nodes, Pairs.of(general, special, *relation(nodes)))
    for protocol in PROTOCOLS:
        print(protocol, {name: row["f1"] for name, row in found[protocol].items()})
    if args == arguments.parse_args([]):
        document = {"images": args.images, **found, "probe": probe.config, "versions": library_versions()}
        write("containment", document)
        plot(document, RESULTS / "containment.png")


if __name__ == "__main__":
    main()

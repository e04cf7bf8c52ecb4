"""Do distances between tasks follow class trees? Themes of CIFAR-100 and of Tiny ImageNet, a task each.

    python -m benchmarks.properties.taxonomy [--trees cifar100 tiny_imagenet] [--images 48]

The trees are those of class_trees.json; a theme is a branch that has classes of its own, and two themes are as far
apart as there are edges between them. Reported for each distance: Spearman correlation of all pairs' distances with
those in the tree, and its one-sided p-value by permuting the tasks (Mantel's test). Raw output: results/taxonomy.json;
plot: results/taxonomy.png. With other than the defaults nothing is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.cluster.hierarchy import dendrogram, linkage
from scipy.spatial.distance import squareform
from scipy.stats import rankdata
from tqdm import tqdm

from benchmarks.class_trees import TREES
from benchmarks.common import RESULTS, parser, write
from benchmarks.properties.distances import Array, all_distances, symmetrised, upper
from benchmarks.properties.samples import Rows
from hf_task2vec import Probe
from hf_task2vec.embedding.cache import cached_embedding
from hf_task2vec.embedding.embed import library_versions

NAMES = ("cifar100", "tiny_imagenet")


def tree_distances(paths: Sequence[str]) -> Array:
    """Number of edges between nodes such as ``"living/animal/dogs"``, shape (n, n)."""
    nodes = [path.split("/") for path in paths]
    shared = [[sum(np.cumprod([x == y for x, y in zip(a, b, strict=False)])) for b in nodes] for a in nodes]
    depth = np.array([len(node) for node in nodes])
    return depth[:, None] + depth[None, :] - 2.0 * np.array(shared)


def tree_agreement(distance: Array, tree: Array, *, permutations: int = 9999, seed: int = 0) -> dict[str, float]:
    """Spearman correlation of distances between tasks with those in a class tree, and its p-value."""
    ranks, tree_ranks = rankdata(upper(symmetrised(distance))), squareform(rankdata(upper(tree)))
    observed = np.corrcoef(ranks, upper(tree_ranks))[0, 1]
    rng = np.random.default_rng(seed)
    at_least = 0
    for _ in range(permutations):
        order = rng.permutation(len(tree))
        at_least += np.corrcoef(ranks, upper(tree_ranks[np.ix_(order, order)]))[0, 1] >= observed
    return {"spearman": float(observed), "p_value": (at_least + 1) / (permutations + 1)}


def taxonomy(name: str, images: int, probe: Probe) -> dict[str, Any]:
    """Embed the themes of a tree, and compare."""
    rows, themes = Rows.of(*TREES[name].sources), TREES[name].branches
    tasks = [rows.cut(path.rpartition("/")[2], classes, images) for path, classes in themes.items()]
    matrices = all_distances([cached_embedding(task, probe) for task in tqdm(tasks, desc=name, leave=False)])
    tree = tree_distances(list(themes))
    return {
        "images": images,
        "themes": list(themes),
        "agreement": {kind: tree_agreement(matrix, tree) for kind, matrix in matrices.items()},
        "distance": matrices["log_correlation"].round(5).tolist(),
    }


def plot(found: dict[str, Any], path: Path) -> None:
    """Draw the dendrogram of the tasks (mean linkage), their distances, and those in the tree."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    distance, tree = symmetrised(np.array(found["distance"])), tree_distances(found["themes"])
    figure, (left, middle, right) = plt.subplots(
        1, 3, figsize=(16, 6.6), width_ratios=[0.55, 1, 1], constrained_layout=True
    )
    joined = linkage(upper(distance), method="average", optimal_ordering=True)
    order = dendrogram(joined, orientation="left", no_labels=True, ax=left, link_color_func=lambda _: "0.3")["leaves"]
    left.invert_yaxis()
    left.set_xlabel("distance of joining (mean linkage)")
    left.spines[["top", "right", "left"]].set_visible(False)
    branches = ["/".join(theme.split("/")[:-1][:3]) for theme in found["themes"]]
    colours = {branch: f"C{i}" for i, branch in enumerate(dict.fromkeys(branches))}
    names = [found["themes"][i].rpartition("/")[2] for i in order]
    for panel, matrix, what in (
        (middle, distance, "task distance (log correlation)"),
        (right, tree, "edges in the class tree"),
    ):
        shown = matrix[np.ix_(order, order)]
        np.fill_diagonal(shown, np.nan)
        image = panel.imshow(shown, cmap="viridis_r", aspect="auto")
        figure.colorbar(image, ax=panel, label=what, shrink=0.8, pad=0.02)
        panel.set_xticks(range(len(names)), names, rotation=90, fontsize=9)
        panel.set_yticks(range(len(names)), names, fontsize=9)
        for labels in (panel.get_xticklabels(), panel.get_yticklabels()):
            for label, i in zip(labels, order, strict=True):
                label.set_color(colours[branches[i]])
    handles = [plt.Line2D([], [], marker="s", linestyle="", color=c, label=b) for b, c in colours.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, title="branch")
    figures = found["agreement"]["log_correlation"]
    figure.suptitle(
        f"Superclasses of CIFAR-100, {found['images']} images each: rank correlation of distances with the tree "
        f"{figures['spearman']:.2f} (p = {figures['p_value']:.2g})"
    )
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Run, write the raw output, and draw."""
    arguments = parser(__doc__)
    arguments.add_argument("--trees", nargs="*", choices=NAMES, default=NAMES)
    arguments.add_argument("--images", type=int, default=48)
    args = arguments.parse_args()
    probe = Probe.default()
    found = {name: taxonomy(name, args.images, probe) for name in args.trees}
    for name, part in found.items():
        print(name, {kind: round(figures["spearman"], 2) for kind, figures in part["agreement"].items()})
    if args == arguments.parse_args([]):
        write("taxonomy", {"trees": found, "probe": probe.config, "versions": library_versions()})
        plot(found["cifar100"], RESULTS / "taxonomy.png")


if __name__ == "__main__":
    main()

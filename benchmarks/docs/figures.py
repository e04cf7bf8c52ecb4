"""The figures of the documentation: docs/figures/*.svg.

    python -m benchmarks.docs.figures [--only pareto noise_curve] [--png FOLDER]

The task map, the distance matrix and the layer profile are drawn from the shipped index; the Pareto plot and one noise
curve from ``sklearn:digits``, which scikit-learn holds; the other noise curves from shared tasks, if they are there. No
figure holds an image of a dataset. Equal input gives equal files. With ``--png`` also as pictures, to look at.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter
from scipy.cluster.hierarchy import dendrogram, linkage
from scipy.spatial.distance import squareform

from benchmarks.common import ROOT, TASKS, parser
from hf_task2vec.embedding.embed import embed_task
from hf_task2vec.files import atomic_path
from hf_task2vec.probes.probe import Probe
from hf_task2vec.report.page import pareto_front
from hf_task2vec.report.task_map import TaskMap, map_tasks
from hf_task2vec.selection.select import select_backbone
from hf_task2vec.tasks.task import Task
from hf_task2vec.zoo.index import ZooIndex

FOLDER = ROOT / "docs" / "figures"
#: Tasks of the noise curves: of little, middling and much noise.
NOISE_TASKS = ("mnist", "cifar10", "dtd_10")
PROFILE_TASK = "mnist"
NAMED = 12

# Paul Tol's "vibrant" colours, made to be told apart with any colour vision (https://sronpersonalpages.nl/~pault/).
COLOURS = ("#0077bb", "#ee7733", "#009988", "#cc3311", "#33bbee", "#ee3377")
MARKERS = ("o", "s", "^", "D")
STYLE = {
    "svg.hashsalt": "hf_task2vec",  # else ids are drawn at random
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#6b7280",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#d5d9de",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}


def shipped_tasks() -> TaskMap:
    """Compare the embedded tasks of the shipped index."""
    index = ZooIndex.load(ROOT / "zoo_index")
    table = index.embeddings
    domain = index.tasks.set_index("task")["domain"]
    return map_tasks(list(table), table.names, list(domain[list(table.names)]))


def task_map() -> Figure:
    """Draw tasks as points of the plane, near ones near each other, coloured by domain."""
    tasks = shipped_tasks()
    figure, axes = plt.subplots(figsize=(11, 6.6))
    for k, (domain, count) in enumerate(Counter(tasks.domains).most_common()):
        x, y = tasks.positions[[other == domain for other in tasks.domains]].T
        colour, marker = COLOURS[k % len(COLOURS)], MARKERS[k // len(COLOURS) % len(MARKERS)]
        axes.scatter(x, y, s=34, color=colour, marker=marker, label=f"{domain} ({count})", zorder=3)
    for name, place in zip(tasks.names, tasks.positions, strict=True):
        dx, dy = ((tasks.positions - place) / np.ptp(tasks.positions, axis=0)).T
        crowded = ((dx > 0) & (dx < 0.2) & (abs(dy) < 0.025)).any()  # on the right of the point
        style = {"textcoords": "offset points", "ha": "right" if crowded else "left", "va": "center", "fontsize": 7.5}
        axes.annotate(name, place, (-5 if crowded else 5, 0), **style)
    axes.set(xticks=[], yticks=[], aspect="equal")
    axes.set_title(f"{len(tasks)} tasks by {tasks.kind}: t-SNE, which keeps neighbours", loc="left")
    figure.legend(loc="outside right upper")
    return figure


def distance_matrix() -> Figure:
    """Draw the distances between tasks, similar ones side by side, with the dendrogram of average linkage."""
    tasks = shipped_tasks()
    links = linkage(squareform(tasks.distances, checks=False), method="average", optimal_ordering=True)
    n = len(tasks)
    figure, (tree, axes) = plt.subplots(1, 2, figsize=(12.5, 10.3), width_ratios=[1.3, 8.7])
    style = {"orientation": "left", "no_labels": True, "color_threshold": 0, "above_threshold_color": "#6b7280"}
    order = dendrogram(links, ax=tree, **style)["leaves"]
    tree.invert_yaxis()
    tree.set_xlabel("mean distance")
    tree.spines["left"].set_visible(False)
    tree.grid(visible=False)
    shown = tasks.distances[np.ix_(order, order)]
    np.fill_diagonal(shown, np.nan)
    image = axes.imshow(shown, cmap="viridis_r", vmin=0.0, aspect="auto", interpolation="nearest")
    names = [tasks.names[i] for i in order]
    axes.set_xticks(range(n), names, rotation=90, fontsize=7.5)
    axes.set_yticks(range(n), names, fontsize=7.5)
    axes.yaxis.tick_right()
    axes.tick_params(length=0)
    axes.grid(visible=False)
    figure.colorbar(image, ax=axes, location="bottom", shrink=0.5, aspect=40, label=f"distance ({tasks.kind})")
    return figure


def layer_profile() -> Figure:
    """Draw the Fisher information of each layer of one reference task among all of them."""
    table = ZooIndex.load(ROOT / "zoo_index").embeddings
    task = table[PROFILE_TASK]
    starts = np.cumsum(task.layer_sizes)[:-1]

    def quartiles(values: np.ndarray) -> np.ndarray:
        layers = np.split(values.astype(np.float64), starts)
        return np.maximum([np.quantile(layer, (0.25, 0.5, 0.75)) for layer in layers], 1e-30).T

    low, median, high = quartiles(task.values[0])
    band = np.quantile([quartiles(values)[1] for values in table.values], (0.1, 0.5, 0.9), axis=0)
    figure, axes = plt.subplots(figsize=(8.6, 4.4))
    depth = np.arange(len(median))
    axes.plot(depth, median, color=COLOURS[0], lw=1.2, marker="o", ms=3.2, zorder=3, label=f"{PROFILE_TASK}: median")
    axes.vlines(depth, low, high, color=COLOURS[0], alpha=0.35, lw=3, label="quartiles over the filters")
    axes.plot(depth, band[1], color="#6b7280", lw=1, ls="--", label="their median")
    label = f"{len(table)} reference tasks: middle 80 % of medians"
    axes.fill_between(depth, band[0], band[2], color="#c9ced6", lw=0, zorder=1, label=label)
    axes.set(yscale="log", xlabel="layer of the probe, by depth", ylabel="Fisher information of a filter")
    axes.set_ylim(bottom=low[low > 1e-10].min() / 3)
    blocks = [".".join(name.split(".")[:2]) for name in task.layer_names]
    first = {block: k for k, block in reversed(list(enumerate(blocks)))}
    axes.set_xticks(list(first.values()), list(first), rotation=90)
    axes.grid(visible=False, axis="x")
    figure.legend(loc="outside upper left", ncols=2)
    return figure


def pareto() -> Figure:
    """Draw predicted accuracy against size for the built-in sample, and name the best of the Pareto front."""
    ranking = select_backbone("sklearn:digits", top_k=100_000)
    table = ranking.to_pandas().dropna(subset="params_m")
    table[["score", "low", "high"]] *= 100
    front = table.iloc[pareto_front(table["params_m"].to_numpy(float), table["score"].to_numpy())]
    figure, axes = plt.subplots(figsize=(10.2, 5.2))
    axes.scatter(table["params_m"], table["score"], s=10, color="#a7adb6", lw=0, label="other candidates")
    axes.step(front["params_m"], front["score"], where="post", color=COLOURS[0], lw=0.9, alpha=0.5)
    axes.vlines(front["params_m"], front["low"], front["high"], color=COLOURS[0], alpha=0.28, lw=2.2)
    label = "Pareto front: none is both cheaper and better"
    axes.scatter(front["params_m"], front["score"], s=34, color=COLOURS[0], zorder=3, label=label)
    lines: list[str] = []
    last = np.inf
    for row in front.iloc[::-1].itertuples():
        if row.params_m < last / 1.3 and len(lines) < NAMED:
            lines.append(f"{len(lines) + 1:>2}  {row.hub_id}\n      {row.score:.1f} %, {row.params_m:.3g} M")
            style = {"textcoords": "offset points", "ha": "center"}
            axes.annotate(str(len(lines)), (row.params_m, row.score), (0, 6), **style)
            last = row.params_m
    axes.text(1.02, 1.0, "\n".join(lines), transform=axes.transAxes, va="top", fontsize=7.5)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set(xlabel="parameters, millions", ylabel=f"predicted {ranking.score_name}, % (bars: 80 % interval)")
    axes.set_title(f"{len(table)} of {ranking.n_ranked} checkpoints for {ranking.dataset}", loc="left")
    axes.legend(loc="lower right")
    return figure


def noise_curve() -> Figure:
    """Draw the noise of embeddings against the number of images, the first n of a few samples."""
    tasks = [Task.from_dataset("sklearn:digits", max_samples=256)]
    if TASKS.is_dir():
        tasks += [Task.from_dataset(TASKS / name, split="train", max_samples=256) for name in NOISE_TASKS]
    probe = Probe.default()
    figure, axes = plt.subplots(figsize=(6.2, 3.9))
    for k, task in enumerate(tasks):
        counts = [n for n in (16, 32, 64, 128) if n >= 2 * task.num_classes and n < len(task)] + [len(task)]
        noise = [embed_task(task.subset(range(n)), probe).descriptors["noise"] for n in counts]
        axes.plot(counts, noise, color=COLOURS[k], marker=MARKERS[k], ms=5, label=Path(task.dataset).name)
    axes.set_xscale("log", base=2)
    axes.set_xticks(counts, [str(n) for n in counts])
    axes.set(xlabel="images", ylabel="noise of the embedding")
    axes.set_ylim(bottom=0)
    axes.legend()
    return figure


FIGURES = {f.__name__: f for f in (task_map, distance_matrix, layer_profile, pareto, noise_curve)}


def main() -> None:
    """Draw and write."""
    arguments = parser(__doc__)
    arguments.add_argument("--only", nargs="*", choices=FIGURES, default=list(FIGURES))
    arguments.add_argument("--png", type=Path)
    args = arguments.parse_args()
    mpl.rcParams.update(STYLE)
    for name in args.only:
        figure = FIGURES[name]()
        with atomic_path(FOLDER / f"{name}.svg") as path:
            figure.savefig(path, format="svg", metadata={"Date": None})
        if args.png is not None:
            figure.savefig(args.png / f"{name}.png", dpi=110)
        print(f"{name}.svg: {(FOLDER / f'{name}.svg').stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()

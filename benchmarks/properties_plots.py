"""Plots of ``properties.py``, drawn from whatever parts its raw output has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from properties_statistics import average_linkage, symmetrised
from properties_trees import tree_distances

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NORMS = {
    "raw_l2": "raw: L2 norm of the values",
    "relative_l2": "normalised: L2 norm, each layer's mean = 1",
}
TITLES = {"cifar100": "superclasses of CIFAR-100", "tiny_imagenet": "themes of Tiny ImageNet"}
BRANCHES = (
    "living/animal/vertebrate",
    "living/animal/invertebrate",
    "living/plant",
    "thing/food",
    "thing/artifact",
    "thing/instrumentality",
    "thing/outdoors",
    "thing/nature",
)


def plot_all(document: dict[str, Any], folder: Path) -> None:
    """Write ``properties_*.png`` into `folder`."""
    import matplotlib

    matplotlib.use("Agg")
    if "difficulty" in document:
        _difficulty(document["difficulty"], folder / "properties_difficulty.png")
    if "taxonomy" in document:
        for name, found in document["taxonomy"].items():
            _taxonomy(found, TITLES[name], folder / f"properties_taxonomy_{name}.png")
        _difficulty_in_domain(document["taxonomy"], folder / "properties_difficulty_in_domain.png")
    if {"images", "resolution", "probes", "classes"} <= document.keys():
        _stability(document, folder / "properties_stability.png")


def _difficulty(found: dict[str, Any], path: Path) -> None:
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(NORMS), figsize=(13, 6), constrained_layout=True, sharey=True)
    error = [row["test_error"] for row in found["tasks"]]
    names = [row["task"] for row in found["tasks"]]
    colours = np.log10([row["classes"] for row in found["tasks"]])
    for panel, (form, title) in zip(panels, NORMS.items(), strict=True):
        marks = _scatter(panel, [row[form] for row in found["tasks"]], error, names, colours)
        panel.set(xlabel=title, title=_rank(found["correlation"][form]))
    panels[0].set_ylabel("test error of the probe's linear head")
    ticks = [2, 5, 10, 30, 100]
    bar = figure.colorbar(marks, ax=panels, pad=0.01, ticks=np.log10(ticks))
    bar.ax.set_yticklabels([str(tick) for tick in ticks])
    bar.set_label("classes")
    figure.suptitle(f"Norm of the embedding against difficulty, {len(error)} tasks")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _difficulty_in_domain(taxonomy: dict[str, Any], path: Path) -> None:
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(taxonomy), figsize=(13, 6), constrained_layout=True)
    for panel, (source, found) in zip(panels, taxonomy.items(), strict=True):
        rows = found["difficulty"]["tasks"]
        colours = [_colour(theme["path"]) for theme in found["themes"].values()]
        norm, error = [row["raw_l2"] for row in rows], [row["error"] for row in rows]
        _scatter(panel, norm, error, list(found["themes"]), colours)
        what = f"{TITLES[source]}: {_rank(found['difficulty']['correlation']['raw_l2'])}"
        panel.set(xlabel=NORMS["raw_l2"], ylabel="leave-one-out error of the probe's linear head", title=what)
    figure.suptitle("Norm of the embedding against difficulty, tasks of one kind")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _rank(figures: dict[str, float]) -> str:
    return f"rank correlation {figures['spearman']:+.2f} (p = {figures['p_value']:.2g})"


def _scatter(panel: Axes, x: Sequence[float], y: Sequence[float], names: list[str], colours: Any) -> Any:
    marks = panel.scatter(x, y, c=colours, s=28, zorder=2)
    if max(x) > 8 * min(x):
        panel.set_xscale("log")
    panel.margins(0.09, 0.05)
    panel.grid(alpha=0.25)
    _label(panel, np.asarray(x), np.asarray(y), names)
    return marks


def _label(panel: Axes, x: np.ndarray, y: np.ndarray, names: list[str]) -> None:
    """Name the points, hardest first, at the first of eight places around it that is free; some stay without."""
    panel.figure.canvas.draw()
    points = panel.transData.transform(np.column_stack([x, y]))
    frame, scale = panel.get_window_extent(), panel.figure.dpi / 72
    taken = [(px - 5, py - 5, px + 5, py + 5) for px, py in points]
    height, per_letter = 8.5 * scale, 4.6 * scale
    for i in np.argsort(-y):
        width = per_letter * len(names[i])
        px, py = points[i]
        left, right = -8 - width, 8.0
        for dx, dy in (*((x, dy) for dy in (0, 9, -9) for x in (right, left)), (-width / 2, 13), (-width / 2, -13)):
            box = (px + dx, py + dy - height / 2, px + dx + width, py + dy + height / 2)
            inside = box[0] > frame.x0 and box[2] < frame.x1 and box[1] > frame.y0 and box[3] < frame.y1
            if inside and not any(box[0] < t[2] and t[0] < box[2] and box[1] < t[3] and t[1] < box[3] for t in taken):
                taken.append(box)
                side = "left" if dx == right else "right" if dx == left else "center"
                anchor = {"left": box[0], "right": box[2], "center": px}[side]
                place = panel.transData.inverted().transform((anchor, py + dy))
                panel.text(*place, names[i], fontsize=7, va="center", ha=side, color="0.25")
                break


def _taxonomy(found: dict[str, Any], title: str, path: Path) -> None:
    import matplotlib.pyplot as plt
    from scipy.cluster.hierarchy import dendrogram

    names = list(found["themes"])
    paths = [theme["path"] for theme in found["themes"].values()]
    distance = symmetrised(np.array(found["distance"]))
    tree = tree_distances([tuple(path.split("/")) for path in paths])
    figure, (left, middle, right) = plt.subplots(
        1, 3, figsize=(16, 6.6), width_ratios=[0.55, 1, 1], constrained_layout=True
    )
    drawn = dendrogram(
        average_linkage(distance),
        orientation="left",
        no_labels=True,
        ax=left,
        color_threshold=0,
        above_threshold_color="0.3",
    )
    order = drawn["leaves"]
    left.invert_yaxis()
    left.set_xlabel("distance of joining (mean linkage)")
    for side in ("top", "right", "left"):
        left.spines[side].set_visible(False)
    colours = [_colour(path) for path in paths]
    for panel, matrix, what in (
        (middle, distance, "task distance (log correlation)"),
        (right, tree, "edges in the class tree"),
    ):
        shown = matrix[np.ix_(order, order)].copy()
        np.fill_diagonal(shown, np.nan)
        image = panel.imshow(shown, cmap="viridis_r", aspect="auto")
        figure.colorbar(image, ax=panel, label=what, shrink=0.8, pad=0.02)
        panel.set_xticks(range(len(names)), [names[i] for i in order], rotation=90, fontsize=9)
        panel.set_yticks(range(len(names)), [names[i] for i in order], fontsize=9)
        for labels in (panel.get_xticklabels(), panel.get_yticklabels()):
            for label, i in zip(labels, order, strict=True):
                label.set_color(colours[i])
    present = sorted({_branch(path) for path in paths}, key=BRANCHES.index)
    handles = [
        plt.Line2D([], [], marker="s", linestyle="", color=f"C{BRANCHES.index(b)}", label=b.replace("/", " / "))
        for b in present
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(present), frameon=False, title="branch")
    figures = found["agreement"]["log_correlation"]
    figure.suptitle(
        f"Tasks from {title}, {found['images']} images each: cophenetic correlation with the tree "
        f"{figures['cophenetic']:.2f}, of the distances {figures['pearson']:.2f} (p = {figures['p_value']:.2g})"
    )
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _branch(path: str) -> str:
    return next(branch for branch in BRANCHES if path.startswith(branch))


def _colour(path: str) -> str:
    return f"C{BRANCHES.index(_branch(path))}"


def _stability(document: dict[str, Any], path: Path) -> None:
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(2, 3, figsize=(15, 8.4), constrained_layout=True)
    counts, resolution, classes = document["images"], document["resolution"], document["classes"]
    _curve(panels[0, 0], counts["curve"], "images", "images of a sample", "another sample of the same task", log=True)
    panels[0, 0].set_title(f"number of images ({len(counts['tasks'])} tasks)")
    _curve(
        panels[0, 1],
        resolution["images_shrunk"],
        "side_px",
        "images shrunk to, px",
        "the same task, full images",
        log=True,
    )
    panels[0, 1].set_title(f"image resolution ({len(resolution['tasks'])} tasks)")
    _curve(panels[0, 2], resolution["probe_input"], "input_px", "probe input side, px", "the same task at 224 px")
    panels[0, 2].set_title(f"probe input ({len(resolution['tasks'])} tasks)")
    _curve(
        panels[1, 0],
        classes["merged"],
        "classes",
        "classes after merging at random",
        "the same images, all classes",
        log=True,
    )
    panels[1, 0].set_title(f"number of classes ({len(classes['tasks'])} tasks)")
    _agreement(panels[1, 1], document["probes"])
    _order(panels[1, 2], document)
    figure.suptitle("Stability of task embeddings")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _curve(panel: Axes, rows: list[dict[str, float]], key: str, axis: str, same: str, *, log: bool = False) -> None:
    x = [row[key] for row in rows]
    panel.plot(x, [row["other_tasks"] for row in rows], "s--", color="0.5", label="other tasks")
    panel.plot(x, [row["same_task"] for row in rows], "o-", label=same)
    for row in rows:
        panel.annotate(
            f"{row['top1']:.0%}",
            (row[key], row["same_task"]),
            (0, -14),
            textcoords="offset points",
            ha="center",
            fontsize=8,
            color="C0",
        )
    if log:
        panel.set_xscale("log", base=2)
    panel.set_xticks(x, [str(value) for value in x])
    panel.minorticks_off()
    low, high = min(row["same_task"] for row in rows), max(row["other_tasks"] for row in rows)
    panel.set_ylim(min(0.0, low) - 0.12 * high, 1.45 * high)
    panel.set(xlabel=f"{axis} (in %: nearest to itself)", ylabel="median distance")
    panel.grid(alpha=0.3)
    panel.legend(frameon=False, loc="upper right", title="distance to")


def _agreement(panel: Axes, found: dict[str, Any]) -> None:
    names = list(found["agreement"])
    matrix = np.array([[found["agreement"][a][b]["spearman"] for b in names] for a in names])
    panel.imshow(matrix, vmin=0, vmax=1, cmap="Blues")
    for i in range(len(names)):
        for j in range(len(names)):
            panel.text(j, i, f"{matrix[i, j]:.2f}", ha="center", va="center", color="w" if matrix[i, j] > 0.6 else "k")
    short = [name.split(".")[0].removeprefix("tf_").replace("_patch16_224", "") for name in names]
    panel.set_xticks(range(len(names)), short, rotation=20, ha="right", fontsize=9)
    panel.set_yticks(range(len(names)), short, fontsize=9)
    panel.set_title(f"probe: rank correlation of the distances\nbetween {len(found['tasks'])} tasks", fontsize=11)


def _order(panel: Axes, document: dict[str, Any]) -> None:
    """Rank correlation of all task distances with those of the reference condition."""
    bars = {f"{row['images']} images": row["spearman"] for row in document["images"]["curve"]}
    bars |= {f"images of {row['side_px']} px": row["spearman"] for row in document["resolution"]["images_shrunk"]}
    bars |= {f"probe at {row['input_px']} px": row["spearman"] for row in document["resolution"]["probe_input"]}
    colours = ["C0"] * len(document["images"]["curve"]) + ["C1"] * 4 + ["C2"] * 4
    panel.barh(list(bars), list(bars.values()), color=colours[: len(bars)])
    for i, value in enumerate(bars.values()):
        panel.text(max(value, 0) + 0.01, i, f"{value:.2f}", va="center", fontsize=8)
    panel.invert_yaxis()
    panel.set_xlim(min(0.0, *bars.values()), 1.1)
    panel.tick_params(axis="y", labelsize=8.5)
    panel.set_title(
        "rank correlation of all task distances with those\nof 64 other images, full images, 224 px", fontsize=11
    )

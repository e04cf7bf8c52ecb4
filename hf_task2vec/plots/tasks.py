"""Plots of a set of tasks: the map, and the matrix of distances with its dendrogram."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np

from hf_task2vec.plots.names import name_points
from hf_task2vec.plots.style import COLOURS, FONT_SIZE, INK, MARKERS, MUTED, domain_styles, drawable, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hf_task2vec.task_map import TaskMap

_GREY = "#9aa1aa"


def task_map(tasks: TaskMap, *, highlight: Collection[str] = ()) -> Figure:
    """Draw tasks as points of the plane, near ones near each other, coloured by domain.

    Parameters
    ----------
    tasks
        From :func:`~hf_task2vec.task_map.map_tasks`, which says what the places mean.
    highlight
        Names of tasks to stand out.

    Returns
    -------
    matplotlib.figure.Figure
        Every point has its name beside it, except where a crowd leaves no room.

    Raises
    ------
    Task2VecError
        Matplotlib is not installed.
    """
    width = float(np.clip(5.0 + 0.06 * len(tasks), 5.5, 12.0))
    extent = np.ptp(tasks.positions, axis=0)
    height = width * float(np.clip((extent[1] + 0.1 * extent[0]) / max(extent[0], 1e-12), 0.45, 1.0)) + 0.6
    figure = new_figure(width + 2.2, height)
    axes = figure.add_subplot()
    styles = domain_styles(tasks.domains)
    for domain, (colour, shape) in styles.items():
        chosen = [i for i, other in enumerate(tasks.domains) if other == domain]
        x, y = tasks.positions[chosen].T
        axes.scatter(
            x,
            y,
            s=34,
            color=[*COLOURS, _GREY][colour],
            marker=MARKERS[shape],
            edgecolor="white",
            linewidth=0.6,
            label=drawable(domain) if domain is not None else "no domain given",
            zorder=3,
        )
    stand_out = [name in highlight for name in tasks.names]
    x, y = tasks.positions[stand_out].T
    axes.scatter(x, y, s=150, facecolor="none", edgecolor=INK, linewidth=1.4, zorder=2)
    axes.set_aspect("equal", adjustable="datalim")
    axes.margins(0.09, 0.05)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_color("#e3e6ea")
    if set(styles) != {None}:
        legend = figure.legend(
            loc="outside right upper", frameon=False, fontsize=FONT_SIZE - 1, alignment="left", handletextpad=0.2
        )
        for text in legend.get_texts():
            text.set_parse_math(False)
    axes.set_title(_map_title(tasks), fontsize=FONT_SIZE + 1, color=INK, loc="left")
    name_points(figure, axes, tasks.positions, tasks.names, bold=stand_out)
    return figure


def _map_title(tasks: TaskMap) -> str:
    what = "neighbours" if tasks.layout == "tsne" else "distances"
    name = {"tsne": "t-SNE", "mds": "MDS"}[tasks.layout]
    return (
        f"{len(tasks)} tasks by {tasks.kind}: {name}, which keeps {what}\n"
        f"(nearest task among the three nearest here: {100 * tasks.neighbours_kept:.0f} %; stress {tasks.stress:.2f})"
    )


def distance_matrix(tasks: TaskMap) -> Figure:
    """Draw the distances between tasks as colours, similar tasks side by side, with their dendrogram.

    Parameters
    ----------
    tasks
        From :func:`~hf_task2vec.task_map.map_tasks`. The dendrogram is that of average linkage: two branches join at
        the mean distance between their tasks.

    Returns
    -------
    matplotlib.figure.Figure
        Dots mark near duplicates (see :class:`~hf_task2vec.task_map.TaskPair`).

    Raises
    ------
    Task2VecError
        Matplotlib is not installed.
    """
    from scipy.cluster.hierarchy import dendrogram

    n = len(tasks)
    side = float(np.clip(1.6 + 0.155 * n, 3.2, 14.0))
    figure = new_figure(side + 3.9, side + 1.6)
    tree, axes = figure.subplots(1, 2, width_ratios=[1.3, side])
    links = tasks.linkage()
    drawn = dendrogram(
        links,
        no_plot=not links[:, 2].any(),  # no branch has a length
        orientation="left",
        no_labels=True,
        ax=tree,
        color_threshold=0,
        above_threshold_color=MUTED,
    )
    order = drawn["leaves"]
    tree.invert_yaxis()
    tree.tick_params(axis="x", labelsize=FONT_SIZE - 1, color=MUTED, labelcolor=INK)
    for edge in ("top", "left", "right"):
        tree.spines[edge].set_visible(False)
    tree.spines["bottom"].set_color(MUTED)
    tree.set_xlabel("mean distance", fontsize=FONT_SIZE - 1, color=INK)
    for line in tree.collections:
        line.set_linewidth(0.9)
    shown = tasks.distances[np.ix_(order, order)].copy()
    np.fill_diagonal(shown, np.nan)
    image = axes.imshow(shown, cmap="viridis_r", vmin=0.0, aspect="auto", interpolation="nearest")
    names = [drawable(tasks.names[i], 26) for i in order]
    size = float(np.clip(330.0 / n, 4.5, FONT_SIZE))
    axes.set_xticks(range(n), names, rotation=90, fontsize=size, parse_math=False)
    axes.set_yticks(range(n), names, fontsize=size, parse_math=False)
    axes.yaxis.tick_right()
    axes.tick_params(length=0, pad=2, labelcolor=INK)
    axes.spines[:].set_visible(False)
    place = {tasks.names[i]: k for k, i in enumerate(order)}
    near = np.array([(place[p.first], place[p.second]) for p in tasks.near_duplicates], dtype=float).reshape(-1, 2)
    axes.scatter(*np.vstack([near, near[:, ::-1]]).T, s=9, color="white", edgecolor=INK, linewidth=0.6)
    bar = figure.colorbar(image, ax=axes, location="bottom", shrink=0.5, aspect=40, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=FONT_SIZE - 1, color=MUTED, labelcolor=INK)
    dots = "; dots: near duplicates" if len(near) else ""
    bar.set_label(f"distance ({tasks.kind}){dots}", fontsize=FONT_SIZE, color=INK)
    return figure

"""Names beside the points of a Matplotlib plot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hf_task2vec.plots.places import anchor, place_labels
from hf_task2vec.plots.style import INK, MUTED, drawable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[np.float64]

_FONT_SIZE = 7.5
_LONGEST_NAME = 44
_LEAST_LINE = 12.0  # points: a nearer label needs no line to its point


def name_points(
    figure: Figure,
    axes: Axes,
    places: Array,
    names: Sequence[str],
    *,
    bold: Sequence[bool] = (),
    avoid: Array | None = None,
) -> None:
    """Write each name at a free place near its point, joined by a line if that is not close; some stay without.

    What is to be seen of the axes must be there already, its limits included.

    Parameters
    ----------
    places
        Shape (n, 2), the points in data coordinates.
    names
        n texts.
    bold
        Which are written in bold and have a wider mark (default: none).
    avoid
        Shape (m, 2), further points in data coordinates that no name may cover.
    """
    wide = np.array(bold if len(bold) else [False] * len(names), dtype=bool)
    texts = [
        axes.annotate(
            drawable(name, _LONGEST_NAME),
            tuple(place),
            (0, 0),
            textcoords="offset points",
            fontsize=_FONT_SIZE,
            fontweight="bold" if strong else "normal",
            ha="center",
            va="center",
            color=INK,
            parse_math=False,
            annotation_clip=False,
            in_layout=False,
            bbox={"boxstyle": "square,pad=0.08", "facecolor": "white", "alpha": 0.75, "linewidth": 0.0},
            zorder=6,
        )
        for name, place, strong in zip(names, places, wide, strict=True)
    ]
    figure.draw_without_rendering()  # which settles where the axes are
    scale, frame = figure.dpi / 72, axes.get_window_extent()
    corner = np.array([frame.x0, frame.y0])
    points = axes.transData.transform(places) - corner
    sizes = np.array([text.get_window_extent().size for text in texts]).reshape(-1, 2) + scale
    radii = scale * np.where(wide, 8.0, 4.0)
    found = place_labels(
        points, sizes, (frame.width, frame.height), radii, _obstacles(figure, axes, avoid) - np.tile(corner, 2)
    )
    for text, point, centre, size in zip(texts, points, found, sizes, strict=True):
        if np.isnan(centre).any():
            text.remove()
            continue
        text.set_position(tuple((centre - point) / scale))
        end = anchor(point, centre, size)
        if np.hypot(*(end - point)) > _LEAST_LINE * scale:
            line = axes.transData.inverted().transform(np.array([point, end]) + corner)
            axes.plot(*line.T, color=MUTED, linewidth=0.5, zorder=1.5, scalex=False, scaley=False)


def _obstacles(figure: Figure, axes: Axes, avoid: Array | None) -> Array:
    """The legend and the points to be avoided, as boxes in pixels, shape (m, 4)."""
    boxes = np.empty((0, 4))
    if (legend := axes.get_legend()) is not None:
        boxes = np.array([legend.get_window_extent().extents])
    if avoid is not None:
        points, half = axes.transData.transform(avoid), 2.0 * figure.dpi / 72
        boxes = np.vstack([boxes, np.hstack([points - half, points + half])])
    return boxes

"""A small heat map of the distances between a task and the reference tasks nearest to it."""

from __future__ import annotations

import io
import logging
from typing import TYPE_CHECKING

import numpy as np

from hf_task2vec.plots.style import drawable

if TYPE_CHECKING:
    from hf_task2vec.cards import Nearest

logger = logging.getLogger(__name__)

_LONGEST_NAME = 24


def heat_map(nearest: Nearest, label: str = "this task") -> bytes | None:
    """Return the distances as a PNG image, None (and a message in the log) without Matplotlib.

    Parameters
    ----------
    label
        What stands for the task itself.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        logger.warning("the card gets no heat map, for Matplotlib is missing: pip install 'hf-task2vec[report]'")
        return None
    names = [drawable(name, _LONGEST_NAME) for name in (label, *nearest.names)]
    distances, n = nearest.distances, len(names)
    # A figure of its own rather than pyplot's, whose state belongs to the user.
    figure = Figure(figsize=(1.9 + 0.46 * n, 1.3 + 0.42 * n))
    FigureCanvasAgg(figure)
    figure.set_layout_engine("constrained", w_pad=0.08, h_pad=0.08)
    axes = figure.add_subplot()
    off_diagonal = distances[~np.eye(n, dtype=bool)]
    top = float(off_diagonal.max(initial=1e-6))
    image = axes.imshow(distances, cmap="viridis_r", vmin=0.0, vmax=top)
    axes.set_xticks(range(n), names, rotation=40, ha="right", rotation_mode="anchor", fontsize=8, parse_math=False)
    axes.set_yticks(range(n), names, fontsize=8, parse_math=False)
    for ticks in (axes.get_xticklabels(), axes.get_yticklabels()):
        ticks[0].set_fontweight("bold")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for i in range(n):
        for j in range(n):
            if i != j:
                colour = "white" if distances[i, j] > 0.55 * top else "black"
                axes.text(j, i, f"{distances[i, j]:.2f}", ha="center", va="center", fontsize=7, color=colour)
    bar = figure.colorbar(image, ax=axes, shrink=0.8)
    bar.set_label("distance", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110, metadata={"Software": "hf_task2vec"})
    return stream.getvalue()

"""The map of a set of tasks as one HTML file: nothing is loaded from elsewhere, and nothing runs in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hf_task2vec import __version__
from hf_task2vec.plots.places import anchor, place_labels
from hf_task2vec.plots.style import SHAPES, domain_styles, shortened

if TYPE_CHECKING:
    from hf_task2vec.task_map import TaskMap

Array = NDArray[np.float64]

# All lengths are in the units of the picture's view box, about pixels on a wide screen.
_WIDTH, _MARGIN = 1000.0, 46.0
_RADIUS, _FONT = 5.5, 11.5
_LETTER = 0.58  # mean width of a letter over the size of the font, of the wider sans-serif fonts
_LINE_FROM = 14.0
_SHOWN_PAIRS = 20


@dataclass(frozen=True)
class _Mark:
    """One task on the picture, in units of the view box: `label` and where it hangs on to that, if there is room."""

    x: float
    y: float
    path: str
    colour: int
    label: tuple[float, float] | None
    side: str
    line: tuple[float, float] | None


def map_page(tasks: TaskMap, *, title: str | None = None) -> str:
    """Return a page with the map, the nearest pairs and all tasks; needs no Matplotlib.

    Pointing at a task, or reaching it with the Tab key, shows its facts and lines to the three nearest tasks. The page
    follows the light or dark setting of the browser.

    Parameters
    ----------
    tasks
        From :func:`~hf_task2vec.task_map.map_tasks`.
    title
        Heading (default: how many tasks there are).

    Returns
    -------
    str
        An HTML document, to be written as UTF-8. It names the tasks and domains, and holds no image.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("hf_task2vec"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    height, places = _fit(tasks.positions)
    marks = _marks(tasks, places, height)
    diversity = tasks.diversity
    return environment.get_template("map.html.j2").render(
        title=f"Map of {len(tasks)} tasks" if title is None else title,
        tasks=tasks,
        width=_WIDTH,
        height=height,
        font=_FONT,
        rows=[_row(tasks, i, mark, height) for i, mark in enumerate(marks)],
        legend=_legend(tasks.domains),
        diversity=diversity,
        pairs=tasks.pairs[:_SHOWN_PAIRS],
        duplicates=tasks.near_duplicates,
        judged=bool(np.isfinite(tasks.noise_ratios).any()),
        shown=shortened,
        version=__version__,
    )


def _fit(positions: Array) -> tuple[float, Array]:
    """Height of the picture, and the positions in it, shape (n, 2), with y downwards."""
    low, extent = positions.min(axis=0), np.ptp(positions, axis=0)
    scale = (_WIDTH - 2 * _MARGIN - 90) / max(float(extent[0]), 1e-12)  # some room for labels on the right
    height = float(np.clip(extent[1] * scale + 2 * _MARGIN, 260.0, 1100.0))
    y_scale = min(scale, (height - 2 * _MARGIN) / max(float(extent[1]), 1e-12))
    x = _MARGIN + 45 + (positions[:, 0] - low[0]) * scale
    y = height / 2 - (positions[:, 1] - low[1] - extent[1] / 2) * y_scale
    return height, np.column_stack([x, y])


def _marks(tasks: TaskMap, places: Array, height: float) -> list[_Mark]:
    names = [shortened(name) for name in tasks.names]
    sizes = np.array([(_LETTER * _FONT * len(name) + 2, 1.15 * _FONT) for name in names])
    centres = place_labels(places, sizes, (_WIDTH, height), np.full(len(names), _RADIUS + 1.5))
    styles = domain_styles(tasks.domains)
    marks = []
    for place, centre, size, domain in zip(places, centres, sizes, tasks.domains, strict=True):
        x, y = map(float, place)
        colour, shape = styles[domain]
        path = _shape(SHAPES[shape], x, y, _RADIUS)
        if np.isnan(centre).any():
            marks.append(_Mark(x, y, path, colour, None, "middle", None))
            continue
        # Widths of letters are not known here: hold on to the side next to the point.
        offset = float(centre[0] - x)
        side = "middle" if abs(offset) < size[0] / 4 else "start" if offset > 0 else "end"
        label = (float(centre[0]) + {"start": -0.5, "middle": 0.0, "end": 0.5}[side] * float(size[0]), float(centre[1]))
        end = anchor(place, centre, size)
        far = np.hypot(*(end - place)) > _LINE_FROM
        marks.append(_Mark(x, y, path, colour, label, side, (float(end[0]), float(end[1])) if far else None))
    return marks


def _shape(name: str, x: float, y: float, r: float) -> str:
    """Return the path of a mark of about equal area, whatever its shape."""
    if name == "circle":
        return f"M{x - r:.1f} {y:.1f}a{r} {r} 0 1 0 {2 * r} 0a{r} {r} 0 1 0 {-2 * r} 0z"
    corners = {
        "square": ((-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)),
        "triangle": ((0.0, -1.3), (1.18, 0.8), (-1.18, 0.8)),
        "diamond": ((0.0, -1.25), (1.25, 0.0), (0.0, 1.25), (-1.25, 0.0)),
    }[name]
    return "M" + "L".join(f"{x + r * dx:.1f} {y + r * dy:.1f}" for dx, dy in corners) + "z"


def _legend(domains: Sequence[str | None]) -> list[dict[str, Any]]:
    styles = domain_styles(domains)
    if set(styles) == {None}:
        return []
    return [
        {
            "name": "no domain given" if domain is None else domain,
            "colour": colour,
            "path": _shape(SHAPES[shape], 8.0, 8.0, _RADIUS),
            "count": sum(other == domain for other in domains),
        }
        for domain, (colour, shape) in styles.items()
    ]


def _row(tasks: TaskMap, i: int, mark: _Mark, height: float) -> dict[str, Any]:
    """Everything that the page says of one task."""
    found = tasks.descriptors[i]
    counts = {name: None if name not in found else f"{found[name]:.0f}" for name in ("n_classes", "n_samples")}
    return {
        "name": tasks.names[i],
        "domain": tasks.domains[i],
        "mark": mark,
        "nearest": tasks.nearest(i),
        "links": [tasks.names.index(pair.second) for pair in tasks.nearest(i)],
        # The box with the facts opens towards the middle of the picture.
        "left": 100 * mark.x / _WIDTH,
        "top": 100 * mark.y / height,
        "to_left": mark.x > _WIDTH / 2,
        "upwards": mark.y > height / 2,
        **counts,
    }

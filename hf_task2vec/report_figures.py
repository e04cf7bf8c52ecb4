"""The plots of a report: inline SVG that takes its colours from the page, so that it suits light, dark and paper.

Matplotlib draws them in stand-in colours, which become the page's CSS variables. It is an optional dependency.
"""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)

Array = NDArray[np.float64]

MISSING = "the plots need Matplotlib, which is missing: pip install 'hf-task2vec[report]'"
# Stand-in colours, which nothing else has, and the variables of the page that take their place.
_COLOURS = {"#010203": "--ink", "#010204": "--muted", "#010205": "--line", "#010206": "--accent", "#010207": "--page"}
_INK, _MUTED, _LINE, _ACCENT, _PAGE = _COLOURS
_ADDRESS = re.compile(r"#([\w.-]+)")


@dataclass(frozen=True, eq=False)
class Cloud:
    """Checkpoints by what they cost.

    Attributes
    ----------
    cost, score
        Shape (n,): cost > 0, and predicted accuracy in [0, 1].
    front
        Rows of those that no cheaper one equals in accuracy, the cheapest first.
    marked
        Rows of those that are named, with their letters, and shape (m,) ends of their intervals.
    letters, titles, low, high
        Of the m marked ones: sign in the plot, what a pointer shows, ends of the 80 % interval.
    best
        Row of the recommended one, None if its cost is unknown.
    """

    cost: Array
    score: Array
    front: NDArray[np.int64]
    marked: NDArray[np.int64]
    letters: Sequence[str]
    titles: Sequence[str]
    low: Array
    high: Array
    best: int | None


def has_matplotlib() -> bool:
    """Say whether plots can be drawn; a message in the log says what to install if not."""
    try:
        import matplotlib.figure  # noqa: F401 (only asks)
    except ImportError:
        logger.warning("%s", MISSING)
        return False
    return True


def cost_plot(cloud: Cloud, *, axis: str, score: str, title: str, description: str, prefix: str) -> str:
    """Draw predicted accuracy against cost, and return an ``<svg>`` element to put into a page.

    Parameters
    ----------
    axis, score
        What the cost and the score are, with their units.
    title, description
        What a screen reader says of the plot.
    prefix
        Beginning of every id in it, to tell the plots of a page apart.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2))  # of its own: pyplot's state belongs to the user
    FigureCanvasAgg(figure)
    figure.set_layout_engine("constrained")
    figure.patch.set_visible(False)
    axes = figure.add_subplot()
    _style(axes, axis, score)
    rest = np.setdiff1d(np.arange(len(cloud.cost)), cloud.marked)
    axes.scatter(cloud.cost[rest], 100 * cloud.score[rest], s=9, color=_MUTED, alpha=0.28, linewidths=0, zorder=2)
    axes.step(cloud.cost[cloud.front], 100 * cloud.score[cloud.front], where="post", color=_ACCENT, lw=1.4, zorder=3)
    names = {}
    for k, row in enumerate(cloud.marked):
        x, y = float(cloud.cost[row]), 100 * float(cloud.score[row])
        axes.plot([x, x], [100 * cloud.low[k], 100 * cloud.high[k]], color=_ACCENT, lw=1.2, alpha=0.55, zorder=3)
        gid = f"mark{k}"
        (dot,) = axes.plot([x], [y], "o", ms=12.5, mfc=_ACCENT, mec=_PAGE, mew=1.2, zorder=4, gid=gid)
        names[str(dot.get_gid())] = cloud.titles[k]
        axes.annotate(
            cloud.letters[k], (x, y), color=_PAGE, fontsize=8, fontweight="bold", ha="center", va="center_baseline",
            zorder=5, parse_math=False,
        )  # fmt: skip
    if cloud.best is not None:
        where = cloud.cost[cloud.best], 100 * cloud.score[cloud.best]
        axes.plot(*([value] for value in where), "o", ms=17, mfc="none", mec=_INK, mew=1.3, zorder=4)
    return _inline(_svg(figure), names, title, description, prefix)


def _style(axes: Axes, label: str, score: str) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axes.set_xscale("log")
    axes.patch.set_visible(False)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(_MUTED)
    axes.grid(axis="y", color=_LINE, lw=0.9)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_MUTED, labelsize=9, which="both")
    axes.tick_params(axis="y", length=0)
    for text in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        text.set_color(_MUTED)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(label, color=_INK, fontsize=10)
    axes.set_ylabel(score, color=_INK, fontsize=10)


def _svg(figure: Figure) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="svg", metadata={"Date": None})
    return stream.getvalue()


def _inline(svg: bytes, names: dict[str, str], title: str, description: str, prefix: str) -> str:
    """Make of Matplotlib's file an element of a page: no styles, own ids, the page's colours, words for the blind."""
    root = ElementTree.fromstring(svg)
    ids: dict[str, str] = {}
    for parent in root.iter():
        for child in list(parent):
            if child.tag.rpartition("}")[2] in ("metadata", "style"):
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.attrib = _attributes(element.attrib)
        name = element.attrib.get("id")
        if name in names:
            element.insert(0, _words("title", names[name]))
        if name is not None:
            ids[name] = element.attrib["id"] = f"{prefix}-{len(ids)}"
    for element in root.iter():
        for key, value in element.attrib.items():
            if key == "href" or value.startswith("url("):
                element.attrib[key] = _ADDRESS.sub(lambda match: f"#{ids.get(match[1], match[1])}", value)
    box = root.attrib["viewBox"]
    root.attrib = {"viewBox": box, "role": "img", "aria-labelledby": f"{prefix}-title {prefix}-desc"}
    for position, (tag, text) in enumerate((("title", title), ("desc", description))):
        root.insert(position, _words(tag, text, id=f"{prefix}-{tag}"))
    return ElementTree.tostring(root, encoding="unicode")


def _words(tag: str, text: str, **attributes: str) -> ElementTree.Element:
    element = ElementTree.Element(tag, attributes)
    element.text = text
    return element


def _attributes(attributes: dict[str, str]) -> dict[str, str]:
    """Return attributes without namespaces, with each style as an attribute of its own and the page's colours.

    A page that forbids inline styles, as a report does, would ignore them.
    """
    found: dict[str, Any] = {}
    for key, value in attributes.items():
        if key == "style":
            found.update(
                (name.strip(), part.strip()) for name, _, part in (p.partition(":") for p in value.split(";")) if part
            )
        else:
            found[key.rpartition("}")[2]] = value
    return {
        key: f"var({_COLOURS[value]})" if key in ("fill", "stroke") and value in _COLOURS else value
        for key, value in found.items()
    }

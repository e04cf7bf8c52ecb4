"""Plot of a ranking: predicted accuracy against cost, and the candidates that nothing beats on both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hf_task2vec.errors import SelectionError
from hf_task2vec.pareto import pareto_front as rows_of_front
from hf_task2vec.plots.names import name_points
from hf_task2vec.plots.style import ACCENT, FONT_SIZE, INK, drawable, new_figure, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from hf_task2vec.ranking import Candidate, Ranking

Array = NDArray[np.float64]

#: What candidates can be compared by beside their accuracy: attribute of a candidate -> label of the axis.
COSTS = {"params_m": "parameters, millions", "gmacs": "multiply-adds for one image, 10⁹"}
_MOST_NAMED = 14
_MOST_INTERVALS = 60  # of more candidates the intervals hide the points


def pareto_front(candidates: Sequence[Candidate], cost: str = "params_m") -> list[Candidate]:
    """Return the candidates that no other beats: none is as cheap and better, or as good and cheaper.

    Parameters
    ----------
    candidates
        Such as a :class:`~hf_task2vec.ranking.Ranking`; those of unknown cost are left out.
    cost
        ``"params_m"`` or ``"gmacs"``.

    Returns
    -------
    list of Candidate
        Cheapest first, so also least accurate first; of equal ones the first.

    Raises
    ------
    SelectionError
        `cost` is neither.
    """
    if cost not in COSTS:
        raise SelectionError(f"cost={cost!r} is unknown; choose one of {', '.join(COSTS)}")
    costs = np.array([getattr(candidate, cost) for candidate in candidates], dtype=np.float64)  # None becomes NaN
    scores = np.array([candidate.score for candidate in candidates], dtype=np.float64)
    return [candidates[int(row)] for row in rows_of_front(costs, scores)]


def pareto(ranking: Ranking, *, cost: str = "params_m") -> Figure:
    """Draw predicted accuracy against size or compute, with the Pareto front marked and named.

    Parameters
    ----------
    ranking
        Its candidates are drawn, so rank with a large `top_k` for a full picture. Those of unknown cost are left out,
        and counted below the axis.
    cost
        ``"params_m"`` (millions of parameters) or ``"gmacs"`` (10⁹ multiply-adds for one image).

    Returns
    -------
    matplotlib.figure.Figure
        Points of the front with their 80 % intervals, those of the others where there are at most 60; the cost on a
        logarithmic axis. The most accurate of the front, up to 14, are numbered, and named beside the plot.

    Raises
    ------
    SelectionError
        `cost` is neither, or is not known of any candidate.
    Task2VecError
        Matplotlib is not installed.
    """
    front = pareto_front(ranking, cost)
    if not front:
        raise SelectionError(f"{cost} is not known of any of the {len(ranking)} candidates")
    named = {candidate.hub_id for candidate in front}
    others = [c for c in ranking if getattr(c, cost) is not None and c.hub_id not in named]
    figure = new_figure(10.2, 5.2)
    axes = figure.add_subplot()
    axes.set_xscale("log")
    if others:
        x, low, y, high = _values(others, cost)
        if len(others) <= _MOST_INTERVALS:
            axes.vlines(x, low, high, color="#b9bec6", linewidth=0.8, zorder=1)
        axes.scatter(x, y, s=10, color="#a7adb6", linewidth=0, label="other candidates", zorder=2)
    x, low, y, high = _values(front, cost)
    axes.step(x, y, where="post", color=ACCENT, linewidth=0.9, alpha=0.5, zorder=3)
    axes.vlines(x, low, high, color=ACCENT, alpha=0.28, linewidth=2.2, zorder=2.5)
    label = "Pareto front: none is both cheaper and better"
    axes.scatter(x, y, s=34, color=ACCENT, edgecolor="white", linewidth=0.6, label=label, zorder=4)
    tidy(axes)
    _plain_ticks(axes)
    axes.set_xlabel(COSTS[cost] + _left_out(ranking, cost), fontsize=FONT_SIZE)
    axes.set_ylabel(f"predicted {ranking.score_name}, % (bars: 80 % interval)", fontsize=FONT_SIZE)
    axes.set_title(f"{len(front) + len(others)} of {ranking.n_ranked} checkpoints for {drawable(ranking.dataset, 60)}",
                   fontsize=FONT_SIZE + 1, loc="left", color=INK, parse_math=False)  # fmt: skip
    axes.legend(frameon=False, fontsize=FONT_SIZE, loc="lower right")
    axes.margins(x=0.08, y=0.08)
    shown = sorted(front, key=lambda candidate: -candidate.score)[:_MOST_NAMED]
    _list_front(axes, shown, cost)
    places, every = (_values(chosen, cost)[[0, 2]].T for chosen in (shown, [*front, *others]))
    # Numbers, for names would not fit where the front is dense.
    name_points(figure, axes, places, [str(k) for k in range(1, len(shown) + 1)], avoid=every)
    return figure


def _list_front(axes: Axes, shown: Sequence[Candidate], cost: str) -> None:
    unit = {"params_m": "M", "gmacs": "GMACs"}[cost]
    lines = []
    for k, candidate in enumerate(shown, start=1):
        lines.append(f"{k:>2}  {drawable(candidate.hub_id, 44)}")
        lines.append(f"      {100 * candidate.score:.1f} %, {getattr(candidate, cost):.3g} {unit}")
    axes.text(1.02, 1.0, "\n".join(lines), transform=axes.transAxes, va="top", fontsize=FONT_SIZE - 1.5,
              linespacing=1.35, color=INK, parse_math=False)  # fmt: skip


def _left_out(ranking: Ranking, cost: str) -> str:
    unknown = sum(getattr(candidate, cost) is None for candidate in ranking)
    return f" (not known of {unknown}, left out)" if unknown else ""


def _plain_ticks(axes: Axes) -> None:
    """Write 5, 20, 100 rather than powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _values(candidates: Sequence[Candidate], cost: str) -> Array:
    """Cost, low end of the interval, accuracy, and high end, the latter three in per cent, shape (4, n)."""
    return np.array([(getattr(c, cost), 100 * c.low, 100 * c.score, 100 * c.high) for c in candidates]).T

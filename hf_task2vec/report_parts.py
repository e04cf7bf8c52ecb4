"""What a report says, as plain data for its template."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hf_task2vec.pareto import pareto_front
from hf_task2vec.ranking import percent
from hf_task2vec.report_figures import Cloud

if TYPE_CHECKING:
    from hf_task2vec.explanation import Explanation
    from hf_task2vec.material import Thumbnail
    from hf_task2vec.ranking import Candidate, Ranking

Array = NDArray[np.float64]

#: Rows of a report's tables of classes, skipped images and measurements; and points of a plot.
MAX_CLASSES, MAX_SKIPPED, MAX_MEASUREMENTS, MAX_POINTS = 200, 10, 8, 1500
_COSTS = ("params_m", "gmacs")
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True, eq=False)
class Field:
    """All n checkpoints that were ranked, or those that are left of them.

    Attributes
    ----------
    ids
        Hub ids.
    score, params_m, gmacs
        Shape (n,): predicted accuracy in [0, 1]; cost, NaN where unknown.
    ranking
        Where they come from.
    """

    ids: Sequence[str]
    score: Array
    params_m: Array
    gmacs: Array
    ranking: Ranking

    @classmethod
    def of(cls, ranking: Ranking) -> Field:
        """Take all that were ranked; of a ranking without its explainer, the candidates."""
        explainer = ranking._explainer
        if explainer is None:
            ids = [c.hub_id for c in ranking]
            score = np.array([c.score for c in ranking])
            costs = [np.array([getattr(c, name) for c in ranking], dtype=np.float64) for name in _COSTS]
        else:
            frame = explainer.checkpoints
            ids, score = frame["hub_id"].tolist(), explainer.scores["score"][: len(frame)]
            costs = [frame[name].to_numpy(dtype=np.float64, na_value=np.nan) for name in _COSTS]
        params_m, gmacs = costs
        return cls(ids, score, params_m, gmacs, ranking)

    def intervals(self, rows: NDArray[np.int64]) -> tuple[Array, Array]:
        """Return the ends of the 80 % intervals at `rows`."""
        explainer = self.ranking._explainer
        if explainer is None:
            chosen = [self.ranking[int(row)] for row in rows]
            return np.array([c.low for c in chosen]), np.array([c.high for c in chosen])
        spread = explainer.intervals(rows)
        return spread["low"], spread["high"]


def budgets(least: float, most: float) -> list[float]:
    """Return the numbers 1, 2, 5, 10, 20, … (times powers of ten) from just above `least` to just above `most`."""
    exponents = range(int(np.floor(np.log10(least))) - 1, int(np.ceil(np.log10(most))) + 2)
    steps = [float(f"{digit}e{exponent}") for exponent in exponents for digit in (1, 2, 5)]
    above = [step for step in steps if step >= least]
    return above[: next(i for i, step in enumerate(above) if step >= most) + 1]


def trade_off(field: Field, quantity: str) -> tuple[Cloud, list[dict[str, Any]]] | None:
    """Return the plot of accuracy against a cost and its table, None if no cost is known.

    The table names the best checkpoint within each budget of a round size; larger budgets that buy nothing are left
    out.

    Parameters
    ----------
    quantity
        ``"params_m"`` or ``"gmacs"``.
    """
    cost: Array = getattr(field, quantity)
    front = pareto_front(cost, field.score)
    if not len(front):
        return None
    marked: list[int] = []
    limits: list[float] = []
    for limit in budgets(float(cost[front[0]]), float(cost[front[-1]])):
        row = int(front[np.searchsorted(cost[front], limit, side="right") - 1])
        if row not in marked:
            marked.append(row)
            limits.append(limit)
    low, high = field.intervals(np.array(marked))
    letters = [_LETTERS[k % len(_LETTERS)] for k in range(len(marked))]
    rows = [
        {
            "letter": letters[k],
            "limit": f"{limit:g}",
            "hub_id": field.ids[row],
            "score": percent(float(field.score[row])),
            "interval": f"{percent(float(low[k]))}–{percent(float(high[k]))}",
            "params": known(field.params_m[row], ".1f", "M"),
            "gmacs": known(field.gmacs[row], ".1f"),
            "best": field.ids[row] == field.ranking.best.hub_id,
        }
        for k, (row, limit) in enumerate(zip(marked, limits, strict=True))
    ]
    shown = np.union1d(_thinned(np.flatnonzero(np.isfinite(cost) & (cost > 0))), front)
    best = int(field.ids.index(field.ranking.best.hub_id))
    if np.isfinite(cost[best]) and cost[best] > 0:
        shown = np.union1d(shown, [best])
    at = {int(row): position for position, row in enumerate(shown)}
    cloud = Cloud(
        cost=cost[shown],
        score=field.score[shown],
        front=np.array([at[int(row)] for row in front]),
        marked=np.array([at[row] for row in marked]),
        letters=letters,
        titles=[f"{row['hub_id']}: {row['score']} % ({row['interval']})" for row in rows],
        low=low,
        high=high,
        best=at.get(best),
    )
    return cloud, rows


def _thinned(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    return rows if len(rows) <= MAX_POINTS else rows[np.linspace(0, len(rows) - 1, MAX_POINTS).astype(np.int64)]


def candidate_rows(candidates: Sequence[Candidate]) -> list[dict[str, Any]]:
    """Return the rows of the ranked table: texts, the numbers to sort by, and where the interval lies in its column."""
    low, high = min(c.low for c in candidates), max(c.high for c in candidates)
    width = max(high - low, 1e-9)

    def place(value: float) -> float:
        return round(100 * (value - low) / width, 1)

    return [
        {
            "candidate": c,
            "score": percent(c.score),
            "interval": f"{percent(c.low)}–{percent(c.high)}",
            "measured": percent(c.measured) or "–",
            "prior": percent(c.prior),
            "residual": signed(100 * c.residual),
            "params": known(c.params_m, ".1f", "M"),
            "gmacs": known(c.gmacs, ".1f"),
            "input": known(c.input_px, "d"),
            "license": c.license or "?",
            "bar": {"low": place(c.low), "score": place(c.score), "high": place(c.high)},
        }
        for c in candidates
    ]


def explanations(ranking: Ranking) -> list[Explanation]:
    """Return why each candidate stands where it stands; nothing for a ranking without its explainer."""
    return [] if ranking._explainer is None else [ranking.explain(c.hub_id) for c in ranking]


def neighbour_rows(ranking: Ranking, explanation: Explanation) -> list[dict[str, Any]]:
    """Return the rows of the table of nearest reference tasks."""
    titles = {} if ranking._explainer is None else ranking._explainer.titles
    return [
        {
            "task": n.task,
            "title": titles.get(n.task, ""),
            "similarity": f"{n.similarity:.2f}",
            "share": round(100 * n.similarity, 1),
            "contribution": signed(n.contribution),
        }
        for n in explanation.neighbours
    ]


def sample_facts(ranking: Ranking) -> list[tuple[str, str]]:
    """Return what is known of the sample, named."""
    task, found = ranking.provenance.get("task", {}), ranking.provenance.get("descriptors", {})
    drawn, total = task.get("n_samples", found.get("n_samples")), task.get("n_rows", found.get("n_rows"))
    facts = {
        "dataset": task.get("dataset", ranking.dataset),
        "configuration": task.get("config_name"),
        "revision": task.get("revision"),
        "split": task.get("split"),
        "images": None if drawn is None else f"{drawn:,.0f}" + (f" of {total:,.0f}" if total else "") + " drawn",
        "drawn from": task.get("drawn_from"),
        "classes": _number(found.get("n_classes"), ",.0f"),
        "columns": " and ".join(str(task[k]) for k in ("image_column", "label_column") if task.get(k)) or None,
        "class balance": _number(found.get("class_balance"), ".2f", " of 1"),
        "median side": _number(found.get("median_side_px"), ".0f", " px"),
        "grey images": _number(found.get("grey_share"), ".0%").replace("%", " %"),
        f"the probe's own {ranking.score_name}": _percent(found, "probe_map", "linear_probe_accuracy"),
        "noise of the embedding": _number(found.get("noise"), ".3f"),
    }
    return [(name, str(value)) for name, value in facts.items() if value]


def _percent(found: Mapping[str, Any], *names: str) -> str:
    """Return the first of some facts that is known, in per cent."""
    value = next((found[name] for name in names if found.get(name) is not None), None)
    return _number(value, ".1%").replace("%", " %")


def class_rows(ranking: Ranking) -> list[dict[str, Any]]:
    """Return each class's name, rows in the dataset and images drawn; nothing where they were not counted."""
    task = ranking.provenance.get("task", {})
    names, rows, drawn = (task.get(key) or () for key in ("label_names", "class_counts", "sample_counts"))
    if not rows or not len(names) == len(rows) == len(drawn):
        return []
    most = max([*rows, 1])
    return [
        {"name": name, "rows": f"{count:,}", "drawn": f"{n:,}", "share": round(100 * count / most, 1)}
        for name, count, n in zip(names, rows, drawn, strict=True)
    ]


def pictures(thumbnails: Sequence[Thumbnail]) -> list[dict[str, Any]]:
    """Return thumbnails as data URIs with their alternative texts."""
    return [
        {
            "src": f"data:{t.mime};base64,{base64.b64encode(t.data).decode()}",
            "labels": ", ".join(t.labels) or "no label",
            "width": t.width,
            "height": t.height,
            "pixelated": t.mime == "image/png",
        }
        for t in thumbnails
    ]


def origin(ranking: Ranking) -> list[tuple[str, str]]:
    """Return what the ranking was made of and with, named."""
    given = ranking.provenance
    probe, task, embedding = (given.get(key, {}) for key in ("probe", "task", "embedding"))
    limits = ", ".join(f"{name} = {_listed(value)}" for name, value in given.get("limits", {}).items())
    facts = {
        "limits": limits or "none",
        "metric": given.get("metric"),
        "index": shortened(given.get("index")),
        "probe": probe.get("name"),
        "probe's weights": shortened(probe.get("weights_hash")),
        "seed": embedding.get("seed", task.get("seed")),
        "sample": shortened(task.get("fingerprint")),
        "versions": ", ".join(f"{name} {version}" for name, version in given.get("versions", {}).items()),
    }
    return [(name, str(value)) for name, value in facts.items() if value not in (None, "")]


def known(value: float | None, form: str, unit: str = "") -> str:
    """Write a number, and what is unknown (None, NaN) as ``?``."""
    return "?" if value is None or np.isnan(value) else format(value, form) + unit


def signed(points: float) -> str:
    """Write points of accuracy with their sign; a minus, not a hyphen."""
    text = f"{points:+.1f}"
    return "0.0" if text in ("-0.0", "+0.0") else text.replace("-", "−")


def shortened(digest: str | None) -> str:
    """Return the beginning of a checksum, enough to tell it from others."""
    return "" if digest is None else f"{digest[:16]}…"


def _number(value: float | None, form: str, unit: str = "") -> str:
    return "" if value is None else format(value, form) + unit


def _listed(value: Any) -> str:
    if isinstance(value, (int, float)):
        return f"{value:,.10g}"
    items = [str(item) for item in value] if isinstance(value, (list, tuple)) else [str(value)]
    return ", ".join(items[:20]) + (f" and {len(items) - 20} more" if len(items) > 20 else "")

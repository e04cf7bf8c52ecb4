"""A ranking as one HTML page that needs nothing else: no network, no other file, no program but a browser."""

from __future__ import annotations

import base64
import io
import math
import os
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from hf_task2vec.errors import SelectionError
from hf_task2vec.files import atomic_path, why
from hf_task2vec.report.html import render_page, render_part
from hf_task2vec.selection import known, percent, siblings

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image

    from hf_task2vec.selection import Ranking
    from hf_task2vec.tasks import Task

Array = NDArray[np.float64]

#: Pictures of the sample that a report shows.
MAX_THUMBNAILS = 40
# Longest side of a picture of the sample, in pixels. Up to the second side it is kept without loss: that is smaller,
# and eight pixels do not survive JPEG.
THUMBNAIL_PX, _LOSSLESS_PX = 96, 48
_COSTS = {
    "params_m": ("size", "parameters, millions", "M"),
    "gmacs": ("compute", "10⁹ multiply-adds for one image", "GMACs"),
}
# The plot, in units of its view box: left, right, top and bottom of the axes.
_LEFT, _RIGHT, _TOP, _BOTTOM = 52.0, 625.0, 15.0, 360.0


def write_report(ranking: Ranking, path: str | os.PathLike[str], *, images: bool = True) -> Path:
    """Write a ranking as one HTML page; see :meth:`hf_task2vec.selection.ranking.Ranking.report`."""
    target = Path(path)
    if target.is_dir():
        raise SelectionError(f"the report cannot be written to {target}: it is a folder; give a file in it")
    page = render_report(ranking, images=images)
    try:
        with atomic_path(target) as temporary:
            temporary.write_text(page, encoding="utf-8", newline="\n")
    except OSError as error:
        raise SelectionError(f"the report cannot be written to {target}: {why(error)}") from error
    return target


def render_report(ranking: Ranking, *, images: bool = True) -> str:
    """Return the page; see :meth:`hf_task2vec.selection.ranking.Ranking.report`."""
    if not len(ranking):
        raise SelectionError("the ranking holds no candidate, so there is nothing to report; run select_backbone again")
    explained = [ranking.explanations[c.hub_id] for c in ranking if c.hub_id in ranking.explanations]
    low, high = min(c.low for c, _ in ranking.folded()), max(c.high for c, _ in ranking.folded())
    return render_page(
        "report.html.j2",
        styles=("page.css", "report.css"),
        scripts=("report.js",),
        title=f"Checkpoints for {ranking.dataset}",
        ranking=ranking,
        rows=ranking.folded(),
        best=ranking.best,
        task=ranking.provenance.get("task", {}),
        with_measured=any(c.measured is not None for c in ranking),
        place=lambda share: round(100 * (share - low) / max(high - low, 1e-9), 1),
        plots=[
            plot for quantity in _COSTS if (plot := cost_plot(ranking.table, quantity, ranking.best.hub_id)) is not None
        ],
        explained=explained,
        facts=_sample_facts(ranking),
        classes=_class_rows(ranking),
        has_pictures=ranking.sample is not None,
        pictures=thumbnails(ranking.sample) if images and ranking.sample is not None else [],
        steps=next_steps(ranking),
        origin=_origin(ranking),
        written=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        signed=signed,
        siblings=siblings,
        **_words(),
    )


def notebook_view(ranking: Ranking) -> str:
    """Return what a notebook shows of a ranking: short list, budgets, a small plot, and the rest folded."""
    plot = cost_plot(ranking.table, "params_m", ranking.best.hub_id)
    return render_part("notebook.html.j2", style="notebook.css", ranking=ranking, plot=plot, **_words())


def _words() -> dict[str, Any]:
    """How templates write a number, and where a checkpoint's card is."""
    from huggingface_hub.constants import ENDPOINT

    return {"percent": percent, "known": known, "card": lambda hub_id: f"{ENDPOINT}/{quote(hub_id, safe='/')}"}


# ---------------------------------------------------------------------- accuracy against cost


def pareto_front(cost: Array, score: Array) -> NDArray[np.int64]:
    """Return the rows that no row of the same or smaller cost equals in score, the cheapest first.

    Rows of unknown (NaN) or no cost are left out.
    """
    rows = np.flatnonzero(cost > 0)
    rows = rows[np.lexsort((-score[rows], cost[rows]))]
    best_before = np.maximum.accumulate(np.concatenate([[-np.inf], score[rows]]))[:-1]
    return rows[score[rows] > best_before]


def round_steps(least: float, most: float) -> list[float]:
    """Return the numbers 1, 2, 5, 10, 20, … (times powers of ten) from just above `least` to just above `most`."""
    exponents = range(math.floor(math.log10(least)) - 1, math.ceil(math.log10(most)) + 2)
    steps = [float(f"{digit}e{exponent}") for exponent in exponents for digit in (1, 2, 5)]
    above = [step for step in steps if step >= least]
    return above[: next(i for i, step in enumerate(above) if step >= most) + 1]


def cost_plot(table: pd.DataFrame, quantity: str, best: str) -> dict[str, Any] | None:
    """Return the plot of accuracy against a cost, as numbers for the template; None if no cost is known.

    Named are the best checkpoints within each budget of a round size; larger budgets that buy nothing are left out.
    """
    name, axis, unit = _COSTS[quantity]
    cost, score = (table[column].to_numpy(np.float64, na_value=np.nan) for column in (quantity, "score"))
    front = pareto_front(cost, score)
    if not len(front):
        return None
    budgets = round_steps(cost[front[0]], cost[front[-1]])
    bought = np.searchsorted(cost[front], budgets, side="right") - 1
    chosen, first = np.unique(bought, return_index=True)
    named = table.iloc[front[chosen]]

    shown = np.flatnonzero(cost > 0)
    x_low, x_high = np.log10(cost[shown].min()) - 0.05, np.log10(cost[shown].max()) + 0.05
    y_low, y_high = min(score[shown].min(), named["low"].min()), max(score[shown].max(), named["high"].max())

    def x(value: Any) -> Any:
        return np.round(_LEFT + (_RIGHT - _LEFT) * (np.log10(value) - x_low) / (x_high - x_low), 1)

    def y(share: Any) -> Any:
        return np.round(_BOTTOM - (_BOTTOM - _TOP) * (share - y_low) / max(y_high - y_low, 1e-9), 1)

    marks = [
        {
            "letter": chr(ord("A") + k % 26),
            "limit": f"{budgets[first[k]]:g}",
            "row": row,
            "best": row.hub_id == best,
            "x": x(getattr(row, quantity)),
            **{column: y(getattr(row, column)) for column in ("score", "low", "high")},
        }
        for k, row in enumerate(named.itertuples())
    ]
    step = next(step for step in (0.01, 0.02, 0.05, 0.1, 0.2) if (y_high - y_low) / step <= 7)
    ticks = round_steps(10**x_low, 10**x_high)
    marked = front[chosen]
    dots = np.setdiff1d(shown, marked)
    ring = table.index[table["hub_id"] == best]
    at = table.index.get_loc(ring[0]) if len(ring) else None
    return {
        "name": name,
        "axis": axis,
        "unit": unit,
        "count": len(shown),
        "marks": marks,
        "ring": (x(cost[at]), y(score[at])) if at is not None and cost[at] > 0 else None,
        # Lines of no length with round ends: a dot each.
        "dots": "".join(f"M{a} {b}h0" for a, b in zip(x(cost[dots]), y(score[dots]), strict=True)),
        "front": f"M{x(cost[front[0]])} {y(score[front[0]])}"
        + "".join(f"H{a}V{b}" for a, b in zip(x(cost[front[1:]]), y(score[front[1:]]), strict=True)),
        "x_ticks": [(f"{t:g}", x(t)) for t in ticks[:-1] if x_high - x_low < 2 or f"{t:e}"[0] == "1"],
        "y_ticks": [(f"{100 * t:.0f}", y(t)) for t in np.arange(math.ceil(y_low / step), y_high / step) * step],
    }


# ---------------------------------------------------------------------- the sample


def thumbnails(sample: Task) -> list[dict[str, Any]]:
    """Return small copies of the first images of a sample as data URIs, in the order of their classes.

    Every beginning of a sample is balanced.

    They are encoded anew, so that nothing of the files but the pixels is left (no place or time of a photograph, no
    comments), and smaller images are not enlarged.
    """
    found = []
    for labels, image in zip(sample.labels[:MAX_THUMBNAILS], sample.images[:MAX_THUMBNAILS], strict=True):
        classes = np.flatnonzero(labels).tolist() if labels.ndim else [int(labels)]
        found.append((classes, _thumbnail(image, ", ".join(sample.label_names[i] for i in classes) or "no label")))
    return [picture for _, picture in sorted(found, key=lambda pair: pair[0])]


def _thumbnail(image: Image.Image, labels: str) -> dict[str, Any]:
    from PIL import Image as Pillow

    bare = Pillow.frombytes("RGB", image.size, image.tobytes())  # a copy would carry comments and colour profiles
    bare.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX), Pillow.Resampling.LANCZOS)
    is_small = max(bare.size) <= _LOSSLESS_PX
    stream = io.BytesIO()
    bare.save(stream, "PNG" if is_small else "JPEG", optimize=True)
    source = f"data:image/{'png' if is_small else 'jpeg'};base64,{base64.b64encode(stream.getvalue()).decode()}"
    return {"src": source, "labels": labels, "width": bare.width, "height": bare.height, "pixelated": is_small}


def _sample_facts(ranking: Ranking) -> list[tuple[str, str]]:
    task, found = ranking.provenance.get("task", {}), ranking.provenance.get("descriptors", {})
    drawn, total = task.get("n_samples", found.get("n_samples")), task.get("n_rows", found.get("n_rows"))
    own = found.get("probe_map", found.get("linear_probe_accuracy"))
    facts = {
        "dataset": task.get("dataset", ranking.dataset),
        "configuration": task.get("config_name"),
        "revision": task.get("revision"),
        "split": task.get("split"),
        "images": None if drawn is None else f"{drawn:,.0f}" + (f" of {total:,.0f}" if total else "") + " drawn",
        "drawn from": task.get("drawn_from"),
        "classes": _written(found.get("n_classes"), "{:,.0f}"),
        "columns": " and ".join(str(task[k]) for k in ("image_column", "label_column") if task.get(k)),
        "class balance": _written(found.get("class_balance"), "{:.2f} of 1"),
        "median side": _written(found.get("median_side_px"), "{:.0f} px"),
        "grey images": _written(found.get("grey_share"), "{:.0%}"),
        f"the probe's own {ranking.score_name}": _written(own, "{:.1%}"),
        "noise of the embedding": _written(found.get("noise"), "{:.3f}"),
    }
    return [(name, str(value)) for name, value in facts.items() if value]


def _class_rows(ranking: Ranking) -> list[tuple[str, int, int]]:
    """Return each class's name, rows in the dataset and images drawn; nothing where they were not counted."""
    task = ranking.provenance.get("task", {})
    names, rows, drawn = (task.get(key) or () for key in ("label_names", "class_counts", "sample_counts"))
    return list(zip(names, rows, drawn, strict=True)) if len(names) == len(rows) == len(drawn) else []


def _origin(ranking: Ranking) -> list[tuple[str, str]]:
    """Return what the ranking was made of and with, named."""
    made = ranking.provenance
    probe, task, embedding = (made.get(key, {}) for key in ("probe", "task", "embedding"))
    facts = {
        "limits": "; ".join(f"{name} = {_listed(value)}" for name, value in made.get("limits", {}).items()) or "none",
        "metric": made.get("metric"),
        "domain asked for": made.get("domain"),
        "index": _written(made.get("index"), "{:.16}…"),
        "probe": probe.get("name"),
        "probe's weights": _written(probe.get("weights_hash"), "{:.16}…"),
        "seed": embedding.get("seed", task.get("seed")),
        "sample": _written(task.get("fingerprint"), "{:.16}…"),
        "versions": ", ".join(f"{name} {version}" for name, version in made.get("versions", {}).items()),
    }
    return [(name, str(value)) for name, value in facts.items() if value not in (None, "")]


def _listed(value: Any) -> str:
    if isinstance(value, (int, float)):
        return f"{value:,.10g}"
    items = [str(item) for item in value] if isinstance(value, (list, tuple)) else [str(value)]
    return ", ".join(items[:20]) + (f" and {len(items) - 20} more" if len(items) > 20 else "")


def _written(value: Any, form: str) -> str:
    return "" if value is None else form.format(value).replace("%", " %")


def signed(points: float) -> str:
    """Write points of accuracy with their sign; a minus, not a hyphen."""
    text = f"{points:+.1f}"
    return "0.0" if text in ("-0.0", "+0.0") else text.replace("-", "−")


# ---------------------------------------------------------------------- what to run next


def next_steps(ranking: Ranking) -> list[Mapping[str, str]]:
    """Return what to run next: a title, why, and the exact command or code, which never holds a token."""
    task, steps = ranking.provenance.get("task", {}), []
    asked = {name: ranking.request.get(name) for name in ("dataset", "probe", "index")}
    places = {name: _place(value) for name, value in asked.items() if isinstance(value, str)}
    if (again := ranking.command(**places)) is not None:
        steps.append(("Repeat it", "The same call.", again))
    measured = any(c.measured is not None for c in ranking)
    more = ranking.command(refine=3, **places)
    if task.get("label_kind") != "multi_label" and not measured and more is not None:
        why = "It downloads their weights, and ranks all again with what was measured."
        steps.append(("Measure three of the best on your sample", why, more))
    classes = len(task.get("label_names") or ()) or "NUMBER_OF_CLASSES"
    load = f"model, transform = ranking.best.load(num_classes={classes})  # {ranking.best.hub_id}"
    steps.append(("Load the first", "With a fresh head and its own preprocessing, ready to fine-tune.", load))
    return [{"title": title, "why": why, "code": code} for title, why, code in steps]


def _place(text: str) -> str:
    """Return what names a dataset or an index, of a path that says where it lies on this machine only its end."""
    path = Path(text)
    return path.name if path.is_absolute() or ".." in path.parts else text

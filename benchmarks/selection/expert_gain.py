"""By how much an expert beats its base on another task: the model of `select --experts`, fitted and judged.

    python -m benchmarks.selection.expert_gain [--shared ../shared]

Reads the measured experts of experts.py (results/experts.csv), trains nothing. The gain of an expert over the
checkpoint that it was fine-tuned from, in logits of the linear probe's accuracy, is a line in how much nearer the task
is to the expert's training tasks than to the base's (``Gain`` of the package, whose constants are fitted here to all
pairs of an expert and a task without common images). No gain is claimed for a task that is less similar than 95 % of
the pairs of reference tasks are. Each task is judged by a line that was fitted without all tasks of its kind (natural,
medical, glyphs, ...). An expert is taken if its gain is expected to be positive, else the base.
Candidates are ("other tasks") experts trained on neither the task nor a near duplicate of it, and ("near duplicates
too") on anything but images of the task. Also counted: outcomes on cards whose base was itself fine-tuned elsewhere.
Raw output: results/expert_gain.json.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import RESULTS, ROOT, SHARED, parser, write
from benchmarks.selection.experts import EXPERTS, IMAGENET
from benchmarks.selection.hub_cards import stated_outcomes
from hf_task2vec import ZooIndex
from hf_task2vec.embedding.distance import pairwise
from hf_task2vec.metric.evaluation import near_duplicates
from hf_task2vec.metric.experts import EXPERT_GAIN, Gain
from hf_task2vec.metric.observations import logit
from hf_task2vec.metric.task_space import KINDS_OF_DOMAINS
from hf_task2vec.selection.experts import Experts
from hf_task2vec.zoo.schema import TaskRow

BASE_SAW = "imagenet1k"


def pairs(index: ZooIndex) -> list[dict[str, Any]]:
    """Every expert on every task: similarities, the measured gain, and whether it has seen the task."""
    table, groups, tasks = index.embeddings, near_duplicates(index), index.by_name(TaskRow)
    similarity = 1.0 - pairwise(table)
    at = {name: i for i, name in enumerate(table.names)}
    kinds = {domain: kind for kind, domains in KINDS_OF_DOMAINS.items() for domain in domains}
    saw = [name for name in table.names if BASE_SAW in tasks[name].images_from]
    score, trials = {}, {}
    with (RESULTS / "experts.csv").open(newline="", encoding="utf-8") as handle:
        for row in csv.DictReader(handle):
            score[row["task"], row["expert"]], trials[row["task"]] = float(row["linear"]), int(row["n"])

    def smoothed(task: str, name: str) -> float:
        return (score[task, name] * trials[task] + 0.5) / (trials[task] + 1.0)

    return [
        {
            "task": task,
            "expert": name,
            "kind": kinds[tasks[task].domain],
            "nearness": float(max(similarity[at[task], at[other]] for other in own)),
            "of_base": float(max(similarity[at[task], at[other]] for other in saw if other != task)),
            "gain": float(logit(smoothed(task, name)) - logit(smoothed(task, IMAGENET))),
            "points": 100.0 * (score[task, name] - score[task, IMAGENET]),
            "same_images": any(set(tasks[task].images_from) & set(tasks[other].images_from) for other in own),
            "near_duplicate": any(groups[task] == groups[other] for other in own),
        }
        for task in trials
        for name, own in EXPERTS.items()
    ]


def column(rows: list[dict[str, Any]], name: str) -> Any:
    """One of the columns."""
    return np.array([row[name] for row in rows])


def unusual(index: ZooIndex) -> float:
    """The similarity that 95 % of the pairs of reference tasks stay below, near duplicates left out."""
    table, groups = index.embeddings, near_duplicates(index)
    group = np.array([groups[name] for name in table.names])
    return float(np.quantile((1.0 - pairwise(table))[group[:, None] != group], 0.95))


def fitted(rows: list[dict[str, Any]], near: float, *, with_base: bool = True) -> Gain:
    """The line for these pairs; without the base's training set it is one in the nearness alone."""
    of_base = column(rows, "of_base") if with_base else np.zeros(len(rows))
    return Gain.fit(column(rows, "nearness"), of_base, column(rows, "gain"), near)


def predicted(rows: list[dict[str, Any]], near: float, *, with_base: bool = True) -> Any:
    """Expected gains and their standard deviation, each by a line fitted without tasks of the pair's kind."""
    found = np.zeros((2, len(rows)))
    kinds = column(rows, "kind")
    for kind in np.unique(kinds):
        line = fitted([row for row in rows if row["kind"] != kind], near, with_base=with_base)
        for i in np.flatnonzero(kinds == kind):
            found[:, i] = line.expected(rows[i]["nearness"], rows[i]["of_base"] * with_base), line.deviation
    return found


def mean_of(values: Any) -> dict[str, float]:
    """A mean over tasks and the ends of its 95 % interval, by resampling tasks."""
    draws = np.random.default_rng(0).choice(values, (2000, len(values))).mean(axis=1)
    low, high = np.quantile(draws, [0.025, 0.975])
    return {"points": float(np.mean(values)), "low": float(low), "high": float(high)}


def judged(rows: list[dict[str, Any]], expected: Any, deviation: Any, alone: Any) -> dict[str, Any]:
    """What the choices come to, in points over always taking the base."""
    tasks, points, gain = column(rows, "task"), column(rows, "points"), column(rows, "gain")
    chosen: dict[str, list[float]] = {"model": [], "nearness alone": [], "always the nearest": [], "best": []}
    for task in np.unique(tasks):
        at = np.flatnonzero(tasks == task)
        for name, value in (("model", expected), ("nearness alone", alone)):
            i = at[np.argmax(value[at])]
            chosen[name].append(points[i] if value[i] > 0.0 else 0.0)
        chosen["always the nearest"].append(points[at[np.argmax(column(rows, "nearness")[at])]])
        chosen["best"].append(max(points[at].max(), 0.0))
    told = expected > 0.0
    first = {task: max(np.flatnonzero(tasks == task), key=expected.__getitem__) for task in np.unique(tasks)}
    taken = np.array([i for i in first.values() if told[i]])
    error = gain - expected
    return {
        "tasks": len(first),
        "pairs": len(rows),
        "over_base": {name: mean_of(np.array(values)) for name, values in chosen.items()},
        "experts_taken": len(taken),
        "taken_that_beat": int((points[taken] > 0.0).sum()),
        "told_to_beat": {
            "pairs": int(told.sum()),
            "mean_points": float(points[told].mean()),
            "that_beat": int((points[told] > 0.0).sum()),
            "expected_gain": float(expected[told].mean()),
            "mean_gain": float(gain[told].mean()),
        },
        "told_not_to": {"pairs": int((~told).sum()), "mean_points": float(points[~told].mean())},
        "explained": float(1.0 - (error**2).sum() / ((gain - gain.mean()) ** 2).sum()),
        "explained_by_nearness_alone": float(1.0 - ((gain - alone) ** 2).sum() / ((gain - gain.mean()) ** 2).sum()),
        "within_80_interval": float(np.mean(np.abs(error) <= 1.2816 * deviation)),
    }


def on_cards(index: ZooIndex, shared: Path) -> dict[str, Any]:
    """Outcomes on cards that were fine-tuned from somebody's fine-tuned checkpoint, and where two of these meet."""
    found = {
        (one.base, one.dataset)
        for one in stated_outcomes(shared)[0]
        if one.base not in index.names and "/" in one.base and one.base != one.repository
        if not one.base.startswith(("timm/", "/"))
    }
    meet = Counter(dataset for _, dataset in found)
    return {
        "outcomes": sorted(f"{base} on {dataset}" for base, dataset in found),
        "datasets_where_two_meet": sorted(dataset for dataset, count in meet.items() if count > 1),
    }


def main() -> None:
    """Fit, judge, count."""
    arguments = parser(__doc__)
    arguments.add_argument("--shared", type=Path, default=SHARED)
    args = arguments.parse_args()
    index = ZooIndex.load(ROOT / "zoo_index")
    every = pairs(index)
    rows = [row for row in every if not row["same_images"]]
    near = unusual(index)
    (expected, deviation), (alone, _) = predicted(rows, near), predicted(rows, near, with_base=False)
    other = np.flatnonzero(~column(rows, "near_duplicate"))
    document = {
        "gain": asdict(fitted(rows, near)),
        "other tasks": judged([rows[i] for i in other], expected[other], deviation[other], alone[other]),
        "near duplicates too": judged(rows, expected, deviation, alone),
        "seen_images": mean_of(column([row for row in every if row["same_images"]], "points")),
        "experts_in_the_index": len(Experts.of(index, (), None).by_id),
        "cards": on_cards(index, args.shared),
    }
    write("expert_gain", document)
    print(json.dumps(document, indent=1))
    print("in the package:", EXPERT_GAIN)


if __name__ == "__main__":
    main()

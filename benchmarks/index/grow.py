"""Retrain a grown index, and say whether its rankings are as good as before.

    python -m benchmarks.index.grow OLD NEW

Learns the parameters of the index NEW from its own scores, beginning with those of OLD, and writes them into NEW. Then
both rank what they know in common: checkpoints and families that nobody has measured (Kendall's tau by group of scores)
and tasks left out (accuracy of the pick). Exit code 1 if a mean has fallen by more than `TOLERANCE`: training again on
the same scores moves it by as much. What the harvest workflow runs (docs/growing.md).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from benchmarks.common import parser
from hf_task2vec import RankingMetric, ZooIndex
from hf_task2vec.metric.evaluation import (
    accuracy_of_pick,
    cold_start,
    evaluate_metric,
    inverse_covariance,
    leave_one_out_cases,
)
from hf_task2vec.metric.training import train

#: Kendall's tau, or share of images, that counts as no change.
TOLERANCE = 0.005

Figures = Mapping[str, Mapping[str, float]]


def figures(index: ZooIndex) -> Figures:
    """Return each question's figures, by what they are of."""
    metric = RankingMetric.from_index(index)
    rows = cold_start(metric, index)
    rows = rows[(rows["method"] == "trained") & (rows["limit"] == np.inf)]
    found = {
        str(question): {f"{row.source} {row.task}": float(row.tau) for row in part.itertuples()}
        for question, part in rows.groupby("question")
    }
    cases = leave_one_out_cases(index, metric.data)
    predicted = evaluate_metric(metric, cases, inverse=inverse_covariance(metric))
    picks = [accuracy_of_pick(p, case.obtained) for p, case in zip(predicted, cases, strict=True)]
    return found | {"new task": dict(zip((case.name for case in cases), picks, strict=True))}


def compared(before: Figures, after: Figures) -> dict[str, dict[str, float]]:
    """Return the means of each question over what both have figures of."""
    found = {}
    for question, old in before.items():
        new = after.get(question, {})
        if not (shared := sorted(old.keys() & new.keys())):
            continue
        means = [float(np.mean([side[name] for name in shared])) for side in (old, new)]
        found[question] = {"before": means[0], "after": means[1], "n": len(shared)}
    return found


def is_worse(comparison: Mapping[str, Mapping[str, float]]) -> bool:
    """Say whether any mean has fallen by more than the tolerance."""
    return any(question["after"] < question["before"] - TOLERANCE for question in comparison.values())


def main() -> None:
    """Command line."""
    arguments = parser(__doc__)
    arguments.add_argument("old", type=Path)
    arguments.add_argument("new", type=Path)
    arguments.add_argument("--steps", type=int, default=100)
    args = arguments.parse_args()
    old, new = ZooIndex.load(args.old), ZooIndex.load(args.new)
    train(new, RankingMetric.from_index(old).parameters, steps=args.steps)[0].save(args.new)
    comparison = compared(figures(old), figures(ZooIndex.load(args.new)))
    worse = is_worse(comparison)
    print(json.dumps({**comparison, "worse": worse}, indent=2))
    sys.exit(int(worse))


if __name__ == "__main__":
    main()

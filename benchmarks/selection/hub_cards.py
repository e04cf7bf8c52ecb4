"""What outcomes stated on cards of the Hub add: new checkpoints and families, with and without them.

    python -m benchmarks.selection.hub_cards [--shared ../shared] [--variant NAME ...] [--write]

The rows of ``shared/cards/outcomes.csv`` go into a copy of the index by `add_outcomes`, as those of `index harvest` do;
then the parameters are learned anew and (a) and (b) of leave_one_out.py are computed on all other sources, where
nothing but the added rows differs. Raw output: results/hub_cards.json. ``--write`` puts the rows into the index itself.
"""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import ROOT, SHARED, parser, records, write
from benchmarks.index.matrix import with_matrix
from hf_task2vec import RankingMetric, ZooIndex
from hf_task2vec.evidence.cards import CardError, Outcome
from hf_task2vec.evidence.outcomes import Added, add_outcomes
from hf_task2vec.metric.evaluation import cold_start
from hf_task2vec.metric.ranking_metric import evidence
from hf_task2vec.metric.training import fit_parameters
from hf_task2vec.zoo.schema import HUB_CARDS

#: Candidates that a group of other sources needs, as in leave_one_out.py.
LEAST = 8
METRICS = {"accuracy": "top1", "f1": "f1", "f1_macro": "macro_f1"}


def stated_outcomes(shared: Path) -> tuple[list[Outcome], Counter[str]]:
    """Return the shared rows as a reader of the cards would state them, and why others are none."""
    found, skipped = [], Counter[str]()
    with (shared / "cards" / "outcomes.csv").open(encoding="utf-8", newline="") as handle:
        for row in csv.DictReader(handle):
            try:
                found.append(_outcome(row))
            except CardError as error:
                skipped[str(error)] += 1
    return found, skipped


def _outcome(row: dict[str, str]) -> Outcome:
    if row["metric"] not in METRICS:
        raise CardError("no plain fine-tuning")
    if not row["real_dataset"]:
        raise CardError("no dataset")
    by_card = row["real_from"] == "card"
    return Outcome(
        repository=row["repo_id"],
        base=row["base_model"],
        dataset=row["real_dataset"],
        value=float(row["value"]),
        metric=METRICS[row["metric"]],
        base_from=row["base_from"],  # type: ignore[arg-type]
        dataset_from="card" if by_card else "name",
        split=row["split"] or None,
        method="adapter" if re.search(r"lora|selmamalak", row["repo_id"], re.IGNORECASE) else "full",
        epochs=float(row["epochs"]) if row["epochs"] else None,
        learning_rate=float(row["learning_rate"]) if row["learning_rate"] else None,
        address=row["url"],
    )


def with_cards(index: ZooIndex, shared: Path) -> tuple[Added, Counter[str]]:
    """Return the index with the shared rows, and what was left out."""
    outcomes, skipped = stated_outcomes(shared)
    added = add_outcomes(index, outcomes)
    return added, skipped + added.skipped


def judged(index: ZooIndex, steps: int) -> dict[str, Any]:
    """Learn the parameters, and rank checkpoints and families that nobody has measured."""
    parameters, report = fit_parameters(evidence(with_matrix(index))[1], steps=steps)
    known = set(index.checkpoints["hub_id"])
    loadings = {name: values for name, values in parameters.loadings.items() if name in known}
    metric = RankingMetric(replace(parameters, loadings=loadings), *evidence(index))
    rows = cold_start(metric, index, least=3)
    own = rows["source"].str.startswith(HUB_CARDS)
    few = rows[own & np.isinf(rows["limit"])]
    others = rows[~own & (rows["method"] == "trained") & (rows["n"] >= LEAST)]
    others = others.assign(limit=others["limit"].replace(np.inf, np.nan))  # JSON knows no infinity
    by = ["limit", "question"]
    return {
        "training": report,
        "noise": {name: value for name, value in parameters.noises.items() if name.startswith(HUB_CARDS)},
        "noise_of_others": float(np.median([v for n, v in parameters.noises.items() if not n.startswith(HUB_CARDS)])),
        "others": records(others.groupby(by, dropna=False)["tau"].agg(["mean", "size"]).reset_index()),
        "others_by_protocol": records(
            others[others["limit"].isna()].groupby(["protocol", "question"])["tau"].agg(["mean", "size"]).reset_index()
        ),
        "cards": records(few.groupby(["question", "method"])["tau"].agg(["mean", "size"]).reset_index()),
    }


def variants(index: ZooIndex, shared: Path) -> Iterator[tuple[str, ZooIndex]]:
    """The index without and with the cards."""
    yield "without", index.without_scores(HUB_CARDS)
    yield "with", with_cards(index, shared)[0].index


def main() -> None:
    """Command line."""
    arguments = parser(__doc__)
    arguments.add_argument("--shared", type=Path, default=SHARED)
    arguments.add_argument("--index", type=Path, default=ROOT / "zoo_index")
    arguments.add_argument("--steps", type=int, default=100)
    arguments.add_argument("--write", action="store_true", help="put the rows into the index, and measure nothing")
    args = arguments.parse_args()
    index = ZooIndex.load(args.index)
    if args.write:
        added, skipped = with_cards(index, args.shared)
        added.index.save(args.index)
        print(json.dumps({"rows": added.rows, "tasks": added.tasks, "skipped": skipped}, indent=2))
        return
    added, skipped = with_cards(index, args.shared)
    found: dict[str, Any] = {"skipped": dict(skipped.most_common())}
    found |= {name: judged(one, args.steps) for name, one in variants(index, args.shared)}
    write("hub_cards", found)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()

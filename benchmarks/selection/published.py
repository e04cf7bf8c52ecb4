"""The trained metric on published matrices: a part of leave_one_out.py."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.common import records
from benchmarks.index.train_metric import train
from benchmarks.selection.baselines import ALL_METRICS, TARGET_BLIND
from hf_task2vec import RankingMetric, ZooIndex
from hf_task2vec.errors import EvaluationError
from hf_task2vec.evidence.rows import SOURCE
from hf_task2vec.metric.evaluation import Case, evaluate_metric, judge, leave_one_out_cases, summarise, without
from hf_task2vec.metric.ranking_metric import evidence


def run_published(index: ZooIndex, iterations: int) -> dict[str, Any]:
    """The metric in the protocol of each published matrix, restricted to embedded tasks, against the static rule.

    As on the measured matrix, a task and its near duplicates are left out of all sources, and the parameters are
    trained anew on the rest. ``unseen_source`` is what the scores of all other laboratories say of a source's matrix,
    as if it were a user's own.
    """
    space, data = evidence(index)
    start = RankingMetric.from_index(index).parameters
    cases: dict[str, list[Case]] = {}
    found: dict[str, Any] = {}
    for source in (name for name in data.sources if not name.startswith(SOURCE)):
        try:
            cases[source] = leave_one_out_cases(index, data, source, least=4)
        except EvaluationError as error:  # said in the raw output
            found[source] = {"skipped": str(error)}
    folds: dict[tuple[str, ...], RankingMetric] = {}
    for held in tqdm(sorted({case.held_out for part in cases.values() for case in part}), desc="folds", unit="fold"):
        rest = without(RankingMetric(start, space, data), held)
        parameters, _ = train(rest.data, iterations, start, first_iterations=3 * iterations)
        folds[held] = RankingMetric(parameters, space, rest.data)
    laboratories = np.array([name.partition("/")[0] for name in data.sources])
    for source, part in cases.items():
        of_source = [replace(folds[case.held_out], source=source) for case in part]
        rest = data.rows(laboratories[data.source] != source.partition("/")[0])
        unseen = {"trained": evaluate_metric(RankingMetric(start, space, rest), part)}
        predicted = {
            "trained": [m.predict_features(c.task, c.candidates).mean for m, c in zip(of_source, part, strict=True)],
            "trained_for_linear_probes": [
                folds[case.held_out].predict_features(case.task, case.candidates).mean for case in part
            ],
        }
        for name in TARGET_BLIND:
            predicted[name] = evaluate_metric(ALL_METRICS[name](space, data), part)
            unseen[name] = evaluate_metric(ALL_METRICS[name](space, rest), part)
        rows = judge(part, predicted)
        found[source] = {
            "tasks": [case.name for case in part],
            "n_checkpoints": len({name for case in part for name in case.candidates.ids}),
            "summary": records(summarise(rows, TARGET_BLIND)),
            "rows": records(rows),
            "unseen_source": records(summarise(judge(part, unseen), TARGET_BLIND)),
        }
    return found

"""The trained metric on published matrices: a part of selection.py."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.index.train_metric import train
from benchmarks.selection.baselines import ALL_METRICS, TARGET_BLIND
from hf_task2vec.errors import EvaluationError
from hf_task2vec.evidence.rows import SOURCE
from hf_task2vec.metric.covariance import MetricParameters
from hf_task2vec.metric.evaluation import Case, evaluate_metric, judge, leave_one_out_cases, summarise, without
from hf_task2vec.metric.observations import Observations
from hf_task2vec.metric.ranking_metric import RankingMetric, evidence
from hf_task2vec.metric.task_space import TaskSpace
from hf_task2vec.zoo.index import ZooIndex


def run_published(index: ZooIndex, iterations: int) -> dict[str, Any]:
    """The metric in the protocol of each published matrix, restricted to embedded tasks, against the static rule.

    As on the measured matrix, a task and its near duplicates are left out of all sources, and the parameters are
    trained anew on the rest.
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
    left: dict[tuple[str, ...], RankingMetric] = {}
    for held in tqdm(sorted({case.held_out for part in cases.values() for case in part}), desc="folds", unit="fold"):
        rest = without(RankingMetric(start, space, data), held)
        parameters, _ = train(rest.data, iterations, start, first_iterations=3 * iterations)
        left[held] = RankingMetric(parameters, space, rest.data)
    for source, part in cases.items():
        predicted = {
            "trained": [
                replace(left[case.held_out], source=source).predict_features(case.task, case.candidates).mean
                for case in part
            ],
            "trained_for_linear_probes": [
                left[case.held_out].predict_features(case.task, case.candidates).mean for case in part
            ],
        }
        for name in TARGET_BLIND:
            predicted[name] = evaluate_metric(ALL_METRICS[name](space, data), part)
        rows = judge(part, predicted)
        unseen = unseen_source(space, data, source, part, start)
        found[source] = {
            "tasks": [case.name for case in part],
            "n_checkpoints": len({name for case in part for name in case.candidates.ids}),
            "summary": records(summarise(rows, TARGET_BLIND)),
            "rows": records(rows),
            "unseen_source": records(summarise(judge(part, unseen), TARGET_BLIND)),
        }
    return found


def unseen_source(
    space: TaskSpace, data: Observations, source: str, cases: list[Case], parameters: MetricParameters
) -> dict[str, list[np.ndarray]]:
    """What the scores of all other laboratories say of a source's matrix, as if it were a user's own."""
    laboratory = source.partition("/")[0]
    others = np.array([name.partition("/")[0] != laboratory for name in data.sources])[data.source]
    rest = data.rows(others)
    found = {"trained": evaluate_metric(RankingMetric(parameters, space, rest), cases)}
    for name in TARGET_BLIND:
        found[name] = evaluate_metric(ALL_METRICS[name](space, rest), cases)
    return found


def records(frame: Any) -> list[dict[str, Any]]:
    """Rows of a table, ready for JSON."""
    rows = frame.to_dict("records")
    return [
        {
            k: (None if isinstance(v, float) and not np.isfinite(v) else round(v, 5) if isinstance(v, float) else v)
            for k, v in row.items()
        }
        for row in rows
    ]

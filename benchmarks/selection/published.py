"""The trained metric on published matrices: new tasks, new checkpoints and families, domains. Of leave_one_out.py."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import kendalltau

from benchmarks.common import records
from benchmarks.selection.baselines import ALL_METRICS, TARGET_BLIND
from hf_task2vec import RankingMetric, ZooIndex
from hf_task2vec.errors import EvaluationError
from hf_task2vec.evidence.rows import SOURCE
from hf_task2vec.metric.evaluation import (
    Case,
    cold_start,
    evaluate_metric,
    forget,
    inverse_covariance,
    judge,
    leave_one_out_cases,
    near_duplicates,
    predict_without,
    regret_at_k,
    summarise,
    without,
)
from hf_task2vec.metric.observations import PROTOCOLS, Observations, additive_fit, is_tuned
from hf_task2vec.metric.task_space import KINDS

#: Kinds of tasks that there are encoders for.
DOMAINS = ("histology", "satellite", "nature", "radiology", "medical")


def run_published(index: ZooIndex, metric: RankingMetric, inverse: np.ndarray) -> dict[str, Any]:
    """The metric in the protocol of each published matrix, restricted to embedded tasks, against task-blind rules.

    As on the measured matrix, a task and its near duplicates are left out of all sources. ``unseen_source`` is what
    the scores of all other laboratories say of a source's matrix, as if it were a user's own.
    """
    space, data = metric.space, metric.data
    found: dict[str, Any] = {}
    laboratories = np.array([name.partition("/")[0] for name in data.sources])
    for source in (name for name in data.sources if not name.startswith(SOURCE)):
        try:
            cases: list[Case] = leave_one_out_cases(index, data, source, least=4)
        except EvaluationError as error:  # said in the raw output
            found[source] = {"skipped": str(error)}
            continue
        protocol = PROTOCOLS[0] if is_tuned(source) else PROTOCOLS[1]
        own = laboratories[data.source] == source.partition("/")[0]
        rest = RankingMetric(metric.parameters, space, data.rows(~own), forget(metric, inverse, own)[~own])
        predicted = {"trained": evaluate_metric(metric, cases, protocol=protocol, inverse=inverse)}
        unseen = {
            "trained": [rest.predict_features(c.task, c.candidates, protocol=protocol).mean for c in cases],
        }
        for name in TARGET_BLIND:
            predicted[name] = evaluate_metric(ALL_METRICS[name](space, data), cases)
            unseen[name] = evaluate_metric(ALL_METRICS[name](space, rest.data), cases)
        rows = judge(cases, predicted)
        found[source] = {
            "protocol": protocol,
            "tasks": [case.name for case in cases],
            "n_checkpoints": len({name for case in cases for name in case.candidates.ids}),
            "summary": records(summarise(rows, TARGET_BLIND)),
            "rows": records(rows),
            "unseen_source": records(summarise(judge(cases, unseen), TARGET_BLIND)),
        }
    return found


def run_new_tasks(index: ZooIndex) -> list[dict[str, Any]]:
    """Every published task forgotten in turn, in all sources: known checkpoints, most tasks without an embedding.

    By protocol: Kendall's tau and regret (points) of the first pick, in groups of four checkpoints and more. ``static``
    is the mean standing on the other tasks, ``static in source`` on those of the same source.
    """
    shipped = RankingMetric.from_index(index)
    metric = replace(shipped, parameters=replace(shipped.parameters, loadings={}), solved=None)
    data, blocks = metric.data, task_blocks(index, metric.data)
    predicted = {"trained": predict_without(metric, inverse_covariance(metric), blocks)}
    predicted |= {name: np.zeros(len(data.y)) for name in ("static", "static in source")}
    for block in np.unique(blocks):
        rest = data.rows(blocks != block)
        held = np.flatnonzero(blocks == block)
        predicted["static"][held] = additive_fit(rest)[0][data.checkpoint[held]]
        for source in np.unique(data.source[held]):
            rows, others = held[data.source[held] == source], rest.rows(rest.source == source)
            if len(others.y):
                predicted["static in source"][rows] = additive_fit(others)[0][data.checkpoint[rows]]
    found = []
    for group in range(len(data.first)):
        rows = np.flatnonzero(data.group == group)
        if len(rows) < 4:
            continue
        protocol, score = PROTOCOLS[0] if data.groups.tuned[group] else PROTOCOLS[1], data.score[rows]
        for name, values in predicted.items():
            tau = kendalltau(values[rows].round(9), data.y[rows]).statistic
            row = {"protocol": protocol, "method": name, "tau": 0.0 if np.isnan(tau) else float(tau)}
            found.append(row | {"regret": 100.0 * regret_at_k(values[rows], score)})
    return records(
        pd.DataFrame(found)
        .groupby(["protocol", "method"])
        .agg({"tau": ["mean", "size"], "regret": "mean"})
        .set_axis(["tau", "groups", "regret"], axis=1)
        .reset_index()
    )


def task_blocks(index: ZooIndex, data: Observations) -> np.ndarray:
    """Which scores are of one task, or of near duplicates, shape (N,)."""
    groups = near_duplicates(index)
    names = np.array([groups.get(name, name) for name in data.tasks.names])
    return np.asarray(np.unique(names, return_inverse=True)[1][data.task])


def run_domains(index: ZooIndex) -> list[dict[str, Any]]:
    """Tasks of a domain forgotten in turn: is the first pick as good as the best general and the best domain encoder?

    Over groups with a checkpoint of the domain and a general one among four or more; what the domain of the task is, is
    known, as few of these tasks have an embedding. Regrets in points.
    """
    metric = RankingMetric.from_index(index)
    data = metric.data
    predicted = predict_without(metric, inverse_covariance(metric), task_blocks(index, data))
    encoder = data.checkpoints.home[data.checkpoint]
    found = []
    for kind, rows_of_kind in ((kind, data.groups.kinds[data.group][:, KINDS.index(kind)] > 0.5) for kind in DOMAINS):
        for group in np.unique(data.group[rows_of_kind]):
            rows = np.flatnonzero(data.group == group)
            at_home, general = encoder[rows, KINDS.index(kind)] > 0, ~encoder[rows].any(axis=1)
            if len(rows) < 4 or not at_home.any() or not general.any():
                continue
            score, standing = 100.0 * data.score[rows], predicted[rows]
            picks = {"ours": standing.argmax(), "ours_general": np.where(general, standing, -np.inf).argmax()}
            found.append(
                {
                    "kind": kind,
                    "source": data.sources[data.source[rows[0]]],
                    "task": data.tasks.names[data.task[rows[0]]],
                    "n": len(rows),
                    "pick": data.checkpoints.ids[data.checkpoint[rows[picks["ours"]]]],
                    "regret": round(float(score.max() - score[picks["ours"]]), 2),
                    "against_best_general": round(float(score[picks["ours"]] - score[general].max()), 2),
                    "against_best_encoder": round(float(score[picks["ours"]] - score[at_home].max()), 2),
                    "encoder_picked": bool(at_home[picks["ours"]]),
                    "encoder_is_best": bool(at_home[score.argmax()]),
                    "regret_without_encoders": round(float(score.max() - score[picks["ours_general"]]), 2),
                }
            )
    return found


def run_kinds(index: ZooIndex) -> dict[str, Any]:
    """How well the embeddings of other tasks tell what kind a task is, near duplicates left out with it."""
    metric, groups = RankingMetric.from_index(index), near_duplicates(index)
    tasks, found = metric.data.tasks, []
    for t in np.flatnonzero(tasks.embedded & tasks.kinds.any(axis=1)):
        group = groups.get(tasks.names[t], tasks.names[t])
        others = without(metric, [name for name in tasks.names if groups.get(name, name) == group])
        told = others.kinds_of(replace(tasks.take(np.array([t])), kinds=np.zeros((1, len(KINDS)))))
        own = int(tasks.kinds[t].argmax())
        found.append({"task": tasks.names[t], "kind": KINDS[own], "told": KINDS[told.argmax()], "p": float(told[own])})
    frame = pd.DataFrame(found)
    frame["loss"] = -np.log(np.maximum(frame["p"], 1e-6))
    return {
        "right": int((frame["kind"] == frame["told"]).sum()),
        "commonest": int(frame["kind"].value_counts().max()),
        "loss_by_kind": float(frame.groupby("kind")["loss"].mean().mean()),
        "rows": records(frame),
    }


def run_cold_start(index: ZooIndex) -> dict[str, Any]:
    """How checkpoints are ranked that nobody has measured, beside rules of thumb: means of Kendall's tau."""
    rows = cold_start(RankingMetric.from_index(index), index)
    rows["limit"] = rows["limit"].replace(np.inf, np.nan)  # JSON knows no infinity

    def means(*by: str) -> list[dict[str, Any]]:
        found = rows.groupby([*by, "limit", "question", "method"], dropna=False)["tau"].agg(["mean", "size"])
        return records(found.reset_index())

    by_source = rows[rows["limit"].isna()].groupby(["source", "question", "method"])["tau"].agg(["mean", "size"])
    return {
        "all": means(),
        "by_protocol": means("protocol"),
        "by_source": records(by_source.reset_index()),
        "n_groups": int(rows[rows["limit"].isna()][["source", "task"]].drop_duplicates().shape[0]),
    }

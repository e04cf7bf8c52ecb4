"""From a prediction to a recommendation: accuracies, intervals, facts, warnings and a summary in plain words."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_task2vec.cautions import cautions, counted, leakage
from hf_task2vec.embedding import DESCRIPTORS
from hf_task2vec.errors import EmbeddingError
from hf_task2vec.explanation import Explainer
from hf_task2vec.labels import score_name
from hf_task2vec.limits import Constraints
from hf_task2vec.metric import RankingMetric
from hf_task2vec.observations import logit
from hf_task2vec.prediction import Prediction
from hf_task2vec.ranking import HALF_WIDTH_80, Candidate, Ranking, TaskGain, percent
from hf_task2vec.transferability import Score

if TYPE_CHECKING:
    import pandas as pd

    from hf_task2vec.embedding import TaskEmbedding
    from hf_task2vec.metric import Metric
    from hf_task2vec.zoo import ZooIndex


def check_descriptors(embedding: TaskEmbedding) -> None:
    """Raise EmbeddingError if an embedding lacks a descriptor that a ranking needs."""
    if missing := [name for name in DESCRIPTORS if name not in embedding.descriptors]:
        raise EmbeddingError(
            f"the embedding of {embedding.name!r} lacks the descriptors {', '.join(missing)}; make it with embed_task"
        )


def probe_score(descriptors: Mapping[str, float]) -> Score:
    """Return what the probe itself reaches on an embedded task: its mAP where that is known, else its accuracy."""
    n = max(int(descriptors["n_samples"]), 1)
    if "probe_map" in descriptors:
        return Score(descriptors["probe_map"], descriptors["probe_map_std_error"], n)
    return Score.of_share(descriptors["linear_probe_accuracy"], n)


def rank(
    embedding: TaskEmbedding,
    zoo: ZooIndex,
    checkpoints: pd.DataFrame,
    limits: Constraints,
    *,
    top_k: int,
    metric: Metric | None = None,
    measured: Mapping[str, Score] | None = None,
) -> Ranking:
    """Rank rows of ``checkpoints.csv`` for an embedded task; see :func:`~hf_task2vec.selection.select_backbone`.

    `metric` is the trained one of the index if none is given; `measured` holds accuracies of candidates on the sample
    itself.
    """
    check_descriptors(embedding)
    metric = metric if metric is not None else RankingMetric.from_index(zoo)
    measured = dict(measured or {})
    frame, known = _with_probe(embedding, zoo, checkpoints, measured)
    prediction = metric.predict(embedding, frame, known)
    scores = _accuracies(prediction, embedding)
    ranked = set(checkpoints["hub_id"])
    shown = np.flatnonzero([hub_id in ranked for hub_id in frame["hub_id"]])
    order = shown[np.lexsort((frame["hub_id"].to_numpy()[shown], -prediction.mean[shown]))]
    counts = metric.data.scores_by_checkpoint()
    top = order[:top_k]
    spread = _intervals(prediction, scores, top)
    rows = frame.iloc[top].to_dict("records")
    chosen = tuple(
        _candidate(
            position,
            row,
            {name: float(values[position - 1]) for name, values in spread.items()},
            counts.get(row["hub_id"], 0),
            measured.get(row["hub_id"]),
        )
        for position, row in enumerate(rows, start=1)
    )
    gain = _task_gain(prediction, scores["score"], order)
    return Ranking(
        candidates=chosen,
        dataset=embedding.name,
        summary=_summary(chosen[0], scores, gain, order, frame, score_name(embedding.task.get("label_kind"))),
        warnings=(*cautions(embedding, prediction.task_weight), *leakage(embedding, metric, zoo, rows)),
        provenance={
            "task": embedding.task,
            "descriptors": embedding.descriptors,
            "probe": embedding.probe,
            "embedding": embedding.config,
            "index": zoo.fingerprint,
            "metric": metric.name,
            "score": score_name(embedding.task.get("label_kind")),
            "limits": {k: v for k, v in vars(limits).items() if v is not None},
            "versions": embedding.versions,
        },
        n_ranked=len(order),
        task_gain=gain,
        _explainer=Explainer(
            metric,
            embedding,
            checkpoints,
            prediction.ids,
            scores,
            partial(_intervals_again, metric, embedding, frame, known, scores),
            dict(zip(zoo.tasks["task"], zoo.tasks["title"], strict=True)),
        ),
    )


def predict(
    embedding: TaskEmbedding,
    zoo: ZooIndex,
    checkpoints: pd.DataFrame,
    metric: Metric,
    measured: Mapping[str, Score],
) -> Prediction:
    """Predict the standing of candidates, and of the probe if the index knows it, on an embedded task."""
    return metric.predict(embedding, *_with_probe(embedding, zoo, checkpoints, measured))


def _with_probe(
    embedding: TaskEmbedding, zoo: ZooIndex, checkpoints: pd.DataFrame, measured: Mapping[str, Score]
) -> tuple[pd.DataFrame, dict[str, Score]]:
    """Add the probe to the candidates if the index knows it: its accuracy on this very task is known already."""
    import pandas as pd

    known = dict(measured)
    name, facts = str(embedding.probe["name"]), embedding.descriptors
    row = zoo.checkpoints[zoo.checkpoints["hub_id"] == name]
    if len(row):
        known.setdefault(name, probe_score(facts))
        if name not in set(checkpoints["hub_id"]):
            checkpoints = pd.concat([checkpoints, row], ignore_index=True)
    return checkpoints, known


def _accuracies(prediction: Prediction, embedding: TaskEmbedding) -> dict[str, np.ndarray]:
    """Predicted accuracies of all candidates: with what this task adds, and without."""
    from scipy.special import expit

    level = 0.0
    if not prediction.measured:  # the probe is no candidate: at least its accuracy tells how hard the task is
        level = float(logit(probe_score(embedding.descriptors).smoothed))
    return {
        "score": expit(level + prediction.mean),
        "prior": expit(level + prediction.level + prediction.prior),
    }


def _intervals(prediction: Prediction, scores: Mapping[str, np.ndarray], rows: np.ndarray) -> dict[str, np.ndarray]:
    """Accuracies, standard deviations and 80 % intervals of some candidates."""
    from scipy.special import expit

    sd = np.sqrt(prediction.variance(rows))
    score = scores["score"][rows]
    mean = logit(np.clip(score, 1e-12, 1.0 - 1e-12))
    return {
        "score": score,
        "prior": scores["prior"][rows],
        "std": score * (1.0 - score) * sd,
        "low": expit(mean - HALF_WIDTH_80 * sd),
        "high": expit(mean + HALF_WIDTH_80 * sd),
    }


def _intervals_again(
    metric: Metric,
    embedding: TaskEmbedding,
    frame: pd.DataFrame,
    known: Mapping[str, Score],
    scores: Mapping[str, np.ndarray],
    rows: np.ndarray,
) -> dict[str, np.ndarray]:
    """Predict again for `_intervals`, so that a ranking need not hold the prediction, which cannot be pickled."""
    return _intervals(metric.predict(embedding, frame, known), scores, rows)


def _candidate(
    position: int, row: dict[str, Any], numbers: Mapping[str, float], count: int, measured: Score | None
) -> Candidate:
    import pandas as pd

    names = ("params_m", "gmacs", "input_px", "license", "pretraining", "in1k_top1")
    facts = {name: None if pd.isna(row[name]) else row[name] for name in names}
    evidence = f"{counted(count, 'score')} of it in the index" if count else "no scores; judged by checkpoints like it"
    return Candidate(
        rank=position,
        hub_id=row["hub_id"],
        score=numbers["score"],
        std=numbers["std"],
        low=numbers["low"],
        high=numbers["high"],
        prior=numbers["prior"],
        residual=numbers["score"] - numbers["prior"],
        library=row["library"],
        architecture=row["architecture"],
        evidence=evidence,
        measured=None if measured is None else measured.value,
        **facts,
    )


def _summary(
    best: Candidate,
    scores: dict[str, np.ndarray],
    gain: TaskGain | None,
    order: np.ndarray,
    frame: pd.DataFrame,
    name: str = "accuracy",
) -> str:
    text = (
        f"Take {best.hub_id}: predicted linear-probe {name} {percent(best.score)} % "
        f"(80 % interval {percent(best.low)} to {percent(best.high)}; {best.evidence})."
    )
    close = order[scores["score"][order] >= best.score - best.std][1:]
    if len(close):
        text += (
            f" {counted(len(close), 'other')} of the {len(order)} {'is' if len(close) == 1 else 'are'} within one "
            "standard deviation: the evidence hardly tells them apart" + _smallest(best, frame.iloc[close]) + "."
        )
    if gain is None:
        return text
    if gain.static == best.hub_id:
        return text + " It is also the best regardless of the task."
    little = "" if gain.points > gain.std else " little"
    return text + (
        f" The task matters{little}: {gain.static}, the best regardless of the task, is predicted {gain.points:.1f} "
        f"± {gain.std:.1f} points lower."
    )


def _task_gain(prediction: Prediction, scores: np.ndarray, order: np.ndarray) -> TaskGain | None:
    """Compare the first of `order` with the one of the largest prior; None if all priors are equal."""
    if len(order) > 1 and np.ptp(prediction.prior[order]) == 0.0:
        return None
    best, static = int(order[0]), int(order[int(np.argmax(prediction.prior[order]))])
    name = prediction.ids[static]
    if best == static:
        return TaskGain(name, 0.0, 0.0)
    middle = float((scores[best] + scores[static]) / 2.0)
    std = middle * (1.0 - middle) * np.sqrt(prediction.variance_of_difference(best, static))
    return TaskGain(name, 100.0 * float(scores[best] - scores[static]), 100.0 * float(std))


def _smallest(best: Candidate, close: pd.DataFrame) -> str:
    """Name the smallest of those as good as the best, if it is smaller."""
    sizes = close["params_m"].dropna()
    if sizes.empty or (best.params_m is not None and sizes.min() >= best.params_m):
        return ""
    return f"; the smallest of them is {close.loc[sizes.idxmin(), 'hub_id']} ({sizes.min():.1f}M parameters)"

"""From a prediction to a recommendation: accuracies, intervals, facts, warnings and a summary in plain words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hf_task2vec.embedding import DESCRIPTORS
from hf_task2vec.errors import EmbeddingError
from hf_task2vec.explanation import FAR, Explainer
from hf_task2vec.metric import Prediction, RankingMetric
from hf_task2vec.observations import logit
from hf_task2vec.ranking import HALF_WIDTH_80, Candidate, Constraints, Ranking, percent

if TYPE_CHECKING:
    import pandas as pd

    from hf_task2vec.embedding import TaskEmbedding
    from hf_task2vec.zoo import ZooIndex


def check_descriptors(embedding: TaskEmbedding) -> None:
    """Raise EmbeddingError if an embedding lacks a descriptor that a ranking needs."""
    if missing := [name for name in DESCRIPTORS if name not in embedding.descriptors]:
        raise EmbeddingError(
            f"the embedding of {embedding.name!r} lacks the descriptors {', '.join(missing)}; make it with embed_task"
        )


def rank(
    embedding: TaskEmbedding,
    zoo: ZooIndex,
    checkpoints: pd.DataFrame,
    limits: Constraints,
    *,
    top_k: int,
    metric: RankingMetric | None = None,
) -> Ranking:
    """Rank rows of ``checkpoints.csv`` for an embedded task; see :func:`~hf_task2vec.selection.select_backbone`.

    `metric` is the one of the index if it is at hand.
    """
    check_descriptors(embedding)
    metric = metric if metric is not None else RankingMetric.from_index(zoo)
    anchor, known = _anchor(embedding, zoo)
    frame = checkpoints
    if anchor is not None and anchor not in set(frame["hub_id"]):
        import pandas as pd

        frame = pd.concat([frame, zoo.checkpoints[zoo.checkpoints["hub_id"] == anchor]], ignore_index=True)
    prediction = metric.predict(embedding, frame, anchor)
    scores = _accuracies(prediction, anchor, known, embedding)
    shown = np.flatnonzero(frame["hub_id"].isin(set(checkpoints["hub_id"])).to_numpy())
    order = shown[np.lexsort((frame["hub_id"].to_numpy()[shown], -prediction.mean[shown]))]
    counts = dict(
        zip(
            *np.unique([metric.data.checkpoints.ids[c] for c in metric.data.checkpoint], return_counts=True),
            strict=True,
        )
    )
    rows = frame.to_dict("records")
    chosen = tuple(
        _candidate(position, rows[i], scores, i, int(counts.get(rows[i]["hub_id"], 0)))
        for position, i in enumerate(order[:top_k], start=1)
    )
    parts = {
        rows[i]["hub_id"]: (scores["score"][i], scores["prior"][i], scores["score"][i] - scores["prior"][i])
        for i in order
    }
    return Ranking(
        candidates=chosen,
        dataset=embedding.name,
        summary=_summary(chosen[0], scores, prediction, order, frame),
        warnings=_warnings(embedding, prediction),
        provenance={
            "task": embedding.task,
            "descriptors": embedding.descriptors,
            "probe": embedding.probe,
            "embedding": embedding.config,
            "index": zoo.fingerprint,
            "limits": {k: v for k, v in vars(limits).items() if v is not None},
            "versions": embedding.versions,
        },
        n_ranked=len(order),
        _explainer=Explainer(metric, embedding, checkpoints, parts),
    )


def _anchor(embedding: TaskEmbedding, zoo: ZooIndex) -> tuple[str | None, float]:
    """The probe itself, if the index ranks it: its accuracy on this very task turns standings into accuracies."""
    name = str(embedding.probe["name"])
    accuracy = embedding.descriptors["probe_accuracy"]
    return (name if name in set(zoo.checkpoints["hub_id"]) else None), accuracy


def _accuracies(
    prediction: Prediction, anchor: str | None, known: float, embedding: TaskEmbedding
) -> dict[str, np.ndarray]:
    """Turn standings (logits) into accuracies, with the probe's own accuracy as the fixed point."""
    from scipy.special import expit

    n = max(embedding.descriptors["n_samples"], 1.0)
    level = float(logit((known * n + 0.5) / (n + 1.0)))
    offset = level - (prediction.mean[prediction.ids.index(anchor)] if anchor is not None else 0.0)
    # The level is itself measured on n images only.
    p = float(expit(level))
    sd = np.sqrt(prediction.variance + 1.0 / (n * p * (1.0 - p)))
    mean = offset + prediction.mean
    score = expit(mean)
    return {
        "score": score,
        "std": score * (1.0 - score) * sd,
        "low": expit(mean - HALF_WIDTH_80 * sd),
        "high": expit(mean + HALF_WIDTH_80 * sd),
        "prior": expit(offset + prediction.prior),
    }


def _candidate(position: int, row: dict[str, Any], scores: dict[str, np.ndarray], i: int, count: int) -> Candidate:
    import pandas as pd

    numbers = {name: float(values[i]) for name, values in scores.items()}
    names = ("params_m", "gmacs", "input_px", "license", "pretraining", "in1k_top1")
    facts = {name: None if pd.isna(row[name]) else row[name] for name in names}
    evidence = f"{_count(count, 'score')} of it in the index" if count else "no scores; judged by checkpoints like it"
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
        **facts,
    )


def _summary(
    best: Candidate, scores: dict[str, np.ndarray], prediction: Prediction, order: np.ndarray, frame: pd.DataFrame
) -> str:
    text = (
        f"Take {best.hub_id}: predicted linear-probe accuracy {percent(best.score)} % "
        f"(80 % interval {percent(best.low)} to {percent(best.high)}; {best.evidence})."
    )
    close = order[scores["score"][order] >= best.score - best.std][1:]
    if len(close):
        text += (
            f" {_count(len(close), 'other')} of the {len(order)} {'is' if len(close) == 1 else 'are'} within one "
            "standard deviation: the evidence hardly tells them apart" + _smallest(best, frame.iloc[close]) + "."
        )
    static = order[int(np.argmax(prediction.prior[order]))]
    name = frame["hub_id"].iloc[static]
    if name == best.hub_id:
        return text + " It is also the best regardless of the task."
    points = 100.0 * (best.score - scores["score"][static])
    lower = f"{name}, the best regardless of the task, is predicted {points:.1f} points lower"
    little = "" if points > 100.0 * best.std else " little"
    return text + f" The task matters{little}: {lower}."


def _smallest(best: Candidate, close: pd.DataFrame) -> str:
    """Name the smallest of those as good as the best, if it is smaller."""
    sizes = close["params_m"].dropna()
    if sizes.empty or (best.params_m is not None and sizes.min() >= best.params_m):
        return ""
    return f"; the smallest of them is {close.loc[sizes.idxmin(), 'hub_id']} ({sizes.min():.1f}M parameters)"


def _warnings(embedding: TaskEmbedding, prediction: Prediction) -> tuple[str, ...]:
    facts, task = embedding.descriptors, embedding.task
    found = []
    if prediction.task_weight < FAR:
        found.append(
            "no reference task is near this dataset, so the ranking is only the prior: what does well in general"
        )
    if task.get("label_kind") == "multi_label":
        found.append(
            "images have several labels each, but the scores of the index are nearly all of tasks with one: take the "
            "order of the candidates as advice, and the accuracies not literally"
        )
    if facts["n_samples"] < 8 * facts["n_classes"]:
        found.append(
            f"only {facts['n_samples']:.0f} images for {facts['n_classes']:.0f} classes were used; "
            "pass a larger max_samples if there are more"
        )
    if facts["class_balance"] < 0.8:
        found.append(
            f"the classes are unbalanced (balance {facts['class_balance']:.2f} of 1); "
            "accuracies refer to the balanced sample"
        )
    if isinstance(skipped := task.get("skipped"), list) and skipped:
        found.append(f"{_count(len(skipped), 'broken image')} skipped")
    if isinstance(unlabelled := task.get("n_unlabelled"), int) and unlabelled:
        found.append(f"{_count(unlabelled, 'row')} without a label skipped")
    return tuple(found)


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"

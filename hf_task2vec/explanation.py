"""Why a checkpoint stands where it stands: the reference tasks and measurements behind its prediction."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hf_task2vec.errors import SelectionError
from hf_task2vec.labels import score_name
from hf_task2vec.observations import checkpoint_features

if TYPE_CHECKING:
    import pandas as pd

    from hf_task2vec.embedding import TaskEmbedding
    from hf_task2vec.metric import Metric

#: Below this similarity to the nearest reference task the residual is next to nothing.
FAR = 0.2


@dataclass(frozen=True)
class Neighbour:
    """A reference task near the user's.

    Attributes
    ----------
    task
        Its name in the index.
    similarity
        In [0, 1].
    contribution
        What it adds to the checkpoint's predicted accuracy, in points (percent).
    """

    task: str
    similarity: float
    contribution: float


@dataclass(frozen=True)
class Measurement:
    """A score of the checkpoint that the prediction uses."""

    task: str
    score: float
    source: str
    similarity: float


@dataclass(frozen=True)
class Explanation:
    """What speaks for a checkpoint.

    Attributes
    ----------
    hub_id
        The checkpoint.
    prior, residual
        Parts of the predicted accuracy, in points.
    neighbours
        The nearest reference tasks, nearest first.
    measurements
        The checkpoint's own scores, on the most similar tasks first.
    far
        True when no reference task is near, so that the ranking is only the prior.
    text
        The same in plain sentences.
    """

    hub_id: str
    prior: float
    residual: float
    neighbours: tuple[Neighbour, ...]
    measurements: tuple[Measurement, ...]
    far: bool
    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, eq=False)
class Explainer:
    """Keeps what is needed to explain any ranked checkpoint.

    Attributes
    ----------
    metric, embedding
        What predicted, and for which task.
    checkpoints
        Rows of ``checkpoints.csv``: all that were ranked.
    ids
        What was predicted: these, in their order, and perhaps the probe.
    scores
        ``"score"`` and ``"prior"``: accuracies in the order of `ids`.
    intervals
        Gives ``"std"`` and the ends of the 80 % interval, ``"low"`` and ``"high"``, at some rows of `ids`.
    titles
        What the reference tasks are called, by name.
    """

    metric: Metric
    embedding: TaskEmbedding
    checkpoints: pd.DataFrame
    ids: tuple[str, ...]
    scores: Mapping[str, np.ndarray]
    intervals: Callable[[np.ndarray], Mapping[str, np.ndarray]]
    titles: Mapping[str, str]

    def explain(self, hub_id: str, *, n: int = 5) -> Explanation:
        """Explain one checkpoint; see :meth:`hf_task2vec.ranking.Ranking.explain`."""
        row = checkpoint_features(self.checkpoints[self.checkpoints["hub_id"] == hub_id])
        if not row.ids:
            raise SelectionError(
                f"{hub_id!r} was not ranked: it is not in the index or does not meet the limits; "
                f"the ranking holds {len(self.checkpoints)} checkpoints such as {self.checkpoints['hub_id'].iloc[0]!r}"
            )
        data = self.metric.data
        task = self.metric.space.of_embedding(self.embedding)
        similarity = self.metric.task_similarity(task)
        i = self.ids.index(hub_id)
        score, prior = float(self.scores["score"][i]), float(self.scores["prior"][i])
        residual = score - prior
        points = 100.0 * score * (1.0 - score) * self.metric.residual_parts(task, row)
        nearest = np.argsort(-similarity, kind="stable")[:n]
        neighbours = tuple(
            Neighbour(data.tasks.names[i], float(similarity[i]), float(points[i])) for i in nearest if similarity[i] > 0
        )
        own = np.array([data.checkpoints.ids[c] == hub_id for c in data.checkpoint], dtype=bool)
        order = sorted(np.flatnonzero(own), key=lambda i: (-similarity[data.task[i]], i))
        measurements = tuple(
            Measurement(
                data.tasks.names[data.task[i]],
                float(data.score[i]),
                data.sources[data.source[i]],
                float(similarity[data.task[i]]),
            )
            for i in order
        )
        far = not neighbours or neighbours[0].similarity < FAR
        name = score_name(self.embedding.task.get("label_kind"))
        text = _sentences(hub_id, score, prior, residual, neighbours, measurements, far, name)
        return Explanation(hub_id, 100.0 * prior, 100.0 * residual, neighbours, measurements, far, text)


def _sentences(
    hub_id: str,
    score: float,
    prior: float,
    residual: float,
    neighbours: tuple[Neighbour, ...],
    measurements: tuple[Measurement, ...],
    far: bool,
    name: str,
) -> str:
    lines = [
        (
            f"{hub_id}: predicted {name} {100 * score:.1f} % = {100 * prior:.1f} (prior: its standing on any task) "
            f"{100 * residual:+.1f} (what this task adds)."
        )
    ]
    if far:
        lines.append("No reference task is near this one, so the ranking rests on the prior alone.")
    elif neighbours:
        near = ", ".join(
            f"{x.task} (similarity {x.similarity:.2f}, {x.contribution:+.1f} points)" for x in neighbours[:3]
        )
        lines.append(f"Nearest reference tasks: {near}.")
    if measurements:
        shown = ", ".join(f"{m.task} {100 * m.score:.1f} % [{m.source}]" for m in measurements[:3])
        lines.append(f"{len(measurements)} scores of this checkpoint are in the index, the most relevant: {shown}.")
    else:
        lines.append("No score of this checkpoint is in the index: its prior comes from checkpoints like it.")
    return "\n".join(lines)

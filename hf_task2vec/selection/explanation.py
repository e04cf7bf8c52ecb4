"""Why a checkpoint stands where it stands: the reference tasks and measurements behind its prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from hf_task2vec.metric import CheckpointFeatures, Metric, TaskFeatures

Array = NDArray[np.float64]

#: Below this similarity to the nearest reference task the residual is next to nothing.
FAR = 0.2
_NEIGHBOURS = 5


@dataclass(frozen=True)
class Neighbour:
    """A reference task near the user's."""

    task: str
    title: str
    """Its name in the index, and what it is called."""
    similarity: float
    """In [0, 1]."""
    contribution: float
    """What it adds to the checkpoint's predicted accuracy, in points (percent)."""


@dataclass(frozen=True)
class Measurement:
    """A score of the checkpoint that the prediction uses."""

    task: str
    score: float
    source: str
    similarity: float


@dataclass(frozen=True)
class Explanation:
    """What speaks for a checkpoint."""

    hub_id: str
    """The checkpoint."""
    prior: float
    residual: float
    """Parts of the predicted accuracy, in points."""
    neighbours: tuple[Neighbour, ...]
    """The nearest reference tasks, nearest first."""
    measurements: tuple[Measurement, ...]
    """The checkpoint's own scores, on the most similar tasks first."""
    score_name: str = "accuracy"
    """What is predicted: ``"accuracy"`` or ``"mAP"``."""
    heritage: str = ""
    """Of a fine-tuned checkpoint whose evidence is its base's: what that is, and what is expected of the tuning."""

    @property
    def far(self) -> bool:
        """True when no reference task is near, so that the ranking is only the prior."""
        return not self.neighbours or self.neighbours[0].similarity < FAR

    @property
    def text(self) -> str:
        """The same in plain sentences."""
        lines = [
            (
                f"{self.hub_id}: predicted {self.score_name} {self.prior + self.residual:.1f} % = {self.prior:.1f} "
                f"(prior: its standing on any task) {self.residual:+.1f} (what this task adds)."
            )
        ]
        if self.heritage:
            lines.append(f"It was {self.heritage}, whose scores count as its own.")
        if self.far:
            lines.append("No reference task is near this one, so the ranking rests on the prior alone.")
        else:
            near = ", ".join(
                f"{x.task} (similarity {x.similarity:.2f}, {x.contribution:+.1f} points)" for x in self.neighbours[:3]
            )
            lines.append(f"Nearest reference tasks: {near}.")
        if self.measurements:
            shown = ", ".join(f"{m.task} {100 * m.score:.1f} % [{m.source}]" for m in self.measurements[:3])
            count = len(self.measurements)
            lines.append(f"{count} scores of this checkpoint are in the index, the most relevant: {shown}.")
        else:
            lines.append("No score of this checkpoint is in the index: its prior comes from checkpoints like it.")
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.text


def explain(
    metric: Metric,
    task: TaskFeatures,
    candidates: CheckpointFeatures,
    protocol: str,
    score: Array,
    prior: Array,
    titles: Mapping[str, str],
    score_name: str,
    ids: Sequence[str] | None = None,
) -> dict[str, Explanation]:
    """Explain candidates, with their predicted scores and priors, shapes (n,), by hub id; `ids` are those of heirs."""
    data, similarity = metric.data, metric.task_similarity(task)
    points = 100.0 * (score * (1.0 - score))[:, None] * metric.residual_parts(task, candidates, protocol)
    nearest = [t for t in np.argsort(-similarity, kind="stable")[:_NEIGHBOURS] if similarity[t] > 0]
    # The scores of each checkpoint, those on the most similar tasks first.
    by_checkpoint: dict[str, list[int]] = {}
    for row in np.lexsort((np.arange(len(data.y)), -similarity[data.task])):
        by_checkpoint.setdefault(data.checkpoints.ids[data.checkpoint[row]], []).append(row)
    found = {}
    for i, hub_id in enumerate(candidates.ids if ids is None else ids):
        neighbours = tuple(
            Neighbour(name := data.tasks.names[t], titles.get(name, ""), float(similarity[t]), float(points[i, t]))
            for t in nearest
        )
        measurements = tuple(
            Measurement(
                data.tasks.names[data.task[row]],
                float(data.score[row]),
                data.sources[data.source[row]],
                float(similarity[data.task[row]]),
            )
            for row in by_checkpoint.get(candidates.ids[i], ())
        )
        parts = 100.0 * float(prior[i]), 100.0 * float(score[i] - prior[i])
        found[hub_id] = Explanation(hub_id, *parts, neighbours, measurements, score_name)
    return found

"""Copy the standings of the nearest task: the selection by task distance of Achille et al. 2019, section 5."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from hf_task2vec.baselines import Baseline, looked_up
from hf_task2vec.distance import asymmetric, symmetric
from hf_task2vec.observations import CheckpointFeatures
from hf_task2vec.task_space import TaskFeatures

Array = NDArray[np.float64]


class NearestSymmetric(Baseline):
    """Of each candidate, its standing on the nearest task (by the symmetric distance) that it has a score on.

    Candidates without a score on an embedded task have their mean standing.
    """

    name: ClassVar[str] = "nearest_symmetric"

    def distances(self, task: TaskFeatures) -> Array:
        """Distances from the T known tasks to the task, shape (T,); infinite for those without an embedding."""
        target = task.values[0].astype(np.float64)
        known = self.data.tasks
        return np.array(
            [
                self._distance(source.astype(np.float64), target) if embedded else np.inf
                for source, embedded in zip(known.values, known.embedded, strict=True)
            ]
        )

    def _distance(self, source: Array, target: Array) -> float:
        return symmetric(source, target)

    def residual(self, task: TaskFeatures, candidates: CheckpointFeatures) -> Array:
        """What the nearest task adds to the mean standing, shape (n,); 0 for candidates without a score."""
        data = self.data
        distance = self.distances(task)[data.task]
        _, left = self.fit
        found = np.zeros(len(data.checkpoints.ids))
        for c in np.unique(data.checkpoint[np.isfinite(distance)]):
            own = data.checkpoint == c
            nearest = own & (distance == distance[own].min())
            found[c] = left[nearest].mean()
        return looked_up(candidates, data.checkpoints, found, missing=np.zeros(len(candidates.ids)))


class NearestAsymmetric(NearestSymmetric):
    """The same by the asymmetric distance: of two equally near tasks the more complex one counts."""

    name: ClassVar[str] = "nearest_asymmetric"

    def _distance(self, source: Array, target: Array) -> float:
        return asymmetric(source, target, self.space.layer_sizes)

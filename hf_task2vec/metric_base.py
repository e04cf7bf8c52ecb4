"""What every way of ranking checkpoints for a task has in common."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from hf_task2vec.errors import MetricError
from hf_task2vec.observations import CheckpointFeatures, Observations, checkpoint_features, observations
from hf_task2vec.prediction import Measured, Prediction
from hf_task2vec.task_space import TaskFeatures, TaskSpace

if TYPE_CHECKING:
    import pandas as pd

    from hf_task2vec.embedding import TaskEmbedding
    from hf_task2vec.zoo import ZooIndex

logger = logging.getLogger(__name__)

Array = NDArray[np.float64]


class Metric(ABC):
    """Predicts the standing of checkpoints on a task from the scores and embeddings of an index.

    Attributes
    ----------
    name
        Its name in :data:`hf_task2vec.metrics.METRICS`.
    space
        How embeddings become task features.
    data
        The scores that it predicts from.
    """

    name: ClassVar[str]
    space: TaskSpace
    data: Observations

    @classmethod
    @abstractmethod
    def from_index(cls, index: ZooIndex) -> Metric:
        """Learn from the scores and embeddings of an index.

        Raises
        ------
        MetricError
            The index holds no embeddings or no usable scores.
        """

    @abstractmethod
    def predict_features(
        self, task: TaskFeatures, candidates: CheckpointFeatures, measured: Mapping[str, Measured] | None = None
    ) -> Prediction:
        """Predict from features of one task and of n checkpoints; see :meth:`predict`."""

    def predict(
        self, embedding: TaskEmbedding, checkpoints: pd.DataFrame, measured: Mapping[str, Measured] | None = None
    ) -> Prediction:
        """Predict the standing of `checkpoints` (rows of ``checkpoints.csv``) on a task.

        Parameters
        ----------
        embedding
            The task.
        checkpoints
            Candidates, n rows.
        measured
            Accuracies measured on this very task, by the id of a candidate: what turns standings into accuracies, and
            tells of the task what no embedding can.

        Raises
        ------
        ProbeMismatchError
            The embedding comes from another probe than the index's.
        MetricError
            A measured checkpoint is not among the candidates.
        """
        logger.debug("ranking %d checkpoints", len(checkpoints), extra={"stage": "ranking"})
        return self.predict_features(self.space.of_embedding(embedding), checkpoint_features(checkpoints), measured)

    def task_similarity(self, task: TaskFeatures) -> Array:
        """Return the similarity of one task to the T known tasks, shape (T,), in [0, 1].

        By default the correlation of the centred Fisher profiles, where it is positive.
        """
        known = self.data.tasks
        similarity: Array = np.clip(known.profiles @ task.profiles[0], 0.0, 1.0) * known.embedded
        return similarity

    def residual_parts(self, task: TaskFeatures, candidate: CheckpointFeatures) -> Array:
        """Split one checkpoint's residual by the known tasks that it comes from, shape (T,), in logits.

        By default zeros: nothing is known of where it comes from.
        """
        return np.zeros(len(self.data.tasks.names))

    def scores_by_checkpoint(self) -> dict[str, int]:
        """Number of scores that the index holds of each checkpoint."""
        counts = np.bincount(self.data.checkpoint, minlength=len(self.data.checkpoints.ids))
        return dict(zip(self.data.checkpoints.ids, counts.tolist(), strict=True))


def evidence(index: ZooIndex) -> tuple[TaskSpace, Observations]:
    """Return what a metric learns from: the space of an index's embeddings, and its scores.

    Raises
    ------
    MetricError
        The index holds no embeddings or no usable scores, or its embeddings lack a descriptor.
    """
    if not index.tables:
        raise MetricError("the index holds no task embeddings; run `hf-task2vec index build` or use the shipped index")
    space = TaskSpace.fit(index.embeddings())
    data = observations(index, space)
    if not len(data.y):
        raise MetricError("the index holds no two comparable scores; add measurements with `hf-task2vec index build`")
    return space, data

"""The rule to beat, and the metrics by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from hf_task2vec.errors import MetricError
from hf_task2vec.metric.observations import CheckpointFeatures, Observations, additive_fit
from hf_task2vec.metric.prediction import Heirs, Prediction
from hf_task2vec.metric.ranking_metric import LINEAR_PROBE, Metric, RankingMetric
from hf_task2vec.metric.task_space import TaskFeatures, TaskSpace

if TYPE_CHECKING:
    from hf_task2vec.probes import Score
    from hf_task2vec.zoo import ZooIndex

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Static(Metric):
    """Each checkpoint's mean standing over the tasks of the index, whatever the task: the rule to beat."""

    name: ClassVar[str] = "static"

    space: TaskSpace
    data: Observations

    def predict_features(
        self,
        task: TaskFeatures,
        candidates: CheckpointFeatures,
        measured: Mapping[str, Score] | None = None,
        protocol: str = LINEAR_PROBE,
        heirs: Heirs | None = None,
    ) -> Prediction:
        """Predict from features of one task and of n checkpoints, or for heirs; see :meth:`Metric.predict`.

        Protocols are alike.
        """
        prior = self.prior(candidates)
        similarity = self.task_similarity(task)[self.data.tasks.embedded]
        prediction = Prediction(
            candidates.ids,
            prior=prior,
            residual=self.residual(task, candidates),
            task_weight=float(similarity.max(initial=0.0)),
            noise=float(np.mean(self.fit[1] ** 2)),
        ).inherited_by(heirs)
        return prediction.given(measured) if measured else prediction

    def prior(self, candidates: CheckpointFeatures) -> Array:
        """Mean standings, shape (n,); of a candidate without a score what a ridge regression on facts gives."""
        scored = np.unique(self.data.checkpoint)
        known, standing = self.data.checkpoints.take(scored), self.fit[0][scored]
        x = np.column_stack([np.ones(len(scored)), known.numbers])
        beta = np.linalg.solve(x.T @ x + np.eye(x.shape[1]), x.T @ standing)
        guess = np.column_stack([np.ones(len(candidates.ids)), candidates.numbers]) @ beta
        by_id = dict(zip(known.ids, standing, strict=True))
        return np.array([by_id.get(name, value) for name, value in zip(candidates.ids, guess, strict=True)])

    def residual(self, task: TaskFeatures, candidates: CheckpointFeatures) -> Array:
        """What the task adds, shape (n,): nothing."""
        return np.zeros(len(candidates.ids))

    @cached_property
    def fit(self) -> tuple[Array, Array]:
        """The result of :func:`additive_fit` on the scores."""
        return additive_fit(self.data)


#: Every metric by name.
METRICS: Mapping[str, type[Metric]] = MappingProxyType({metric.name: metric for metric in (RankingMetric, Static)})


def load_metric(name: str, index: ZooIndex) -> Metric:
    """Return the metric of that name, ready to predict from an index.

    Raises
    ------
    MetricError
        There is no such metric, or the index does not hold what it needs.
    """
    if name not in METRICS:
        raise MetricError(f"metric {name!r} is unknown; choose one of {', '.join(METRICS)}")
    return METRICS[name].from_index(index)

"""The metrics: they predict how well a checkpoint will do on a task, as prior plus task-specific residual.

In the trained one the logit of a score is modelled as ``offset(group) + slope(source) · f(task, checkpoint) +
noise(source)``: scores are only comparable within a group (one source, protocol, metric, split and task), and sources
differ in how far they spread the same checkpoints (full fine-tuning less than linear probing). ``f`` is a Gaussian
process with the covariance

    prior(checkpoint):            linear in its facts + smooth in its facts + its own
    + protocol(source, checkpoint): what its kind of protocol adds on all tasks + what the source adds, both smooth
    + residual(task, checkpoint): k_task(t, t') · (smooth in the checkpoint's facts + its own + shared factors)

``k_task`` falls with the distances of the tasks' embeddings, so the residual shrinks to zero when a task is far from
every reference task, and the prediction is then the prior. Inference is exact and in closed form (Rasmussen and
Williams 2006, algorithm 2.1); the length-scales, variances and factors, learned by marginal likelihood, are the
"trained metric".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType, SimpleNamespace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from hf_task2vec.errors import MetricError
from hf_task2vec.metric.covariance import (
    METRIC_FILE,
    MetricParameters,
    covariance_matrix,
    source_covariance,
    task_kernel,
)
from hf_task2vec.metric.observations import (
    REFERENCE_SOURCE,
    CheckpointFeatures,
    Observations,
    checkpoint_features,
    observations,
    source_codes,
)
from hf_task2vec.metric.prediction import Posterior, Prediction, with_scored
from hf_task2vec.metric.task_space import TaskFeatures, TaskSpace
from hf_task2vec.probes import Score

if TYPE_CHECKING:
    import pandas as pd

    from hf_task2vec.embedding import TaskEmbedding
    from hf_task2vec.zoo import ZooIndex

Array = NDArray[np.float64]

# Weight, in scores, of the assumption that a checkpoint is average: keeps one lucky score from ruling.
_SHRINKAGE = 0.1


class Metric:
    """Predicts the standing of checkpoints on a task: what every metric shares.

    Attributes
    ----------
    name
        Its name in `METRICS`.
    space
        How embeddings become task features.
    data
        The scores that it predicts from.
    """

    name: ClassVar[str]
    space: TaskSpace
    data: Observations

    @classmethod
    def from_index(cls, index: ZooIndex) -> Metric:
        """Learn from the scores and embeddings of an index."""
        return cls(*evidence(index))  # type: ignore[call-arg]

    def predict(
        self, embedding: TaskEmbedding, checkpoints: pd.DataFrame, measured: Mapping[str, Score] | None = None
    ) -> Prediction:
        """Predict the standing of `checkpoints` (rows of ``checkpoints.csv``) on a task.

        Parameters
        ----------
        embedding
            The task.
        checkpoints
            Candidates, n rows.
        measured
            Scores measured on this very task, by the id of a candidate: what turns standings into accuracies, and
            tells of the task what no embedding can.

        Raises
        ------
        ProbeMismatchError
            The embedding comes from another probe than the index's.
        """
        return self.predict_features(self.space.of_embedding(embedding), checkpoint_features(checkpoints), measured)

    def predict_features(
        self, task: TaskFeatures, candidates: CheckpointFeatures, measured: Mapping[str, Score] | None = None
    ) -> Prediction:
        """Predict from features of one task and of n checkpoints; see :meth:`predict`."""
        raise NotImplementedError

    def task_similarity(self, task: TaskFeatures) -> Array:
        """Return the similarity of one task to the T known tasks, shape (T,), in [0, 1].

        By default the correlation of the centred Fisher profiles, where it is positive.
        """
        known = self.data.tasks
        similarity: Array = np.clip(known.profiles @ task.profiles[0], 0.0, 1.0) * known.embedded
        return similarity

    def residual_parts(self, task: TaskFeatures, candidates: CheckpointFeatures) -> Array:
        """Split the residuals of n checkpoints by the T known tasks that they come from, shape (n, T), in logits."""
        return np.zeros((len(candidates.ids), len(self.data.tasks.names)))


@dataclass(frozen=True, eq=False)
class RankingMetric(Metric):
    """The trained metric: a Gaussian process conditioned on the scores of an index.

    Attributes
    ----------
    parameters
        Variances and length-scales.
    space
        How embeddings become task features.
    data
        The scores it is conditioned on.
    source
        Whose protocol it predicts for; by default the linear probe that the index measures.
    """

    name: ClassVar[str] = "trained"

    parameters: MetricParameters
    space: TaskSpace
    data: Observations
    source: str = REFERENCE_SOURCE

    @classmethod
    def from_index(cls, index: ZooIndex, parameters: MetricParameters | None = None) -> RankingMetric:
        """Condition the metric on an index.

        Parameters
        ----------
        index
            The zoo index; it must hold embeddings and scores.
        parameters
            By default those shipped with the index (``metric.json``), else the built-in ones.

        Raises
        ------
        MetricError
            The index holds no embeddings or no usable scores.
        """
        if parameters is None:
            stored = index.attachments.get(METRIC_FILE)
            parameters = MetricParameters.from_json(stored) if stored is not None else MetricParameters()
        factors = {index.names.get(name, name): values for name, values in parameters.factors.items()}
        parameters = replace(parameters, factors=factors)
        return cls(parameters, *evidence(index))

    @cached_property
    def _aligned(self) -> SimpleNamespace:
        return self.parameters.aligned(self.data.sources, self.data.checkpoints.ids)

    @cached_property
    def _solution(self) -> tuple[Array, Array]:
        """Cholesky factor of the observations' covariance, and the weights of the observations."""
        from scipy.linalg import cho_factor, cho_solve

        # Transposed it is the same matrix, in the order that LAPACK factors in place.
        factor = cho_factor(covariance_matrix(self._aligned, self.data).T, lower=True, overwrite_a=True)
        return factor[0], cho_solve(factor, self.data.y)

    def predict_features(
        self, task: TaskFeatures, candidates: CheckpointFeatures, measured: Mapping[str, Score] | None = None
    ) -> Prediction:
        """Predict from features of one task and of n checkpoints; see :meth:`predict`."""
        from scipy.linalg import solve_triangular

        similarity = self.task_similarity(task)
        factor, weights = self._solution
        shares = self._shares(similarity)
        root = solve_triangular(factor, shares, lower=True)
        posterior = Posterior(
            self._aligned,
            scored=self.data.checkpoints,
            candidates=candidates,
            loadings=self.parameters.loadings(candidates.ids),
            deviation=float(source_covariance(self.parameters, *2 * (source_codes([self.source]),))[0]),
            weights=shares.T @ weights,
            explained=root.T @ root,
        )
        prior, residual = posterior.means()
        prediction = Prediction(
            candidates.ids,
            prior=prior,
            residual=residual,
            task_weight=float(similarity[self.data.tasks.embedded].max(initial=0.0)),
            noise=self.parameters.aligned((self.source,), ()).noise[0] + self.parameters.unseen,
            posterior=posterior,
        )
        return prediction.given(measured) if measured else prediction

    def task_similarity(self, task: TaskFeatures) -> Array:
        """Return the similarity of one task to the T known tasks, shape (T,), in [0, 1]."""
        same = np.array([[name == task.names[0] for name in self.data.tasks.names]])
        similarity: Array = task_kernel(self._aligned, task, self.data.tasks, same)[0]
        return similarity

    def residual_parts(self, task: TaskFeatures, candidates: CheckpointFeatures) -> Array:
        """Split the residuals of n checkpoints by the T known tasks that they come from, shape (n, T), in logits."""
        data = self.data
        loadings = self.parameters.loadings(candidates.ids)
        *_, residual = with_scored(self._aligned, candidates, loadings, data.checkpoints)
        weights = np.zeros((len(data.checkpoints.ids), len(data.tasks.names)))
        shares = self._aligned.slope[data.source] * self.task_similarity(task)[data.task] * self._solution[1]
        np.add.at(weights, (data.checkpoint, data.task), shares)
        return residual @ weights

    def _shares(self, similarity: Array) -> Array:
        """What each observation has of the three parts of its checkpoint's covariances, shape (N, 3C).

        A candidate's covariance with an observation is one of prior, smooth kernel and residual with its checkpoint,
        each times what is here: all that the N observations tell of candidates goes through these 3C columns.
        """
        data, n = self.data, len(self.data.checkpoints.ids)
        protocol = source_covariance(self.parameters, data.codes, source_codes([self.source]))[data.source]
        slope = self._aligned.slope[data.source]
        shares = np.zeros((len(data.y), 3, n))
        for part, share in enumerate((1.0, protocol, similarity[data.task])):
            shares[np.arange(len(data.y)), part, data.checkpoint] = slope * share
        return shares.reshape(len(data.y), 3 * n)


@dataclass(frozen=True, eq=False)
class Static(Metric):
    """Each checkpoint's mean standing over the tasks of the index, whatever the task: the rule to beat."""

    name: ClassVar[str] = "static"

    space: TaskSpace
    data: Observations

    def predict_features(
        self, task: TaskFeatures, candidates: CheckpointFeatures, measured: Mapping[str, Score] | None = None
    ) -> Prediction:
        """Predict from features of one task and of n checkpoints; see :meth:`Metric.predict`."""
        prior = self.prior(candidates)
        similarity = self.task_similarity(task)[self.data.tasks.embedded]
        prediction = Prediction(
            candidates.ids,
            prior=prior,
            residual=self.residual(task, candidates),
            task_weight=float(similarity.max(initial=0.0)),
            noise=float(np.mean(self.fit[1] ** 2)),
        )
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


def evidence(index: ZooIndex) -> tuple[TaskSpace, Observations]:
    """Return what a metric learns from: the space of an index's embeddings, and its scores.

    Raises
    ------
    MetricError
        The index holds no embeddings or no usable scores, or its embeddings lack a descriptor.
    """
    if index.embedded is None:
        raise MetricError("the index holds no task embeddings; run `hf-task2vec index build` or use the shipped index")
    space = TaskSpace.fit(index.embeddings)
    data = observations(index, space)
    if not len(data.y):
        raise MetricError("the index holds no two comparable scores; add measurements with `hf-task2vec index build`")
    return space, data


def additive_fit(data: Observations) -> tuple[Array, Array]:
    """Fit ``y = level(group) + standing(checkpoint)`` by least squares.

    Returns
    -------
    tuple of ndarray
        Standings, shape (C,), with a little shrinkage to 0 (all that checkpoints without a score get), and what is left
        of the N scores.
    """
    c, g = len(data.checkpoints.ids), int(data.group.max(initial=-1)) + 1
    # Levels are eliminated, so that only the C standings are solved for.
    counts = np.zeros((g, c))
    np.add.at(counts, (data.group, data.checkpoint), 1.0)
    sizes = np.maximum(counts.sum(axis=1), 1.0)
    level_y = np.bincount(data.group, data.y, minlength=g) / sizes
    normal = np.diag(counts.sum(axis=0) + _SHRINKAGE) - counts.T @ (counts / sizes[:, None])
    centred = np.bincount(data.checkpoint, data.y - level_y[data.group], minlength=c)
    standing = np.linalg.solve(normal, centred)
    level = level_y - (counts @ standing) / sizes
    return standing, data.y - level[data.group] - standing[data.checkpoint]

"""The trained metric: predicts how well a checkpoint will do on a task, as prior plus task-specific residual.

The logit of a score is modelled as ``offset(group) + slope(source) · f(task, checkpoint) + noise(source)``: scores
are only comparable within a group (one source, protocol, metric, split and task), and sources differ in how far they
spread the same checkpoints (full fine-tuning less than linear probing). ``f`` is a Gaussian process with the covariance

    prior(checkpoint):            linear in its facts + smooth in its facts + its own
    + residual(task, checkpoint): k_task(t, t') · (smooth in the checkpoint's facts + its own)

``k_task`` falls with the correlation distance of log Fisher profiles, so the residual shrinks to zero when a task is
far from every reference task, and the prediction is then the prior. Inference is exact and in closed form (Rasmussen
and Williams 2006, algorithm 2.1); the length-scales and variances, learned by marginal likelihood, are the "trained
metric".
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hf_task2vec.errors import MetricError, ProbeMismatchError, SchemaVersionError
from hf_task2vec.observations import (
    CheckpointFeatures,
    Observations,
    TaskFeatures,
    TaskSpace,
    checkpoint_features,
    observations,
)

if TYPE_CHECKING:
    import pandas as pd

    from hf_task2vec.embedding import TaskEmbedding
    from hf_task2vec.zoo import ZooIndex

Array = NDArray[np.float64]
SCHEMA_VERSION = 1
METRIC_FILE = "metric.json"


@dataclass(frozen=True)
class MetricParameters:
    """Variances, length-scales and mixing weights of the covariance, in logits of a linear probe's accuracy.

    Attributes
    ----------
    offset
        Variance of a group's common offset.
    linear
        Variance of the slope on each numeric fact of a checkpoint.
    prior_smooth, prior_own
        Variances of the prior that checkpoints with like facts share, and of each checkpoint's own.
    residual_smooth, residual_own
        The same of the task-specific residual.
    length_in1k, length_size, length_px
        Length-scales on ImageNet accuracy (in half logits), size (in factors of four) and image size (in octaves).
    pretraining_shared, family_shared
        Covariance left between checkpoints of different pretraining or architecture family, in (0, 1).
    length_fisher, length_moments
        Length-scales on the correlation distances of Fisher profiles and of feature moments.
    length_descriptors
        Length-scale on the descriptors.
    slopes, noises
        By source (``"source/protocol"``): how far it spreads what a linear probe spreads by 1, and the variance of what
        nothing else explains. Sources not named here get `DEFAULT_SLOPE` and `DEFAULT_NOISE`.
    """

    offset: float = 4.0
    linear: float = 0.1
    prior_smooth: float = 0.1
    prior_own: float = 0.03
    residual_smooth: float = 0.1
    residual_own: float = 0.05
    length_in1k: float = 1.0
    length_size: float = 1.0
    length_px: float = 1.0
    pretraining_shared: float = 0.5
    family_shared: float = 0.7
    length_fisher: float = 0.7
    length_moments: float = 2.0
    length_descriptors: float = 3.0
    slopes: Mapping[str, float] = field(default_factory=dict)
    noises: Mapping[str, float] = field(default_factory=dict)

    def scalars(self) -> dict[str, float]:
        """Return the parameters that are single numbers."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("slopes", "noises")}

    def aligned(self, sources: Sequence[str]) -> SimpleNamespace:
        """Return the parameters as attributes, with `slope` and `noise` as arrays in the order of `sources`."""
        slope = np.array([self.slopes.get(name, DEFAULT_SLOPE) for name in sources])
        noise = np.array([self.noises.get(name, DEFAULT_NOISE) for name in sources])
        return SimpleNamespace(**self.scalars(), slope=slope, noise=noise)


#: The source that defines the unit: its slope is 1.
REFERENCE_SOURCE = "hf_task2vec_measured/linear_probe_loo"
DEFAULT_SLOPE, DEFAULT_NOISE = 0.7, 0.03
#: Parameters that are shares in (0, 1); all others are positive.
SHARES = ("pretraining_shared", "family_shared")


def checkpoint_kernel(p: Any, a: Any, b: Any, xp: Any = np) -> Any:
    """Smooth similarity of checkpoints' facts, shape (n, m), 1 for equal facts. `xp` is numpy or torch."""
    lengths = (p.length_in1k, p.length_in1k, p.length_size, p.length_px)
    exponent = sum(((a.numbers[:, None, j] - b.numbers[None, :, j]) / s) ** 2 for j, s in enumerate(lengths))
    pretraining = p.pretraining_shared + (1.0 - p.pretraining_shared) * (
        a.pretraining[:, None] == b.pretraining[None, :]
    )
    family = p.family_shared + (1.0 - p.family_shared) * (a.family[:, None] == b.family[None, :])
    return xp.exp(-0.5 * exponent) * pretraining * family


def task_kernel(p: Any, a: Any, b: Any, same: Any, xp: Any = np) -> Any:
    """Similarity of tasks, shape (n, m): 1 for the same task, falling with the distances of their embeddings."""
    fisher = 1.0 - a.profiles @ b.profiles.T
    moments = 1.0 - a.moments @ b.moments.T
    described = sum((a.descriptors[:, None, j] - b.descriptors[None, :, j]) ** 2 for j in range(a.descriptors.shape[1]))
    exponent = fisher / p.length_fisher**2 + moments / p.length_moments**2 + described / p.length_descriptors**2
    both = a.embedded[:, None] * b.embedded[None, :]
    return xp.where(same, xp.ones_like(exponent), xp.exp(-exponent) * both)


@dataclass(frozen=True, eq=False)
class Prediction:
    """Predicted standing of checkpoints on one task, in logits of a linear probe's accuracy.

    Attributes
    ----------
    prior, residual
        Shape (n,): the task-blind and the task-specific part of the mean; zero is the average checkpoint.
    variance
        Shape (n,): of the mean; with an anchor, of the difference to the anchor.
    task_weight
        In [0, 1]: similarity of the task to the nearest reference task; near 0 the prior rules.
    """

    ids: tuple[str, ...]
    prior: Array
    residual: Array
    variance: Array
    task_weight: float

    @property
    def mean(self) -> Array:
        """Prior plus residual, shape (n,)."""
        return self.prior + self.residual


@dataclass(frozen=True, eq=False)
class RankingMetric:
    """The metric conditioned on the scores of an index. See the module's text for the model.

    Attributes
    ----------
    parameters
        Variances and length-scales.
    space
        How embeddings become task features.
    data
        The scores it is conditioned on.
    """

    parameters: MetricParameters
    space: TaskSpace
    data: Observations

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
        if not index.tables:
            raise MetricError(
                "the index holds no task embeddings; run `hf-task2vec index build` or use the shipped index"
            )
        if parameters is None:
            stored = index.attachments.get(METRIC_FILE)
            parameters = loads(stored) if stored is not None else MetricParameters()
        space = TaskSpace.fit(index.embeddings())
        data = observations(index, space)
        if not len(data.y):
            raise MetricError(
                "the index holds no two comparable scores; add measurements with `hf-task2vec index build`"
            )
        return cls(parameters, space, data)

    @cached_property
    def _solution(self) -> tuple[Array, Array]:
        from scipy.linalg import cho_factor, cho_solve

        covariance = covariance_matrix(self.parameters.aligned(self.data.sources), self.data)
        factor = cho_factor(covariance, lower=True, overwrite_a=True, check_finite=False)
        return factor[0], cho_solve(factor, self.data.y, check_finite=False)

    def predict(self, embedding: TaskEmbedding, checkpoints: pd.DataFrame, anchor: str | None = None) -> Prediction:
        """Predict the standing of `checkpoints` (rows of ``checkpoints.csv``) on a task.

        Parameters
        ----------
        embedding
            The task.
        checkpoints
            Candidates, n rows.
        anchor
            Id of one of them whose accuracy on the task is known: variances then refer to the difference from it.

        Raises
        ------
        ProbeMismatchError
            The embedding comes from another probe than the index's.
        """
        if embedding.weights_hash != self.space.weights_hash:
            raise ProbeMismatchError(
                f"{embedding.name!r} was embedded with probe {embedding.probe['name']!r} (weights "
                f"{embedding.weights_hash[:12]}…), the index with weights {self.space.weights_hash[:12]}…; "
                "embed it with the index's probe"
            )
        return self.predict_features(self.space.of_embedding(embedding), checkpoint_features(checkpoints), anchor)

    def predict_features(
        self, task: TaskFeatures, candidates: CheckpointFeatures, anchor: str | None = None
    ) -> Prediction:
        """Predict from features of one task and of n checkpoints; see :meth:`predict`."""
        from scipy.linalg import solve_triangular

        p, data = self.parameters, self.data
        factor, weights = self._solution
        cross_prior, cross_smooth = self._cross(candidates)
        similarity = self.task_similarity(task)
        cross_residual = cross_smooth * similarity[data.task]
        solved = solve_triangular(factor, (cross_prior + cross_residual).T, lower=True, check_finite=False)
        total = p.prior_smooth + p.prior_own + p.residual_smooth + p.residual_own
        variance = p.linear * (1.0 + (candidates.numbers**2).sum(axis=1)) + total - (solved**2).sum(axis=0)
        if anchor is not None:
            i = candidates.ids.index(anchor)
            one = candidates.take(np.array([i]))
            smooth = checkpoint_kernel(p, candidates, one)[:, 0] * (p.prior_smooth + p.residual_smooth)
            own = (np.arange(len(candidates.ids)) == i) * (p.prior_own + p.residual_own)
            shared = p.linear * (1.0 + candidates.numbers @ one.numbers[0]) + smooth + own - solved.T @ solved[:, i]
            variance = variance + variance[i] - 2.0 * shared
        return Prediction(
            candidates.ids,
            prior=cross_prior @ weights,
            residual=cross_residual @ weights,
            variance=np.maximum(variance, 1e-9),
            task_weight=float(similarity[data.tasks.embedded].max(initial=0.0)),
        )

    def task_similarity(self, task: TaskFeatures) -> Array:
        """Return the similarity of one task to the T known tasks, shape (T,), in [0, 1]."""
        same = np.array([[name == task.names[0] for name in self.data.tasks.names]])
        similarity: Array = task_kernel(self.parameters, task, self.data.tasks, same)[0]
        return similarity

    def residual_parts(self, task: TaskFeatures, candidate: CheckpointFeatures) -> Array:
        """Split one checkpoint's residual by the known tasks that it comes from, shape (T,), in logits."""
        _, cross_smooth = self._cross(candidate)
        parts = cross_smooth[0] * self.task_similarity(task)[self.data.task] * self._solution[1]
        return np.bincount(self.data.task, parts, minlength=len(self.data.tasks.names)).astype(np.float64)

    def _cross(self, candidates: CheckpointFeatures) -> tuple[Array, Array]:
        """Covariances with the observations of the prior and of the residual before the task's similarity, (n, N)."""
        p, data = self.parameters, self.data
        smooth = checkpoint_kernel(p, candidates, data.checkpoints)
        column = {name: j for j, name in enumerate(data.checkpoints.ids)}
        own = np.zeros_like(smooth)
        known = [(i, column[name]) for i, name in enumerate(candidates.ids) if name in column]
        for i, j in known:
            own[i, j] = 1.0
        linear = p.linear * (1.0 + candidates.numbers @ data.checkpoints.numbers.T)
        prior = linear + p.prior_smooth * smooth + p.prior_own * own
        residual = p.residual_smooth * smooth + p.residual_own * own
        slope = p.aligned(data.sources).slope[data.source]
        return prior[:, data.checkpoint] * slope, residual[:, data.checkpoint] * slope


def covariance_matrix(p: Any, data: Any, xp: Any = np) -> Any:
    """Covariance of the observations, shape (N, N).

    `p` holds aligned parameters (:meth:`MetricParameters.aligned`); `xp` is numpy, or torch for gradients in them.
    """
    c, t = data.checkpoints, data.tasks
    n_checkpoints, n_tasks = c.numbers.shape[0], t.profiles.shape[0]
    smooth = checkpoint_kernel(p, c, c, xp)
    own = xp.eye(n_checkpoints, dtype=smooth.dtype)
    prior = p.linear * (1.0 + c.numbers @ c.numbers.T) + p.prior_smooth * smooth + p.prior_own * own
    residual = p.residual_smooth * smooth + p.residual_own * own
    same = xp.eye(n_tasks, dtype=smooth.dtype) > 0
    similarity = task_kernel(p, t, t, same, xp)
    ci, ti = data.checkpoint, data.task
    slope = p.slope[data.source]
    covariance = prior[ci][:, ci] + residual[ci][:, ci] * similarity[ti][:, ti]
    covariance = covariance * (slope[:, None] * slope[None, :])
    covariance = covariance + p.offset * (data.group[:, None] == data.group[None, :])
    return covariance + xp.diag(data.error + p.noise[data.source])


def dumps(parameters: MetricParameters, report: dict[str, Any] | None = None) -> bytes:
    """Return ``metric.json`` as bytes."""
    document = {"schema_version": SCHEMA_VERSION, "parameters": asdict(parameters), "training": report or {}}
    return (json.dumps(document, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def loads(data: bytes) -> MetricParameters:
    """Read ``metric.json``.

    Raises
    ------
    SchemaVersionError
        The file was written by another version of the format.
    MetricError
        The file is malformed.
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise MetricError(f"{METRIC_FILE} cannot be read as JSON: {error}") from error
    version = document.get("schema_version") if isinstance(document, dict) else None
    if version != SCHEMA_VERSION:
        raise SchemaVersionError(f"{METRIC_FILE} has schema version {version!r}, this version reads {SCHEMA_VERSION}")
    values, names = document.get("parameters"), {f.name for f in fields(MetricParameters)}
    if not isinstance(values, dict) or values.keys() != names:
        raise MetricError(f"{METRIC_FILE} must give exactly the parameters {', '.join(sorted(names))}")
    parsed: dict[str, Any] = {
        name: _positives(name, value) if name in ("slopes", "noises") else _positive(name, value)
        for name, value in values.items()
    }
    return MetricParameters(**parsed)


def _positives(name: str, values: Any) -> dict[str, float]:
    if not isinstance(values, dict):
        raise MetricError(f"{METRIC_FILE}: {name} must map sources to numbers, found {type(values).__name__}")
    return {source: _positive(f"{name}[{source}]", value) for source, value in values.items()}


def _positive(name: str, value: Any) -> float:
    limit = 1.0 if name in SHARES else 1e6
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < limit:
        raise MetricError(f"{METRIC_FILE}: {name}={value!r} should be a number between 0 and {limit:g}")
    return float(value)

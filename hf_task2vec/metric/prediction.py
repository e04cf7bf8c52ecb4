"""A metric's prediction for one task, and what measurements on that very task make of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_task2vec.errors import MetricError
from hf_task2vec.metric.covariance import checkpoint_kernel, prior_covariance, residual_covariance, smooth_products
from hf_task2vec.metric.observations import CheckpointFeatures
from hf_task2vec.probes import Score

Array = NDArray[np.float64]
Rows = NDArray[np.int64]
# Far more than are needed, unless something is wrong with the numbers.
_NEWTON_STEPS = 100
# Candidates compared with the scored checkpoints at a time.
_CHUNK = 256
#: Share of the sampling error that checkpoints measured on the same images have in common, because they fail on the
#: same ones (mean correlation of right answers among a task's six best checkpoints: ``shared_error`` in
#: ``benchmarks/results/selection.json``). It moves all of them alike, so it belongs to the task's level, and only the
#: rest blurs the differences.
SHARED_ERROR = 0.47
#: Prior variance of a task's level, in squared logits: so wide that one measurement tells of the level alone. A tighter
#: one would take a hard task for a weakness of whatever was measured first.
LEVEL_VARIANCE = 1e3


def with_scored(
    p: Any, candidates: CheckpointFeatures, loadings: Array, scored: CheckpointFeatures
) -> tuple[Array, Array, Array]:
    """Covariances of n candidates with the C scored checkpoints: prior, smooth kernel, and one task's residual."""
    smooth, own = checkpoint_kernel(p, candidates, scored), _own(candidates.ids, scored.ids)
    prior = prior_covariance(p, candidates, scored, smooth, own)
    return prior, smooth, residual_covariance(p, loadings, p.loadings, smooth, own)


def _same(a: tuple[str, ...], b: tuple[str, ...]) -> Rows:
    """Where two lists of ids name the same checkpoint: positions in both, shape (2, k)."""
    position = {name: j for j, name in enumerate(b)}
    pairs = [(i, position[name]) for i, name in enumerate(a) if name in position]
    return np.array(pairs, dtype=np.int64).reshape(-1, 2).T


def _own(a: tuple[str, ...], b: tuple[str, ...]) -> Array:
    """1 where two lists of ids name the same checkpoint, shape (n, m)."""
    found = np.zeros((len(a), len(b)))
    found[tuple(_same(a, b))] = 1.0
    return found


@dataclass(frozen=True, eq=False)
class Posterior:
    """What the scores of an index tell of n candidates on one task: a Gaussian process, in numbers.

    Everything is reached through the C checkpoints that have scores, a few hundred candidates at a time, which bounds
    the memory of an index of a million checkpoints.

    Attributes
    ----------
    parameters
        Aligned with `scored`.
    scored, candidates
        The C and the n checkpoints.
    loadings
        Of the candidates, shape (n, R).
    deviation
        Variance of what the protocol that is predicted for adds.
    weights, explained
        Shapes (3C,) and (3C, 3C): the candidates' covariances (prior, smooth, residual) with the C checkpoints, times
        these, give the means and what the scores take off the covariance.
    """

    parameters: Any
    scored: CheckpointFeatures
    candidates: CheckpointFeatures
    loadings: Array
    deviation: float
    weights: Array
    explained: Array

    def means(self) -> tuple[Array, Array]:
        """Means of the prior and of the residual, shapes (n,)."""
        p, a, b = self.parameters, self.candidates, self.scored
        of_prior, of_smooth, of_residual = self.weights.reshape(3, -1)
        vectors = np.stack([p.prior_smooth * of_prior + of_smooth, p.residual_smooth * of_residual], axis=1)
        smooth = smooth_products(p, a, b, vectors)
        prior = smooth[:, 0] + p.linear * (of_prior.sum() + a.numbers @ (b.numbers.T @ of_prior))
        residual = smooth[:, 1] + self.loadings @ (p.loadings.T @ of_residual)
        i, j = _same(a.ids, b.ids)
        prior[i] += p.prior_own * of_prior[j]
        residual[i] += p.residual_own * of_residual[j]
        return prior, residual

    def covariance(self, rows: Rows, columns: Rows) -> Array:
        """Covariance of two sets of candidates, shape (rows, columns)."""
        p, b = self.parameters, self.candidates.take(columns)
        explained = self.explained @ np.concatenate(self._with_scored(columns), axis=1).T
        found = [np.zeros((0, len(columns)))]
        for part in _chunks(rows):
            a = self.candidates.take(part)
            smooth, own = checkpoint_kernel(p, a, b), _own(a.ids, b.ids)
            before = prior_covariance(p, a, b, smooth, own) + self.deviation * smooth
            before = before + residual_covariance(p, self.loadings[part], self.loadings[columns], smooth, own)
            found.append(before - np.concatenate(self._with_scored(part), axis=1) @ explained)
        return np.concatenate(found)

    def variance(self, rows: Rows) -> Array:
        """Variance of each of the candidates at `rows`."""
        parts = [np.diag(self.covariance(part, part)) for part in _chunks(rows)]
        return np.concatenate([np.zeros(0), *parts])

    def _with_scored(self, rows: Rows) -> tuple[Array, Array, Array]:
        return with_scored(self.parameters, self.candidates.take(rows), self.loadings[rows], self.scored)


def _chunks(rows: Rows) -> list[Rows]:
    return [rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK)]


@dataclass(frozen=True, eq=False)
class Prediction:
    """Predicted standing of checkpoints on one task, in logits of a linear probe's accuracy.

    Attributes
    ----------
    ids
        The n checkpoints.
    prior, residual
        Shape (n,): the task-blind and the task-specific part of the mean. Zero is the average checkpoint until
        measurements fix the level.
    task_weight
        In [0, 1]: similarity of the task to the nearest reference task; near 0 the prior rules.
    noise
        Variance of a checkpoint's result on the task about what the model can know.
    posterior
        Covariance of the means; None where they are taken to be exact.
    level
        Logit of the task's level; 0 without measurements.
    update
        Shape (n,): what measurements on this task add to level, prior and residual.
    measured
        Whether it is conditioned on measurements on this task; the mean is then an accuracy's logit.
    """

    ids: tuple[str, ...]
    prior: Array
    residual: Array
    task_weight: float
    noise: float
    posterior: Posterior | None = None
    level: float = 0.0
    update: Array | float = 0.0
    measured: bool = False
    # Shape (n, m): products of its rows are what m measurements take off the covariance, and that of the level.
    _learned: Array | None = field(default=None, repr=False)
    _level_variance: float = field(default=0.0, repr=False)

    @property
    def mean(self) -> Array:
        """The predicted logit, shape (n,): level, prior, residual and update."""
        total: Array = self.level + self.prior + self.residual + self.update
        return total

    def variance(self, rows: Rows | None = None) -> Array:
        """Variance of the result of the checkpoints at `rows` (all by default).

        Without measurements, that of the standing alone: the task's level is unknown.
        """
        rows = np.arange(len(self.ids)) if rows is None else np.asarray(rows)
        total = self.noise + (np.zeros(len(rows)) if self.posterior is None else self.posterior.variance(rows))
        if self._learned is not None:
            total = total - np.square(self._learned[rows]).sum(axis=1) + self._level_variance
        return np.maximum(total, 1e-9)

    def variance_of_difference(self, i: int, j: int) -> float:
        """Variance of the difference between the results of two checkpoints, at rows `i` and `j`."""
        rows = np.array([i, j])
        joint = self._with_noise(rows, rows)
        if self._learned is not None:
            joint = joint - self._learned[rows] @ self._learned[rows].T
        return max(float(joint[0, 0] + joint[1, 1] - 2.0 * joint[0, 1]), 1e-9)

    def given(self, measured: Mapping[str, Score], level_variance: float = LEVEL_VARIANCE) -> Prediction:
        """Condition on scores measured on this task.

        The numbers of right answers are binomial. Their likelihood is replaced by the normal one that agrees with it at
        the posterior mode (Laplace's method: Rasmussen and Williams 2006, section 3.4). Taken at the measured accuracy
        instead, it would trust least what surprises most: few images all right, or all wrong.

        Parameters
        ----------
        measured
            By checkpoint; those that are not among `ids` raise.
        level_variance
            Prior variance of the task's level.

        Raises
        ------
        MetricError
            A measured checkpoint is not among the candidates.
        """
        position = {name: i for i, name in enumerate(self.ids)}
        if missing := [name for name in measured if name not in position]:
            raise MetricError(f"measured checkpoints that are not among the candidates: {', '.join(missing)}")
        at = np.array([position[name] for name in measured], dtype=np.int64)
        share = np.array([m.smoothed for m in measured.values()])
        n = np.array([m.trials for m in measured.values()]) / (1.0 - SHARED_ERROR)
        cross = self._with_noise(np.arange(len(self.ids)), at)
        before = cross[at] + level_variance
        excess, error = _normal_likelihood((self.prior + self.residual)[at], before, share, n)
        inner = before + np.diag(error)
        solved = np.linalg.solve(inner, excess)
        return replace(
            self,
            level=float(level_variance * solved.sum()),
            update=cross @ solved,
            measured=True,
            _learned=np.linalg.solve(np.linalg.cholesky(inner), (cross + level_variance).T).T,
            _level_variance=level_variance,
        )

    def _with_noise(self, rows: Rows, columns: Rows) -> Array:
        noise: Array = self.noise * (rows[:, None] == columns)
        return noise if self.posterior is None else noise + self.posterior.covariance(rows, columns)


def _normal_likelihood(mean: Array, covariance: Array, share: Array, n: Array) -> tuple[Array, Array]:
    """Normal observations that agree with binomial ones at the posterior mode of their logits.

    Newton's method on a concave function, with halved steps where a whole one leads down.

    Parameters
    ----------
    mean, covariance
        Prior of the m logits, shapes (m,) and (m, m).
    share, n
        Shares of right answers, in (0, 1), and of how many.

    Returns
    -------
    tuple of ndarray
        How far the equivalent observations lie above `mean`, and their variances, shapes (m,).
    """
    from scipy.special import expit, log_expit

    def log_posterior(weights: Array) -> float:
        f = mean + covariance @ weights
        likelihood = n * (share * log_expit(f) + (1.0 - share) * log_expit(-f))
        return float(likelihood.sum() - 0.5 * weights @ covariance @ weights)

    def equivalent(weights: Array) -> tuple[Array, Array]:
        shift = covariance @ weights
        right = expit(mean + shift)
        spread = np.maximum(right * expit(-mean - shift), 1e-12)
        return shift + (share - right) / spread, 1.0 / (n * spread)

    weights, excess, error = np.zeros(len(mean)), *equivalent(np.zeros(len(mean)))
    for _ in range(_NEWTON_STEPS):
        step = np.linalg.solve(covariance + np.diag(error), excess) - weights
        least = log_posterior(weights)
        while log_posterior(weights + step) < least and np.abs(step).max() > 1e-12:
            step = 0.5 * step
        weights = weights + step
        excess, error = equivalent(weights)
        if np.abs(covariance @ step).max() < 1e-10:
            break
    return excess, error

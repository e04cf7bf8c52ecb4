"""A metric's prediction for one task, and what measurements on that very task make of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from hf_task2vec.errors import MetricError

Array = NDArray[np.float64]
Rows = NDArray[np.int64]
# Far more than are needed, unless something is wrong with the numbers.
_NEWTON_STEPS = 100
#: Share of the sampling error that checkpoints measured on the same images have in common, because they fail on the
#: same ones (mean correlation of right answers among a task's six best checkpoints: ``benchmarks/selection.py``). It
#: moves all of them alike, so it belongs to the task's level, and only the rest blurs the differences.
SHARED_ERROR = 0.47
#: Prior variance of a task's level, in squared logits: so wide that one measurement tells of the level alone. A tighter
#: one would take a hard task for a weakness of whatever was measured first.
LEVEL_VARIANCE = 1e3


@dataclass(frozen=True)
class Measured:
    """An accuracy measured on a task, or another score in [0, 1] (of multi-label tasks the mAP).

    Attributes
    ----------
    accuracy
        Share of right answers, in [0, 1].
    n
        Images it was measured on, ≥ 1; of another score see `with_std_error`.
    """

    accuracy: float
    n: int

    def __post_init__(self) -> None:
        if not 0.0 <= self.accuracy <= 1.0 or self.n < 1:
            raise MetricError(f"accuracy={self.accuracy!r} on n={self.n!r} images: give one in [0, 1] on at least 1")

    @property
    def smoothed(self) -> float:
        """Share of right answers with half an image added to either side, so that its logit is finite."""
        return (self.accuracy * self.n + 0.5) / (self.n + 1.0)

    @classmethod
    def with_std_error(cls, score: float, std_error: float) -> Measured:
        """Return a score that is no share of right answers, such as a mAP, as one of equal standard error.

        `n` is the number of images on which a share of right answers as large has that standard error, by the
        Agresti-Coull rule of :class:`~hf_task2vec.transferability.Predictions`.

        Parameters
        ----------
        score
            In [0, 1].
        std_error
            Above 0.
        """

        def error(n: float) -> float:
            share = (score * n + 2.0) / (n + 4.0)
            return float(np.sqrt(share * (1.0 - share) / (n + 4.0)))

        low, high = 1.0, 1e9
        if not error(high) < std_error < error(low):
            return cls(score, int(low if std_error >= error(low) else high))
        while high - low > 1e-3:
            middle = (low + high) / 2.0
            low, high = (middle, high) if error(middle) > std_error else (low, middle)
        return cls(score, max(round(low), 1))

    @classmethod
    def by_probe(cls, descriptors: Mapping[str, float]) -> Measured:
        """Return what the probe itself reaches on an embedded task: its mAP where that is known, else its accuracy.

        Parameters
        ----------
        descriptors
            Of the embedding: see :func:`~hf_task2vec.descriptors.describe_task`.
        """
        if "probe_map" in descriptors:
            return cls.with_std_error(descriptors["probe_map"], descriptors["probe_map_std_error"])
        return cls(descriptors["probe_accuracy"], max(int(descriptors["n_samples"]), 1))


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
    covariance
        Gives the covariance of the means of two sets of rows.
    noise
        Variance of a checkpoint's result on the task about what the model can know.
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
    covariance: Callable[[Rows, Rows], Array]
    noise: float
    level: float = 0.0
    update: Array | float = 0.0
    measured: bool = False
    _learned: Callable[[Rows], Array] | None = field(default=None, repr=False)
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
        total = np.diag(self.covariance(rows, rows)) + self.noise
        if self._learned is not None:
            total = total - np.square(self._learned(rows)).sum(axis=1) + self._level_variance
        return np.maximum(total, 1e-9)

    def variance_of_difference(self, i: int, j: int) -> float:
        """Variance of the difference between the results of two checkpoints, at rows `i` and `j`."""
        rows = np.array([i, j])
        joint = self._with_noise(rows, rows)
        if self._learned is not None:
            joint = joint - self._learned(rows) @ self._learned(rows).T
        return max(float(joint[0, 0] + joint[1, 1] - 2.0 * joint[0, 1]), 1e-9)

    def given(self, measured: Mapping[str, Measured], level_variance: float = LEVEL_VARIANCE) -> Prediction:
        """Condition on accuracies measured on this task.

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
        n = np.array([m.n for m in measured.values()], dtype=np.float64) / (1.0 - SHARED_ERROR)
        cross = self._with_noise(np.arange(len(self.ids)), at)
        before = self._with_noise(at, at) + level_variance
        excess, error = _normal_likelihood((self.prior + self.residual)[at], before, share, n)
        inner = before + np.diag(error)
        solved = np.linalg.solve(inner, excess)
        level = float(level_variance * solved.sum())
        root = np.linalg.cholesky(inner)

        def learned(rows: Rows) -> Array:
            found: Array = np.linalg.solve(root, (cross[rows] + level_variance).T).T
            return found

        update = cross @ solved
        return replace(
            self, level=level, update=update, measured=True, _learned=learned, _level_variance=level_variance
        )

    def _with_noise(self, rows: Rows, columns: Rows) -> Array:
        return self.covariance(rows, columns) + self.noise * (rows[:, None] == columns[None, :])


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

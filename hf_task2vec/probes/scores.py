"""Scores of frozen features: how well a linear probe solves a task with them. Pure functions of arrays."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Labels = NDArray[np.int64]

#: Ridge penalties tried, as multiples of the mean eigenvalue of the features' Gram matrix.
RIDGE_GRID = tuple(float(x) for x in np.logspace(-4, 2, 13))
_RESAMPLES = 100


@dataclass(frozen=True)
class Score:
    """A score measured on a task: a share of right answers, or of tasks with several labels an image the mAP.

    Attributes
    ----------
    value
        In [0, 1].
    std_error
        Its standard error, above 0.
    n
        Images it was measured on.
    """

    value: float
    std_error: float
    n: int

    @classmethod
    def of_share(cls, value: float, n: int) -> Score:
        """Return a share of right answers among `n` images; its error is that of :func:`_share_error`."""
        return cls(value, _share_error(value, n), n)

    @cached_property
    def trials(self) -> float:
        """How many images a share of right answers of this value and standard error would be of, at least 1."""
        if self.std_error >= _share_error(self.value, 1.0):
            return 1.0
        # Squared, that error is a cubic equation in n + 4, with one root of 5 or more.
        odd = (1.0 - 2.0 * self.value) ** 2
        roots = np.roots([self.std_error**2, -self.value * (1.0 - self.value), -2.0 * odd, 4.0 * odd])
        return float(roots.real.max()) - 4.0

    @property
    def smoothed(self) -> float:
        """The value with half a right and half a wrong answer added, so that its logit is finite."""
        return (self.value * self.trials + 0.5) / (self.trials + 1.0)


def _share_error(share: float, n: float) -> float:
    """Standard error of a share of `n`; never 0, by the Agresti-Coull rule of two added successes and failures."""
    p = (share * n + 2.0) / (n + 4.0)
    return float(np.sqrt(p * (1.0 - p) / (n + 4.0)))


def ridge_leave_one_out(features: Array, labels: Labels, grid: tuple[float, ...] = RIDGE_GRID) -> NDArray[np.bool_]:
    """Whether a linear probe that has not seen an example classifies it rightly, shape (N,)."""
    classes, inverse = np.unique(labels, return_inverse=True)
    scores = ridge_predictions(features, np.eye(len(classes))[inverse], grid)
    return np.asarray(scores.argmax(axis=1) == inverse)


def ridge_predictions(features: Array, targets: Array, grid: tuple[float, ...] = RIDGE_GRID) -> Array:
    """Leave-one-out predictions of a ridge regression on any targets, shape (N, C), in closed form.

    With the hat matrix H = 11ᵀ/N + K(K + λI)⁻¹ of the centred Gram matrix K, the prediction for an example by the
    model trained on all others is ``y − (y − Hy)/(1 − h)`` exactly (Allen's PRESS identity). λ is the one of least
    leave-one-out squared error, over all targets.

    The predictions replace the intercept's means among the others by those of the sample, adding ``(y − ȳ)/(N − 1)``.
    Leaving an example out makes its own class rarer, so that on balanced classes weak features would be judged far
    below chance.

    Parameters
    ----------
    features
        Shape (N, d).
    targets
        Shape (N, C): zeros and ones for labels, any numbers for a regression.
    grid
        Penalties relative to the mean non-zero eigenvalue.
    """
    x = np.asarray(features, dtype=np.float64)
    x = x - x.mean(axis=0)
    n = len(x)
    y = np.asarray(targets, dtype=np.float64)
    eigenvalues, q = np.linalg.eigh(x @ x.T)
    eigenvalues = np.maximum(eigenvalues, 0.0)
    scale = float(eigenvalues.sum()) / max(1, min(n - 1, x.shape[1]))
    if scale == 0.0:
        scale = 1.0
    projected, squares = q.T @ y, q**2
    best: tuple[float, Array] | None = None
    for penalty in grid:
        shrink = eigenvalues / (eigenvalues + penalty * scale)
        fitted = q @ (shrink[:, None] * projected) + y.mean(axis=0)
        leverage = np.minimum(squares @ shrink + 1.0 / n, 1.0 - 1e-9)
        residual = (y - fitted) / (1.0 - leverage[:, None])
        error = float(np.mean(residual**2))
        if best is None or error < best[0]:
            best = (error, y - residual)
    assert best is not None
    return best[1] + (y - y.mean(axis=0)) / max(1, n - 1)


def average_precisions(present: NDArray[np.bool_], scores: Array) -> Array:
    """Average precision of each label, from (N, C) arrays; NaN for labels that no example or every example carries."""
    from sklearn.metrics import average_precision_score

    varies = np.ptp(present.astype(np.int8), axis=0) > 0
    return np.array(
        [average_precision_score(present[:, c], scores[:, c]) if varies[c] else np.nan for c in range(present.shape[1])]
    )


def mean_average_precision(present: NDArray[np.bool_], scores: Array) -> Score:
    """Mean average precision over the labels that vary (macro average); at least one must.

    Its standard error is that of a bootstrap over examples, and at least that of a share of as many decisions as labels
    are carried.
    """
    known = average_precisions(present, scores)
    value, n = float(np.nanmean(known)), len(scores)
    varies = np.flatnonzero(~np.isnan(known))
    order = np.argsort(-scores[:, varies], axis=0)
    hits = np.take_along_axis(present[:, varies], order, axis=0)
    drawn = []
    for times in np.random.default_rng(0).multinomial(n, np.full(n, 1.0 / n), _RESAMPLES):
        found = times[order] * hits
        total: Array = found.sum(axis=0)
        precision = found.cumsum(axis=0) / np.maximum(times[order].cumsum(axis=0), 1)  # ties aside
        if total.any():
            drawn.append(((found * precision).sum(axis=0)[total > 0] / total[total > 0]).mean())
    return Score(value, max(float(np.std(drawn)), _share_error(value, int(hits.sum()))), n)

"""How well frozen features separate a task's classes: linear probe, k-NN, LogME, H-score. Pure functions of arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hf_task2vec.average_precision import LabelScores

Array = NDArray[np.float64]
Labels = NDArray[np.int64]

#: Ridge penalties tried, as multiples of the mean eigenvalue of the features' Gram matrix.
RIDGE_GRID = tuple(float(x) for x in np.logspace(-4, 2, 13))


@dataclass(frozen=True, eq=False)
class Predictions:
    """Out-of-sample decisions of a classifier.

    Attributes
    ----------
    correct
        Shape (N,), bool: whether each example was classified rightly without having been trained on.
    """

    correct: NDArray[np.bool_]

    @property
    def accuracy(self) -> float:
        """Share of right decisions, in [0, 1]."""
        return float(self.correct.mean())

    @property
    def std_error(self) -> float:
        """Standard error of the accuracy; never 0, by the Agresti-Coull rule of two added successes and failures."""
        n = len(self.correct)
        p = (self.correct.sum() + 2.0) / (n + 4.0)
        return float(np.sqrt(p * (1.0 - p) / (n + 4.0)))


def ridge_leave_one_out(features: Array, labels: Labels, grid: tuple[float, ...] = RIDGE_GRID) -> Predictions:
    """Leave-one-out decisions of a linear probe: the largest of :func:`ridge_scores`."""
    return Predictions(ridge_scores(features, labels, grid).argmax(axis=1) == np.unique(labels, return_inverse=True)[1])


def ridge_scores(features: Array, labels: Labels, grid: tuple[float, ...] = RIDGE_GRID) -> Array:
    """Leave-one-out scores of a ridge regression on one-hot labels, shape (N, classes present), in closed form.

    Parameters
    ----------
    features
        Shape (N, d).
    labels
        Shape (N,), integers.
    grid
        As in :func:`ridge_predictions`.
    """
    classes, inverse = np.unique(labels, return_inverse=True)
    return ridge_predictions(features, np.eye(len(classes))[inverse], grid)


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


def knn_leave_one_out(features: Array, labels: Labels, k: int = 5) -> Predictions:
    """Leave-one-out decisions of the k nearest neighbours by cosine similarity of the centred features.

    A neighbour of similarity s votes with weight exp(s).
    """
    nearest, weights = _neighbours(features, k)
    classes, inverse = np.unique(labels, return_inverse=True)
    votes = np.zeros((len(nearest), len(classes)))
    np.add.at(votes, (np.arange(len(nearest))[:, None], inverse[nearest]), weights)
    return Predictions(votes.argmax(axis=1) == inverse)


def knn_label_scores(features: Array, labels: Labels, k: int = 5) -> LabelScores:
    """Leave-one-out scores of :func:`knn_leave_one_out` for 0/1 labels: the share of the votes for each, (N, C)."""
    nearest, weights = _neighbours(features, k)
    votes = np.einsum("nk,nkc->nc", weights, labels[nearest].astype(np.float64))
    return LabelScores(labels > 0, votes / weights.sum(axis=1, keepdims=True))


def _neighbours(features: Array, k: int) -> tuple[NDArray[np.int64], Array]:
    """Return the k nearest of the other examples and the weights of their votes, both of shape (N, k)."""
    x = np.asarray(features, dtype=np.float64)
    x = x - x.mean(axis=0)
    x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    similarity = x @ x.T
    np.fill_diagonal(similarity, -np.inf)
    k = min(k, len(x) - 1)
    nearest = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
    return nearest, np.exp(np.take_along_axis(similarity, nearest, axis=1))


def ridge_label_scores(features: Array, labels: Labels) -> LabelScores:
    """Leave-one-out scores of a linear probe for 0/1 labels, shape (N, C), several an example."""
    return LabelScores(labels > 0, ridge_predictions(features, labels.astype(np.float64)))


def logistic_test(
    train: Array, train_labels: Labels, test: Array, test_labels: Labels, *, seed: int = 0
) -> Predictions:
    """Test-split decisions of an L2 logistic regression trained on the train split, λ by cross-validation there."""
    from hf_task2vec.head import cross_validated_accuracy, fit_head

    classes = int(max(train_labels.max(), test_labels.max())) + 1
    strengths = (1e-4, 1e-3, 1e-2, 1e-1)
    scores = [cross_validated_accuracy(train, train_labels, classes, folds=3, l2=l2, seed=seed) for l2 in strengths]
    head = fit_head(train, train_labels, classes, l2=strengths[int(np.argmax(scores))])
    return Predictions(head.predict(np.asarray(test, dtype=np.float64)) == test_labels)


def logme(features: Array, labels: Labels, *, max_iterations: int = 100) -> float:
    """Logarithm of maximum evidence per example and class (You et al. 2021, arXiv 2102.11005); higher is better.

    Each one-hot column is a Bayesian linear regression whose prior precision α and noise precision β are set by the
    fixed-point iteration of the paper's algorithm 3. Features that are all zero give -inf.
    """
    f = np.asarray(features, dtype=np.float64)
    n, d = f.shape
    if not f.any():
        return -np.inf
    u, s, _ = np.linalg.svd(f, full_matrices=False)
    sigma = s**2
    classes, inverse = np.unique(labels, return_inverse=True)
    evidences = []
    for c in range(len(classes)):
        y = (inverse == c).astype(np.float64)
        z2 = (u.T @ y) ** 2
        outside = max(float(y @ y - z2.sum()), 0.0)
        alpha, beta = 1.0, 1.0
        for _ in range(max_iterations):
            t = alpha / beta
            m2 = float(np.sum(sigma * z2 / (t + sigma) ** 2))
            gamma = float(np.sum(sigma / (sigma + t)))
            error = float(np.sum(z2 / (1.0 + sigma / t) ** 2)) + outside
            alpha, beta = gamma / (m2 + 1e-12), (n - gamma) / (error + 1e-12)
            if abs(alpha / beta - t) <= 1e-3 * t:
                break
        t = alpha / beta
        m2 = float(np.sum(sigma * z2 / (t + sigma) ** 2))
        error = float(np.sum(z2 / (1.0 + sigma / t) ** 2)) + outside
        log_determinant = float(np.sum(np.log(alpha + beta * sigma))) + (d - len(sigma)) * np.log(alpha)
        evidence = 0.5 * (
            d * np.log(alpha) + n * np.log(beta) - beta * error - alpha * m2 - log_determinant - n * np.log(2.0 * np.pi)
        )
        evidences.append(evidence / n)
    return float(np.mean(evidences))


def h_score(features: Array, labels: Labels) -> float:
    """H-score with Ledoit-Wolf shrinkage (Bao et al. 2019; Ibrahim et al. 2021, arXiv 2110.06893); higher is better.

    ``tr(Σ⁻¹ Σ_between)`` with the shrunk covariance of the features, computed in the examples' space.
    """
    from sklearn.covariance import ledoit_wolf_shrinkage

    f = np.asarray(features, dtype=np.float64)
    f = f - f.mean(axis=0)
    n, d = f.shape
    shrinkage = float(ledoit_wolf_shrinkage(f, assume_centered=True))
    _, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    means = np.zeros((len(counts), d))
    np.add.at(means, inverse, f)
    means /= counts[:, None]
    # Σ = (1−ρ) FᵀF/n + ρ μ I is inverted through its eigenvectors.
    _, s, vt = np.linalg.svd(f, full_matrices=False)
    if not s.any():
        return 0.0
    vt, s = vt[s > 1e-12 * s[0]], s[s > 1e-12 * s[0]]
    floor = shrinkage * float(np.sum(s**2)) / (n * d)
    projected = means @ vt.T
    # Class means lie in the span of the features, so the rest of the space adds nothing.
    inside = np.sum(projected**2 / ((1.0 - shrinkage) * s**2 / n + floor), axis=1)
    return float((1.0 - shrinkage) * np.sum(counts / n * inside))

"""Other scores of frozen features, which a table of the docs compares the linear probe with: pure functions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hf_task2vec.probes.scores import Score

Array = NDArray[np.float64]
Labels = NDArray[np.int64]


def other_scores(features: NDArray[np.float32], labels: Labels) -> dict[str, float]:
    """Columns of matrix.csv beside the linear probe's."""
    x = features.astype(np.float64)
    right = knn_leave_one_out(x, labels)
    knn = Score.of_share(float(right.mean()), len(right))
    return {"knn": knn.value, "knn_se": knn.std_error, "logme": logme(x, labels), "h_score": h_score(x, labels)}


def knn_leave_one_out(features: Array, labels: Labels, k: int = 5) -> NDArray[np.bool_]:
    """Whether the k nearest others, by cosine similarity of the centred features, classify each example rightly.

    A neighbour of similarity s votes with weight exp(s).
    """
    nearest, weights = _neighbours(features, k)
    classes, inverse = np.unique(labels, return_inverse=True)
    votes = np.zeros((len(nearest), len(classes)))
    np.add.at(votes, (np.arange(len(nearest))[:, None], inverse[nearest]), weights)
    return votes.argmax(axis=1) == inverse


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
    eigenvalues = s**2
    evidences = []
    for c in np.unique(labels):
        y = (labels == c).astype(np.float64)
        inside = (u.T @ y) ** 2
        outside = max(float(y @ y - inside.sum()), 0.0)
        alpha, beta = 1.0, 1.0
        for _ in range(max_iterations):
            t = alpha / beta
            norm, error = _norm_and_error(t, eigenvalues, inside, outside)
            gamma = float(np.sum(eigenvalues / (eigenvalues + t)))
            alpha, beta = gamma / (norm + 1e-12), (n - gamma) / (error + 1e-12)
            if abs(alpha / beta - t) <= 1e-3 * t:
                break
        norm, error = _norm_and_error(alpha / beta, eigenvalues, inside, outside)
        log_determinant = np.sum(np.log(alpha + beta * eigenvalues)) + (d - len(s)) * np.log(alpha)
        fit = d * np.log(alpha) + n * np.log(beta) - beta * error - alpha * norm
        evidences.append(0.5 * (fit - log_determinant - n * np.log(2.0 * np.pi)) / n)
    return float(np.mean(evidences))


def _norm_and_error(t: float, eigenvalues: Array, inside: Array, outside: float) -> tuple[float, float]:
    """Squared norm of the posterior mean and squared error, with α/β = t."""
    shrunk = inside / (t + eigenvalues) ** 2
    return float(np.sum(eigenvalues * shrunk)), float(np.sum(t**2 * shrunk)) + outside


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

"""The scores that benchmarks compare the linear probe with, against brute force and the papers' formulas."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.selection.transferability import h_score, knn_leave_one_out, logme
from tests.support.synthetic import blobs

few = settings(max_examples=25, deadline=None)


def neighbours(x: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    x = x - x.mean(0)
    correct = []
    for i in range(len(x)):
        cosine = [float(x[i] @ v / np.linalg.norm(x[i]) / np.linalg.norm(v)) for v in x]
        others = sorted((j for j in range(len(x)) if j != i), key=lambda j: -cosine[j])[:k]
        votes = {c: sum(np.exp(cosine[j]) for j in others if labels[j] == c) for c in set(labels.tolist())}
        correct.append(max(sorted(votes), key=lambda c: votes[c]) == labels[i])
    return np.array(correct)


@few
@given(n=st.integers(4, 25), d=st.integers(2, 6), k=st.integers(1, 30), seed=st.integers(0, 99))
def test_nearest_neighbours_by_brute_force(n: int, d: int, k: int, seed: int) -> None:
    features, labels = blobs(n, d, seed=seed)
    actual = knn_leave_one_out(features, labels, k=k)
    np.testing.assert_array_equal(actual, neighbours(features, labels, k))


def evidence(f: np.ndarray, y: np.ndarray, alpha: float, beta: float) -> float:
    """Log density of y ~ N(0, FFᵀ/α + I/β): the evidence that LogME maximises, without any of its algebra."""
    from scipy.stats import multivariate_normal

    covariance = f @ f.T / alpha + np.eye(len(y)) / beta
    return float(multivariate_normal(cov=covariance).logpdf(y))


def logme_of_the_paper(f: np.ndarray, labels: np.ndarray) -> float:
    """Algorithm 1 of You et al. 2021, with matrices written out, iterated to convergence."""
    n, d = f.shape
    scores = []
    for c in np.unique(labels):
        y = (labels == c).astype(float)
        alpha = beta = 1.0
        for _ in range(2000):
            a = alpha * np.eye(d) + beta * f.T @ f
            m = beta * np.linalg.solve(a, f.T @ y)
            eigenvalues = np.linalg.eigvalsh(beta * f.T @ f).clip(min=0)
            gamma = np.sum(eigenvalues / (alpha + eigenvalues))
            alpha, beta = gamma / (m @ m), (n - gamma) / np.sum((f @ m - y) ** 2)
        scores.append(evidence(f, y, alpha, beta) / n)
    return float(np.mean(scores))


@pytest.mark.parametrize(("n", "d"), [(30, 4), (40, 12), (15, 15), (12, 20)])
@pytest.mark.parametrize("seed", [0, 1])
def test_logme_equals_the_papers_algorithm(n: int, d: int, seed: int) -> None:
    features, labels = blobs(n, d, spread=0.8, seed=seed)
    # Ours stops when α/β changes by less than 0.1 %, near a maximum: the value agrees far more closely.
    assert logme(features, labels) == pytest.approx(logme_of_the_paper(features, labels), abs=1e-4)


@pytest.mark.parametrize(("n", "d"), [(60, 5), (20, 50), (30, 30), (40, 1)])
def test_h_score_equals_the_direct_formula(n: int, d: int) -> None:
    from sklearn.covariance import ledoit_wolf

    features, labels = blobs(n, d, spread=0.7)
    covariance, shrinkage = ledoit_wolf(features)
    means = np.stack([features[labels == c].mean(0) for c in labels])
    between = np.cov(means.T, bias=True).reshape(d, d)
    expected = (1 - shrinkage) * np.trace(np.linalg.solve(covariance, between))
    assert h_score(features, labels) == pytest.approx(expected, rel=1e-9)

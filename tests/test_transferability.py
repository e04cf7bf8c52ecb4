"""Scores of frozen features against refits, brute force and the papers' formulas."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_task2vec.transferability import (
    Predictions,
    h_score,
    knn_leave_one_out,
    logistic_test,
    logme,
    ridge_leave_one_out,
    ridge_scores,
)

few = settings(max_examples=25, deadline=None)


def blobs(n: int, d: int, c: int = 3, *, spread: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % c)
    return spread * rng.normal(size=(c, d))[labels] + rng.normal(size=(n, d)) + 1.0, labels


# Ridge.


def refits(x: np.ndarray, y: np.ndarray, penalty: float) -> tuple[np.ndarray, np.ndarray]:
    """Predictions for each example by a ridge regression with intercept, fitted on all others.

    Second, the same with the class frequencies of all examples in the intercept.
    """
    rows, decisions = [], []
    for i in range(len(x)):
        keep = np.arange(len(x)) != i
        design = np.column_stack([x[keep], np.ones(keep.sum())])
        penalties = penalty * np.eye(design.shape[1])
        penalties[-1, -1] = 0.0
        rows.append(np.append(x[i], 1.0) @ np.linalg.solve(design.T @ design + penalties, design.T @ y[keep]))
        decisions.append(rows[-1] - y[keep].mean(0) + y.mean(0))
    return np.array(rows), np.array(decisions)


@pytest.mark.parametrize(("n", "d"), [(30, 4), (12, 40), (9, 9)])
@pytest.mark.parametrize("penalty", [1e-3, 1.0, 50.0])
def test_ridge_equals_explicit_refits(n: int, d: int, penalty: float) -> None:
    features, labels = blobs(n, d)
    centred = features - features.mean(0)
    scale = np.trace(centred @ centred.T) / min(n - 1, d)
    _, expected = refits(features, np.eye(3)[labels], penalty * scale)
    np.testing.assert_allclose(ridge_scores(features, labels, (penalty,)), expected, rtol=1e-9, atol=1e-9)
    result = ridge_leave_one_out(features, labels, grid=(penalty,))
    np.testing.assert_array_equal(result.correct, expected.argmax(1) == labels)


def test_ridge_takes_the_penalty_of_least_error() -> None:
    features, labels = blobs(40, 30, spread=0.7)
    y = np.eye(3)[labels]
    centred = features - features.mean(0)
    scale = np.trace(centred @ centred.T) / 30
    grid = (1e-3, 1e-1, 1.0, 100.0)
    candidates = [refits(features, y, penalty * scale) for penalty in grid]
    best = int(np.argmin([np.mean((y - predicted) ** 2) for predicted, _ in candidates]))
    assert 0 < best < 3
    expected = candidates[best][1].argmax(1) == labels
    np.testing.assert_array_equal(ridge_leave_one_out(features, labels, grid).correct, expected)
    others = [decisions.argmax(1) == labels for _, decisions in candidates]
    assert any((other != expected).any() for other in others), "the choice would not show"


@pytest.mark.parametrize("classes", [2, 5, 30])
def test_ridge_on_noise_is_at_chance(classes: int) -> None:
    # With balanced classes, the frequencies among the others alone would make every decision wrong.
    accuracy = []
    for seed in range(5):
        noise = np.random.default_rng(seed).normal(size=(120, 50))
        accuracy.append(ridge_leave_one_out(noise, np.arange(120) % classes).accuracy)
    chance = 1 / classes
    assert abs(np.mean(accuracy) - chance) < 4 * np.sqrt(chance * (1 - chance) / 600)


# k nearest neighbours.


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
    actual = knn_leave_one_out(features, labels, k=k).correct
    np.testing.assert_array_equal(actual, neighbours(features, labels, k))


@pytest.mark.parametrize("judge", [ridge_leave_one_out, knn_leave_one_out])
def test_classifiers_on_separable_and_on_random_labels(judge: object) -> None:
    assert callable(judge)
    features, labels = blobs(90, 20, spread=8.0)
    assert judge(features, labels).accuracy == 1.0
    assert judge(features, labels + 5).accuracy == 1.0, "labels need not start at 0"
    noise = np.random.default_rng(3).normal(size=(300, 20))
    assert 0.2 < judge(noise, np.arange(300) % 3).accuracy < 0.46  # chance 0.33, standard deviation 0.027


@pytest.mark.parametrize("judge", [ridge_leave_one_out, knn_leave_one_out])
def test_classifiers_accept_constant_features_and_single_members(judge: object) -> None:
    assert callable(judge)
    constant = judge(np.ones((6, 3)), np.array([0, 0, 0, 1, 1, 2]))
    assert constant.correct.shape == (6,)
    features, labels = blobs(9, 4, spread=5.0)
    labels[0] = 7
    assert not judge(features, labels).correct[0], "an example whose class nobody else has cannot be right"


def test_logistic_regression_judged_on_a_test_split() -> None:
    features, labels = blobs(120, 10, spread=6.0)
    result = logistic_test(features[:80], labels[:80], features[80:], labels[80:])
    assert result.correct.shape == (40,)
    assert result.accuracy == 1.0
    wrong = logistic_test(features[:80], labels[:80], features[80:], (labels[80:] + 1) % 3)
    assert wrong.accuracy == 0.0


def test_standard_error() -> None:
    def error(right: int, n: int) -> float:
        return Predictions(np.arange(n) < right).std_error

    assert Predictions(np.arange(10) < 7).accuracy == 0.7
    assert error(5, 10) == pytest.approx(np.sqrt(0.25 / 14))
    assert error(0, 10) == pytest.approx(error(10, 10))
    assert error(10, 10) > 0.05
    assert error(7, 10) == pytest.approx(np.sqrt(9 / 14 * 5 / 14 / 14))
    assert error(700, 1000) == pytest.approx(np.sqrt(0.7 * 0.3 / 1000), rel=0.01)


# LogME.


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


def test_logme_is_the_maximum_of_the_evidence() -> None:
    from scipy.optimize import minimize

    features, labels = blobs(40, 6, c=2, spread=0.5)
    best = [
        -minimize(lambda t, y=(labels == c) * 1.0: -evidence(features, y, *np.exp(t)), [0.0, 0.0], tol=1e-9).fun / 40
        for c in (0, 1)
    ]
    assert logme(features, labels) == pytest.approx(np.mean(best), abs=1e-5)


def test_logme_rises_with_separation() -> None:
    scores = [logme(*blobs(90, 10, spread=spread)) for spread in (0.0, 0.5, 1.0, 3.0)]
    assert scores == sorted(scores)
    assert scores[-1] - scores[0] > 0.3


def test_logme_on_degenerate_features() -> None:
    labels = np.arange(12) % 2
    assert logme(np.zeros((12, 3)), labels) == -np.inf
    constant = logme(np.ones((12, 3)), labels)
    assert np.isfinite(constant)
    separable = np.column_stack([labels, 1 - labels]).astype(float)
    assert np.isfinite(logme(separable, labels))
    assert logme(separable, labels) > constant


# H-score.


@pytest.mark.parametrize(("n", "d"), [(60, 5), (20, 50), (30, 30), (40, 1)])
def test_h_score_equals_the_direct_formula(n: int, d: int) -> None:
    from sklearn.covariance import ledoit_wolf

    features, labels = blobs(n, d, spread=0.7)
    covariance, shrinkage = ledoit_wolf(features)
    means = np.stack([features[labels == c].mean(0) for c in labels])
    between = np.cov(means.T, bias=True).reshape(d, d)
    expected = (1 - shrinkage) * np.trace(np.linalg.solve(covariance, between))
    assert h_score(features, labels) == pytest.approx(expected, rel=1e-9)


def test_h_score_without_shrinkage_is_at_most_classes_minus_one() -> None:
    features, labels = blobs(60, 4, spread=50.0)
    assert 1.8 < h_score(features, labels) <= 2.0


def test_h_score_rises_with_separation_and_accepts_constant_features() -> None:
    scores = [h_score(*blobs(90, 10, spread=spread)) for spread in (0.0, 0.5, 1.0, 3.0)]
    assert scores == sorted(scores)
    assert h_score(np.ones((10, 3)), np.arange(10) % 2) == 0.0


@few
@given(factor=st.floats(1e-3, 1e3), shift=st.floats(-10, 10))
def test_scores_do_not_depend_on_units(factor: float, shift: float) -> None:
    features, labels = blobs(30, 5)
    moved = factor * (features + shift)
    assert h_score(moved, labels) == pytest.approx(h_score(features, labels), rel=1e-6)
    np.testing.assert_array_equal(
        ridge_leave_one_out(moved, labels).correct, ridge_leave_one_out(features, labels).correct
    )
    np.testing.assert_array_equal(knn_leave_one_out(moved, labels).correct, knn_leave_one_out(features, labels).correct)

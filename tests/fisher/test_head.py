"""The linear head: its optimum, its accuracy on held-out folds, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_task2vec.errors import FisherError
from hf_task2vec.fisher.head import Head, fit_head


def blobs(n: int, d: int, c: int, *, spread: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % c
    return spread * rng.normal(size=(c, d))[labels] + rng.normal(size=(n, d)) + 3.0, labels


def loss(head: Head, features: np.ndarray, labels: np.ndarray, l2: float) -> float:
    """The objective of `fit_head`, straight from its definition."""
    scale = np.sqrt(np.mean(np.sum((features - features.mean(0)) ** 2, axis=1)))
    p = head.probabilities(features)
    if labels.ndim == 1:
        likelihood = np.log(p[np.arange(len(p)), labels]).mean()
    else:
        likelihood = np.where(labels == 1, np.log(p), np.log1p(-p)).sum(1).mean()
    return -likelihood + 0.5 * l2 * np.sum((head.weight * scale) ** 2)


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize(("n", "d"), [(60, 5), (40, 90)])
@pytest.mark.parametrize("l2", [1e-3, 1e-1])
def test_optimum_is_that_of_scikit_learn(classes: int, n: int, d: int, l2: float) -> None:
    from sklearn.linear_model import LogisticRegression

    features, labels = blobs(n, d, classes)
    head = fit_head(features, labels, classes, l2=l2)
    assert (head.weight.shape, head.bias.shape, head.likelihood) == ((classes, d), (classes,), "categorical")
    mean, scale = features.mean(0), np.sqrt(np.mean(np.sum((features - features.mean(0)) ** 2, axis=1)))
    x = (features - mean) / scale
    # For two classes scikit-learn fits one row w; two rows ±w/2 have half its penalty.
    strength = 1 / (l2 * n) if classes > 2 else 2 / (l2 * n)
    oracle = LogisticRegression(C=strength, tol=1e-10, max_iter=10_000).fit(x, labels)
    np.testing.assert_allclose(head.probabilities(features), oracle.predict_proba(x), atol=2e-4)
    weight = oracle.coef_ if classes > 2 else np.concatenate([-oracle.coef_, oracle.coef_]) / 2
    bias = oracle.intercept_ if classes > 2 else np.concatenate([-oracle.intercept_, oracle.intercept_]) / 2
    best = Head(weight / scale, bias - weight @ mean / scale)
    assert loss(head, features, labels, l2) <= loss(best, features, labels, l2) + 1e-7
    np.testing.assert_array_equal(head.predict(features), head.logits(features).argmax(1))


def gradient(head: Head, features: np.ndarray, targets: np.ndarray, l2: float) -> np.ndarray:
    """Gradient of the objective with respect to the standardised features' weight."""
    centred = features - features.mean(0)
    scale = np.sqrt(np.mean(np.sum(centred**2, axis=1)))
    residual = (head.probabilities(features) - targets) / len(features)
    return np.concatenate([(residual.T @ centred / scale + l2 * head.weight * scale).ravel(), residual.sum(0)])


@pytest.mark.parametrize(("n", "d"), [(50, 6), (20, 64), (20, 20)])
@pytest.mark.parametrize("l2", [1e-4, 1e-2])
def test_gradient_vanishes_at_the_fit(n: int, d: int, l2: float) -> None:
    features, labels = blobs(n, d, 4)
    head = fit_head(features, labels, 4, l2=l2)
    assert np.abs(gradient(head, features, np.eye(4)[labels], l2)).max() < 2e-5
    several = (np.random.default_rng(1).random((n, 3)) < 0.4).astype(np.uint8)
    head = fit_head(features, several, 3, l2=l2)
    assert head.likelihood == "bernoulli"
    assert np.abs(gradient(head, features, several, l2)).max() < 2e-5


def test_fewer_examples_than_dimensions_give_the_same_optimum(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = blobs(15, 40, 3)
    reduced = fit_head(features, labels, 3, l2=1e-2)
    # Copies of the examples leave the mean loss as it is, and take the other path.
    direct = fit_head(np.tile(features, (3, 1)), np.tile(labels, 3), 3, l2=1e-2)
    np.testing.assert_allclose(reduced.weight, direct.weight, atol=1e-5 * np.abs(direct.weight).max() + 1e-7)
    np.testing.assert_allclose(reduced.logits(features), direct.logits(features), atol=1e-3)
    # The optimum lies in the row space of the centred features.
    centred = features - features.mean(0)
    inside = reduced.weight @ np.linalg.pinv(centred) @ centred
    np.testing.assert_allclose(inside, reduced.weight, atol=1e-12)


@settings(max_examples=15, deadline=None)
@given(factor=st.floats(1e-6, 1e6), shift=st.floats(-100, 100))
def test_scale_and_offset_of_the_features_do_not_matter(factor: float, shift: float) -> None:
    features, labels = blobs(24, 4, 3)
    moved = (features + shift) * factor
    expected = fit_head(features, labels, 3, l2=1e-2).probabilities(features)
    np.testing.assert_allclose(fit_head(moved, labels, 3, l2=1e-2).probabilities(moved), expected, atol=1e-4)


def test_a_class_without_examples_is_unlikely() -> None:
    features, labels = blobs(30, 5, 3)
    head = fit_head(features, labels, 5)
    p = head.probabilities(features)
    assert p.shape == (30, 5)
    assert np.isfinite(p).all()
    assert p[:, 3:].max() < 0.01
    assert (head.predict(features) < 3).all()


def test_one_class_only() -> None:
    features, _ = blobs(10, 4, 2)
    head = fit_head(features, np.zeros(10, dtype=np.int64), 1)
    np.testing.assert_allclose(head.probabilities(features), 1)


def test_multi_label_with_a_label_that_is_never_or_always_set() -> None:
    features, _ = blobs(20, 4, 2, spread=10.0)
    labels = np.stack([np.zeros(20), np.ones(20), np.arange(20) % 2], axis=1).astype(np.uint8)
    head = fit_head(features, labels, 3)
    p = head.probabilities(features)
    assert p[:, 0].max() < 0.01
    assert p[:, 1].min() > 0.99
    np.testing.assert_array_equal(head.predict(features)[:, 2], labels[:, 2])


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, -1e6, 1e-30])
def test_constant_features_are_refused(value: float) -> None:
    features = np.full((12, 5), value, dtype=np.float32)
    with pytest.raises(FisherError, match=r"same features for all 12 images.*identical.*broken"):
        fit_head(features, np.arange(12) % 2, 2)


def test_features_that_differ_by_rounding_only_are_refused() -> None:
    noise = np.random.default_rng(0).choice([-1.0, 0.0, 1.0], size=(12, 5)) * np.finfo(np.float32).eps
    with pytest.raises(FisherError, match="same features for all 12 images"):
        fit_head(np.float32(3.0) * (1 + noise), np.arange(12) % 2, 2)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_non_finite_features_are_refused(bad: float) -> None:
    features, labels = blobs(12, 3, 2)
    features[5, 1] = bad
    with pytest.raises(FisherError, match="features are not finite; check its weights"):
        fit_head(features, labels, 2)

"""The linear head: its optimum, its accuracy on held-out folds, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_task2vec.errors import FisherError
from hf_task2vec.fisher.head import Head, fit_head
from tests.support.synthetic import blobs


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize(("n", "d"), [(60, 5), (40, 90)])
def test_optimum_is_that_of_scikit_learn(classes: int, n: int, d: int) -> None:
    from sklearn.linear_model import LogisticRegression

    features, labels = blobs(n, d, classes)
    head = fit_head(features, labels, classes, l2=1e-2)
    assert (head.weight.shape, head.bias.shape, head.likelihood) == ((classes, d), (classes,), "categorical")
    x = (features - features.mean(0)) / np.sqrt(features.var(0).sum())
    # For two classes scikit-learn fits one row w; two rows ±w/2 have half its penalty.
    strength = (1 if classes > 2 else 2) / (1e-2 * n)
    oracle = LogisticRegression(C=strength, tol=1e-10, max_iter=10_000).fit(x, labels)
    np.testing.assert_allclose(head.probabilities(features), oracle.predict_proba(x), atol=2e-4)
    np.testing.assert_array_equal(head.predict(features), oracle.predict(x))


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


@settings(max_examples=15, deadline=None)
@given(factor=st.floats(1e-6, 1e6), shift=st.floats(-100, 100))
def test_scale_and_offset_of_the_features_do_not_matter(factor: float, shift: float) -> None:
    features, labels = blobs(24, 4, 3)
    moved = (features + shift) * factor
    expected = fit_head(features, labels, 3, l2=1e-2).probabilities(features)
    np.testing.assert_allclose(fit_head(moved, labels, 3, l2=1e-2).probabilities(moved), expected, atol=1e-4)


def test_classes_without_examples_and_one_class_only() -> None:
    features, labels = blobs(30, 5, 3)
    head = fit_head(features, labels, 5)
    p = head.probabilities(features)
    assert p.shape == (30, 5)
    assert np.isfinite(p).all()
    assert p[:, 3:].max() < 0.01
    assert (head.predict(features) < 3).all()
    np.testing.assert_allclose(fit_head(features, np.zeros(30, dtype=np.int64), 1).probabilities(features), 1)


def test_multi_label_with_a_label_that_is_never_or_always_set() -> None:
    features, classes = blobs(20, 4, 2, spread=10.0)
    labels = np.stack([np.zeros(20), np.ones(20), classes], axis=1).astype(np.uint8)
    head = fit_head(features, labels, 3)
    p = head.probabilities(features)
    assert p[:, 0].max() < 0.01
    assert p[:, 1].min() > 0.99
    np.testing.assert_array_equal(head.predict(features)[:, 2], labels[:, 2])


ROUNDING = np.random.default_rng(0).choice([-1.0, 0.0, 1.0], size=(12, 5)) * np.finfo(np.float32).eps


@pytest.mark.parametrize(
    "features", [*(np.full((12, 5), value, np.float32) for value in (0.0, 0.1, -1e6, 1e-30)), 3.0 * (1 + ROUNDING)]
)
def test_equal_features_are_refused(features: np.ndarray) -> None:
    with pytest.raises(FisherError, match=r"same features for all 12 images.*identical.*broken"):
        fit_head(features, np.arange(12) % 2, 2)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_non_finite_features_are_refused(bad: float) -> None:
    features, labels = blobs(12, 3, 2)
    features[5, 1] = bad
    with pytest.raises(FisherError, match="features are not finite; check its weights"):
        fit_head(features, labels, 2)

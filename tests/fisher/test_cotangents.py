"""Cotangents: exact covariance, unbiased draws, and draws that belong to an example."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from hf_task2vec.fisher.cotangents import LIKELIHOODS, SAMPLINGS, logit_cotangents, sigmoid, softmax

logit_arrays = arrays(
    np.float64, array_shapes(min_dims=2, max_dims=2, max_side=7), elements=st.floats(-700, 700) | st.floats(-3, 3)
)
few = settings(max_examples=200, deadline=None)


def covariance(likelihood: str, logits: np.ndarray) -> np.ndarray:
    """The Fisher information in logit space, shape (N, C, C)."""
    if likelihood == "categorical":
        p = softmax(logits)
        return np.einsum("nc,cd->ncd", p, np.eye(p.shape[1])) - np.einsum("nc,nd->ncd", p, p)
    p = sigmoid(logits)
    return np.einsum("nc,cd->ncd", p * (1 - p), np.eye(p.shape[1]))


def outer(cotangents: np.ndarray) -> np.ndarray:
    return np.einsum("snc,snd->ncd", cotangents, cotangents)


def draw(likelihood: str, logits: np.ndarray, sampling: str, **options: Any) -> np.ndarray:
    return logit_cotangents(likelihood, logits, np.arange(len(logits)), sampling, **options)


@few
@given(logits=logit_arrays)
def test_probabilities(logits: np.ndarray) -> None:
    p = softmax(logits)
    assert ((p >= 0) & (p <= 1)).all()
    np.testing.assert_allclose(p.sum(1), 1, rtol=1e-14)
    np.testing.assert_allclose(sigmoid(logits) + sigmoid(-logits), 1, rtol=1e-15)


@few
@given(logits=logit_arrays, likelihood=st.sampled_from(LIKELIHOODS))
def test_exact_cotangents_have_the_fisher_information_as_covariance(logits: np.ndarray, likelihood: str) -> None:
    cotangents = draw(likelihood, logits, "exact")
    n, c = logits.shape
    assert cotangents.shape == (c - 1 if likelihood == "categorical" else c, n, c)
    np.testing.assert_allclose(outer(cotangents), covariance(likelihood, logits), rtol=0, atol=1e-12)


@few
@given(logits=logit_arrays, sampling=st.sampled_from(["sketch", "exact", "monte_carlo"]))
def test_categorical_cotangents_sum_to_zero(logits: np.ndarray, sampling: str) -> None:
    # Adding a constant to all logits changes nothing, so no gradient may point there.
    np.testing.assert_allclose(draw("categorical", logits, sampling).sum(2), 0, atol=1e-12)


LOGITS = np.array([[0.3, -1.0, 2.0, 0.0, -700.0], [0.0, 0.0, 0.0, 0.0, 0.0], [1.5, 1.0, -1.0, 0.2, 0.0]])


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("sampling", ["sketch", "monte_carlo"])
def test_random_cotangents_are_unbiased(likelihood: str, sampling: str) -> None:
    n = 20_000
    for logits in LOGITS:
        (cotangents,) = draw(likelihood, np.tile(logits, (n, 1)), sampling, seed=1)
        products = np.einsum("nc,nd->ncd", cotangents, cotangents)
        error = products.mean(0) - covariance(likelihood, logits[None])[0]
        # 75 entries: a fair estimator passes 4.5 standard errors once in about 4000 cotangents.
        assert (np.abs(error) <= 4.5 * products.std(0) / np.sqrt(n) + 1e-12).all()


def test_the_sketch_varies_less_than_drawn_labels() -> None:
    logits = np.repeat(np.random.default_rng(0).normal(size=(20, 10)), 500, axis=0)
    direction = np.random.default_rng(1).normal(size=10)

    def variance(sampling: str) -> float:
        squares = (draw("categorical", logits, sampling)[0] @ direction) ** 2
        return float(squares.reshape(20, 500).var(axis=1).mean())

    assert variance("sketch") < variance("monte_carlo")


def test_monte_carlo_draws_labels() -> None:
    logits = np.repeat(LOGITS, 50, axis=0)
    labels = draw("categorical", logits, "monte_carlo")[0] + softmax(logits)
    np.testing.assert_allclose(labels.max(1), 1, atol=1e-12)
    np.testing.assert_allclose(np.sort(labels, axis=1)[:, :-1], 0, atol=1e-12)
    assert not (labels[:50].argmax(1) == 4).any(), "a class of probability zero was drawn"


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_draws_depend_on_seed_and_id_only(likelihood: str, sampling: str) -> None:
    logits = np.random.default_rng(0).normal(size=(6, 4))
    ids = np.array([3, 11, 4, 0, 2**40, 5])
    together = logit_cotangents(likelihood, logits, ids, sampling, seed=7)
    order = np.array([5, 2, 0, 4, 1, 3])
    np.testing.assert_allclose(
        logit_cotangents(likelihood, logits[order], ids[order], sampling, seed=7), together[:, order], rtol=1e-12
    )
    for i in range(6):
        alone = logit_cotangents(likelihood, logits[i : i + 1], ids[i : i + 1], sampling, seed=7)
        np.testing.assert_allclose(alone, together[:, i : i + 1], rtol=1e-12)
    if sampling != "exact":
        same = np.zeros((64, 6))
        assert (draw(likelihood, same, sampling, seed=0) != draw(likelihood, same, sampling, seed=1)).any()
        assert len(np.unique(draw(likelihood, same, sampling, seed=0)[0], axis=0)) > 1, "each id draws its own"


def test_float32_logits_are_computed_in_float64() -> None:
    cotangents = draw("categorical", LOGITS.astype(np.float32), "exact")
    assert cotangents.dtype == np.float64

"""Logit-space factors of the Fisher information: what to back-propagate instead of sampled labels.

For a likelihood with logits ``z``, the Fisher information in logit space is a matrix ``Σ(z)``: ``diag(p) − ppᵀ`` for a
softmax (categorical), ``diag(p_c (1 − p_c))`` for independent sigmoids (Bernoulli, multi-label). Back-propagating
random vectors ``s`` with ``E[s sᵀ] = Σ`` and squaring per example gives the diagonal Fisher of the weights, unbiased.
The functions are pure NumPy in float64 and return shape ``(S, N, C)``: S vectors per example.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def softmax(logits: Array) -> Array:
    """Return class probabilities, shape (N, C)."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def sigmoid(logits: Array) -> Array:
    """Return independent label probabilities, shape (N, C)."""
    return 0.5 * (1.0 + np.tanh(0.5 * logits))


def householder_root(p: Array, v: Array) -> Array:
    """Map ``v`` through a square root of ``diag(p) − ppᵀ`` with one column fewer than classes.

    With r = √p, ``diag(p) − ppᵀ = diag(r)(I − rrᵀ)diag(r)``. The Householder reflection that takes r to −e_k (k the
    likeliest class) maps the coordinates other than k onto the complement of r.

    Parameters
    ----------
    p
        Probabilities, shape (N, C).
    v
        Coordinates, shape (S, N, C); component k of each is ignored.
    """
    rows = np.arange(len(p))
    k = p.argmax(axis=1)
    r = np.sqrt(p)
    u = r.copy()
    u[rows, k] += 1.0
    v = v.copy()
    v[:, rows, k] = 0.0
    v -= 2.0 * u * (np.sum(u * v, axis=2, keepdims=True) / np.sum(u * u, axis=1)[:, None])
    return r * v


def _categorical(logits: Array, ids: NDArray[np.int64], sampling: str, seed: int) -> Array:
    """Cotangents of a softmax likelihood."""
    p = softmax(logits)
    n, c = p.shape
    if sampling == "exact":
        # Every class but the likeliest, as coordinates: C - 1 vectors suffice because the factor has that rank.
        k = p.argmax(axis=1)
        others = np.stack([np.delete(np.arange(c), ki) for ki in k])
        v = np.zeros((c - 1, n, c))
        v[np.arange(c - 1)[:, None], np.arange(n)[None, :], others.T] = 1.0
        return householder_root(p, v)
    if sampling == "sketch":
        return householder_root(p, _signs(ids, c, seed))
    uniform = np.array([_rng(seed, i).random() for i in ids])  # monte_carlo
    labels = np.minimum((uniform[:, None] > np.cumsum(p, axis=1)).sum(axis=1), c - 1)
    return (np.eye(c)[labels] - p)[None]


def _bernoulli(logits: Array, ids: NDArray[np.int64], sampling: str, seed: int) -> Array:
    """Cotangents of independent sigmoid likelihoods."""
    p = sigmoid(logits)
    if sampling == "monte_carlo":
        uniform = np.stack([_rng(seed, i).random(p.shape[1]) for i in ids])
        return ((uniform < p) - p)[None]
    root = np.sqrt(p * (1.0 - p))
    if sampling == "exact":
        return np.eye(p.shape[1])[:, None, :] * root
    return _signs(ids, p.shape[1], seed) * root


LIKELIHOODS = ("categorical", "bernoulli")
SAMPLINGS = ("sketch", "exact", "monte_carlo")


def logit_cotangents(
    likelihood: str,
    logits: Array,
    ids: NDArray[np.int64],
    sampling: str,
    *,
    seed: int = 0,
) -> Array:
    """Vectors whose summed outer products have the logit-space Fisher information as expectation.

    Parameters
    ----------
    likelihood
        ``"categorical"`` or ``"bernoulli"``.
    logits
        Shape (N, C).
    ids
        Identity of each example, shape (N,): its draws depend on ``(seed, id)`` alone, so they are the same in any
        batch, order or process.
    sampling
        ``"sketch"`` (random signs of a square root's columns: one vector, lowest variance), ``"exact"`` (every column)
        or ``"monte_carlo"`` (a label drawn from the model's output).
    seed
        Random seed.

    Returns
    -------
    ndarray
        Shape (S, N, C), float64, scaled so that ``Σ_s E[s sᵀ]`` is the Fisher information.
    """
    logits = np.asarray(logits, dtype=np.float64)
    of_likelihood = _categorical if likelihood == "categorical" else _bernoulli
    return of_likelihood(logits, ids, sampling, seed)


def _signs(ids: NDArray[np.int64], classes: int, seed: int) -> Array:
    """Random signs, shape (1, N, classes)."""
    bits = np.stack([_rng(seed, i).integers(0, 2, (1, classes)) for i in ids], axis=1)
    return 2.0 * bits.astype(np.float64) - 1.0


def _rng(seed: int, identity: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64([seed, int(identity)]))

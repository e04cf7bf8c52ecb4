"""Distances between task embeddings.

The functions of arrays work on Fisher values, shape (F,) and ≥ 0, in any common unit. `DISTANCES` holds the same by
name for :class:`~hf_task2vec.embedding.TaskEmbedding` objects and checks that they share a probe.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hf_task2vec.errors import EmbeddingError, ProbeMismatchError

if TYPE_CHECKING:
    from hf_task2vec.embedding import TaskEmbedding

Array = NDArray[np.float64]

#: Weight of the distance to the trivial embedding in the asymmetric distance (paper, section 3.3).
ALPHA = 0.15
#: Values below this share of their layer's mean count as equal: many filters hold no information at all.
RELATIVE_FLOOR = 1e-6


def relative_fisher(values: Array, layer_sizes: NDArray[np.int64]) -> Array:
    """Divide by the mean of each layer and apply the floor, shape (..., F): layers then weigh alike, all values > 0.

    A layer without any information becomes constant 1.
    """
    values = np.asarray(values, dtype=np.float64)
    starts = np.concatenate([[0], np.cumsum(layer_sizes)[:-1]])
    means = np.add.reduceat(values, starts, axis=-1) / layer_sizes
    spread = np.repeat(means, layer_sizes, axis=-1)
    return np.maximum(np.divide(values, spread, out=np.ones_like(values), where=spread > 0), RELATIVE_FLOOR)


def log_profile(values: Array, layer_sizes: NDArray[np.int64]) -> Array:
    """Logarithm of :func:`relative_fisher`, shape (..., F)."""
    return np.log(relative_fisher(values, layer_sizes))


def log_correlation(a: Array, b: Array, layer_sizes: NDArray[np.int64]) -> float:
    """One minus the Pearson correlation of the logarithms of per-layer relative values, in [0, 2].

    The default: ``benchmarks/retrieval.py`` compares it with the others on real tasks.
    """
    return _correlation(log_profile(a, layer_sizes), log_profile(b, layer_sizes))


def _correlation(x: Array, y: Array) -> float:
    x, y = x - x.mean(), y - y.mean()
    variances = np.array([x @ x, y @ y]) / len(x)
    flat = variances < 1e-18  # what rounding leaves of a constant
    if flat.any():
        return 0.0 if flat.all() else 1.0
    return float(np.clip(1.0 - (x @ y) / len(x) / np.sqrt(variances.prod()), 0.0, 2.0))


def cosine(a: Array, b: Array) -> float:
    """One minus the cosine of the angle between two vectors, in [0, 1] for non-negative ones."""
    norm = np.linalg.norm(a) * np.linalg.norm(b)
    if norm == 0.0:
        return 0.0 if np.array_equal(a, b) else 1.0
    return float(np.clip(1.0 - (a @ b) / norm, 0.0, 2.0))


def symmetric(a: Array, b: Array) -> float:
    """Distance of the paper, section 3.1: cosine distance of ``a/(a+b)`` and ``b/(a+b)``, in [0, 1].

    Filters without information in both are left out.
    """
    total = a + b
    known = total > 0
    if not known.any():
        return 0.0
    return cosine(a[known] / total[known], b[known] / total[known])


def trivial_embedding(values: Array, layer_sizes: NDArray[np.int64]) -> Array:
    """Embedding of a task that prefers no filter to another: each layer constant at its mean, shape (F,).

    It stands in for the paper's trivial task t₀, whose Fisher information is flat in every layer.
    """
    starts = np.concatenate([[0], np.cumsum(layer_sizes)[:-1]])
    return np.repeat(np.add.reduceat(np.asarray(values, dtype=np.float64), starts) / layer_sizes, layer_sizes)


def asymmetric(a: Array, b: Array, layer_sizes: NDArray[np.int64], *, alpha: float = ALPHA) -> float:
    """Distance of the paper, section 3.3: ``d_sym(a, b) − α d_sym(a, t₀)``.

    Distance from a source task `a` to a target `b`: of two equally near sources the more complex one (farther from
    the trivial embedding t₀) is nearer. It can be negative.
    """
    return symmetric(a, b) - alpha * symmetric(a, trivial_embedding(a, layer_sizes))


def kl(a: Array, b: Array, layer_sizes: NDArray[np.int64]) -> float:
    """Kullback-Leibler divergence per filter of Gaussians with precisions `a` and `b` (per-layer relative), ≥ 0."""
    p, q = relative_fisher(a, layer_sizes), relative_fisher(b, layer_sizes)
    ratio = q / p
    return float(np.mean(0.5 * (ratio - 1.0 - np.log(ratio))))


def jensen_shannon(a: Array, b: Array, layer_sizes: NDArray[np.int64]) -> float:
    """Mean divergence of both Gaussians from the one of mean precision, symmetric, ≥ 0."""
    p, q = relative_fisher(a, layer_sizes), relative_fisher(b, layer_sizes)
    middle = (p + q) / 2.0
    terms = [0.5 * (middle / x - 1.0 - np.log(middle / x)) for x in (p, q)]
    return float(np.mean((terms[0] + terms[1]) / 2.0))


def _layerless(function: Callable[[Array, Array], float]) -> Callable[[Array, Array, NDArray[np.int64]], float]:
    @wraps(function)
    def distance(a: Array, b: Array, layer_sizes: NDArray[np.int64]) -> float:
        return function(a, b)

    return distance


_ARRAY_DISTANCES: dict[str, Callable[[Array, Array, NDArray[np.int64]], float]] = {
    "log_correlation": log_correlation,
    "symmetric": _layerless(symmetric),
    "asymmetric": asymmetric,
    "kl": kl,
    "jensen_shannon": jensen_shannon,
    "cosine": _layerless(cosine),
}


def check_comparable(a: TaskEmbedding, b: TaskEmbedding) -> None:
    """Raise ProbeMismatchError unless both embeddings come from the same probe weights and layers."""
    if a.weights_hash != b.weights_hash:
        raise ProbeMismatchError(
            f"{a.name!r} was embedded with probe {a.probe['name']!r} (weights {a.weights_hash[:12]}…) and {b.name!r} "
            f"with {b.probe['name']!r} (weights {b.weights_hash[:12]}…); embed both with the same probe"
        )
    if a.layer_names != b.layer_names or not np.array_equal(a.layer_sizes, b.layer_sizes):
        raise ProbeMismatchError(
            f"{a.name!r} and {b.name!r} cover different layers of probe {a.probe['name']!r}; embed both again with the "
            "same version of hf_task2vec"
        )


def _named(name: str) -> Callable[[TaskEmbedding, TaskEmbedding], float]:
    function = _ARRAY_DISTANCES[name]

    def distance(a: TaskEmbedding, b: TaskEmbedding) -> float:
        check_comparable(a, b)
        return function(a.values.astype(np.float64), b.values.astype(np.float64), a.layer_sizes)

    distance.__name__, distance.__doc__ = name, function.__doc__
    return distance


#: Distances between two task embeddings by name. ``asymmetric`` and ``kl`` depend on the order.
DISTANCES: dict[str, Callable[[TaskEmbedding, TaskEmbedding], float]] = {
    name: _named(name) for name in _ARRAY_DISTANCES
}
DEFAULT_DISTANCE = "log_correlation"


def pairwise(embeddings: Sequence[TaskEmbedding], kind: str = DEFAULT_DISTANCE) -> Array:
    """Return the matrix of distances, shape (n, n); entry (i, j) is the distance from i to j.

    Raises
    ------
    EmbeddingError
        `kind` is no name in `DISTANCES`.
    ProbeMismatchError
        The embeddings come from different probes.
    """
    if kind not in DISTANCES:
        raise EmbeddingError(f"distance {kind!r} is unknown; choose one of {', '.join(DISTANCES)}")
    for other in embeddings[1:]:
        check_comparable(embeddings[0], other)
    values = [e.values.astype(np.float64) for e in embeddings]
    function = _ARRAY_DISTANCES[kind]
    matrix = np.empty((len(values), len(values)))
    for i, a in enumerate(values):
        for j, b in enumerate(values):
            matrix[i, j] = function(a, b, embeddings[0].layer_sizes)
    return matrix

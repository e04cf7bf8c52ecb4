"""Distances between task embeddings.

`DISTANCES` holds functions of two tables of Fisher values (n, F) and (m, F), ≥ 0, in any common unit, and of the sizes
of the layers, which give a matrix (n, m). :func:`pairwise` applies them to embeddings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from hf_task2vec.embedding.task_embedding import TaskEmbedding
from hf_task2vec.errors import EmbeddingError

Array = NDArray[np.float64]
Sizes = NDArray[np.int64]

#: Weight of the distance to the trivial embedding in the asymmetric distance (paper, section 3.3).
ALPHA = 0.15
#: Values below this share of their layer's mean count as equal: many filters hold no information at all.
RELATIVE_FLOOR = 1e-6
DEFAULT_DISTANCE = "log_correlation"


def _layer_means(values: Array, layer_sizes: Sizes) -> Array:
    """Put each layer's mean in the place of its values, shape (..., F)."""
    starts = np.concatenate([[0], np.cumsum(layer_sizes)[:-1]])
    return np.repeat(np.add.reduceat(values, starts, axis=-1) / layer_sizes, layer_sizes, axis=-1)


def relative_fisher(values: Array, layer_sizes: Sizes) -> Array:
    """Divide by the mean of each layer and apply the floor, shape (..., F): layers then weigh alike, all values > 0.

    A layer without any information becomes constant 1.
    """
    values = np.asarray(values, dtype=np.float64)
    means = _layer_means(values, layer_sizes)
    return np.maximum(np.divide(values, means, out=np.ones_like(values), where=means > 0), RELATIVE_FLOOR)


def log_profile(values: Array, layer_sizes: Sizes) -> Array:
    """Logarithm of :func:`relative_fisher`, shape (..., F)."""
    return np.log(relative_fisher(values, layer_sizes))


def log_correlation(a: Array, b: Array, layer_sizes: Sizes) -> Array:
    """One minus the Pearson correlation of the logarithms of per-layer relative values, in [0, 2].

    The default: ``benchmarks/properties/retrieval.py`` compares it with the others on real tasks.
    """
    x, y = (log_profile(values, layer_sizes) for values in (a, b))
    x, y = (rows - rows.mean(axis=1, keepdims=True) for rows in (x, y))
    return _one_minus_cosine(x, y, flat=1e-9)  # the root mean square that rounding leaves of a constant


def cosine(a: Array, b: Array, layer_sizes: Sizes | None = None) -> Array:
    """One minus the cosine of the angle between two vectors, in [0, 1] for non-negative ones."""
    return _one_minus_cosine(a, b)


def _one_minus_cosine(x: Array, y: Array, flat: float = 0.0) -> Array:
    """Cosine distances (n, m); rows of root mean square ≤ `flat` are at 0 from each other and at 1 from all else."""
    from scipy.spatial.distance import cdist

    none = [np.sqrt(np.mean(rows**2, axis=1)) <= flat for rows in (x, y)]
    found = np.clip(cdist(x + none[0][:, None], y + none[1][:, None], "cosine"), 0.0, 2.0)
    found[none[0][:, None] != none[1]] = 1.0
    found[none[0][:, None] & none[1]] = 0.0
    return found


def symmetric(a: Array, b: Array, layer_sizes: Sizes | None = None) -> Array:
    """Distance of the paper, section 3.1: cosine distance of ``a/(a+b)`` and ``b/(a+b)``, in [0, 1].

    Filters without information in both are left out.
    """
    found = np.empty((len(a), len(b)))
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            total = x + y
            known = total > 0
            shares = (x[known] / total[known])[None], (y[known] / total[known])[None]
            found[i, j] = cosine(*shares)[0, 0] if known.any() else 0.0
    return found


def trivial_embedding(values: Array, layer_sizes: Sizes) -> Array:
    """Embedding of a task that prefers no filter to another: each layer constant at its mean, shape (..., F).

    It stands in for the paper's trivial task t₀, whose Fisher information is flat in every layer.
    """
    return _layer_means(np.asarray(values, dtype=np.float64), layer_sizes)


def asymmetric(a: Array, b: Array, layer_sizes: Sizes) -> Array:
    """Distance of the paper, section 3.3: ``d_sym(a, b) − α d_sym(a, t₀)``.

    Distance from source tasks `a` to targets `b`: of two equally near sources the more complex one (farther from
    the trivial embedding t₀) is nearer. It can be negative.
    """
    complexity = [symmetric(x[None], trivial_embedding(x[None], layer_sizes))[0] for x in a]
    return symmetric(a, b) - ALPHA * np.array(complexity)


#: Distances by name. ``asymmetric`` depends on the order.
DISTANCES: dict[str, Callable[[Array, Array, Sizes], Array]] = {
    "log_correlation": log_correlation,
    "symmetric": symmetric,
    "asymmetric": asymmetric,
    "cosine": cosine,
}


def pairwise(
    embeddings: TaskEmbedding | Sequence[TaskEmbedding],
    kind: str = DEFAULT_DISTANCE,
    *,
    to: TaskEmbedding | Sequence[TaskEmbedding] | None = None,
) -> Array:
    """Return the matrix of distances, shape (n, m); entry (i, j) is the distance from task i to task j.

    Parameters
    ----------
    embeddings
        n tasks.
    kind
        Name of a distance in `DISTANCES`.
    to
        m tasks; by default the same n.

    Raises
    ------
    EmbeddingError
        `kind` is no name in `DISTANCES`.
    ProbeMismatchError
        The embeddings come from different probes.
    """
    if kind not in DISTANCES:
        raise EmbeddingError(f"distance {kind!r} is unknown; choose one of {', '.join(DISTANCES)}")
    parts = [[part] if isinstance(part, TaskEmbedding) else list(part) for part in (embeddings, to or [])]
    all_tasks = TaskEmbedding.stack(parts[0] + parts[1])
    n = sum(map(len, parts[0]))
    values = all_tasks.values.astype(np.float64)
    return DISTANCES[kind](values[:n], values[n:] if parts[1] else values[:n], all_tasks.layer_sizes)

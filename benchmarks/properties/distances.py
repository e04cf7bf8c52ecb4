"""Distances between tasks as matrices, and figures about them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from hf_task2vec import TaskEmbedding
from hf_task2vec.embedding.distance import DISTANCES, pairwise

Array = NDArray[np.float64]


def all_distances(embeddings: Sequence[TaskEmbedding]) -> dict[str, Array]:
    """Distance matrices, shape (n, n), by name: the package's, and a rival without any gradient."""
    return {**{kind: pairwise(embeddings, kind) for kind in DISTANCES}, "feature_moments": moment_distances(embeddings)}


def moment_distances(embeddings: Sequence[TaskEmbedding]) -> Array:
    """Correlation distance of standardised feature means and log variances, shape (n, n)."""
    rows = np.array([np.concatenate([e.feature_mean[0], 0.5 * np.log(e.feature_var[0] + 1e-4)]) for e in embeddings])
    return 1.0 - np.corrcoef((rows - rows.mean(axis=0)) / (rows.std(axis=0) + 1e-6))


def upper(matrix: Array) -> Array:
    """Return the entries above the diagonal, shape (n (n − 1) / 2,)."""
    return matrix[np.triu_indices(len(matrix), 1)]


def symmetrised(matrix: Array) -> Array:
    """Mean of a matrix and its transpose, with a diagonal of zeros."""
    middle = (matrix + matrix.T) / 2
    np.fill_diagonal(middle, 0.0)
    return middle


def rank_agreement(a: Array, b: Array) -> float:
    """Spearman correlation of the distances between the same tasks in two matrices, shape (n, n)."""
    return float(spearmanr(upper(symmetrised(a)), upper(symmetrised(b))).statistic)


def matched(cross: Array) -> dict[str, float]:
    """Describe distances, shape (n, n), from n tasks under one condition to the same n under another.

    Returns
    -------
    dict
        Medians of the distance to the same task and to the others, and ``top1``, the share of tasks that are nearest to
        themselves.
    """
    own = np.eye(len(cross), dtype=bool)
    return {
        "same_task": float(np.median(cross[own])),
        "other_tasks": float(np.median(cross[~own])),
        "top1": float(np.mean(cross.argmin(axis=1) == np.arange(len(cross)))),
    }

"""Figures about matrices of task distances."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import cophenet, linkage
from scipy.spatial.distance import squareform
from scipy.stats import pearsonr, rankdata, spearmanr

Array = NDArray[np.float64]


def upper(matrix: Array) -> Array:
    """Return the entries above the diagonal, shape (n (n − 1) / 2,)."""
    return matrix[np.triu_indices(len(matrix), 1)]


def symmetrised(matrix: Array) -> Array:
    """Mean of a matrix and its transpose, with a diagonal of zeros."""
    middle = (matrix + matrix.T) / 2
    np.fill_diagonal(middle, 0.0)
    return middle


def average_linkage(distance: Array) -> Array:
    """Agglomerate by mean distance, in the form of SciPy's `linkage`; negative distances are moved to zero."""
    condensed = upper(symmetrised(distance))
    return linkage(condensed - min(0.0, float(condensed.min())), method="average", optimal_ordering=True)


def cophenetic_distances(distance: Array) -> Array:
    """Heights at which two tasks meet in the dendrogram of mean linkage, shape (n, n)."""
    return squareform(cophenet(average_linkage(distance)))


def tree_agreement(distance: Array, tree: Array, *, permutations: int = 9999, seed: int = 0) -> dict[str, float]:
    """How well task distances, shape (n, n), follow distances in a class tree, shape (n, n).

    Returns
    -------
    dict
        ``cophenetic``, Pearson correlation of heights in the tasks' dendrogram with the tree; ``cophenetic_own``, of
        the same heights with the distances they come from (how well any tree fits them); ``pearson`` and ``spearman``
        of the distances with the tree; ``p_value`` of the latter, one-sided, by permuting the tasks (Mantel's test);
        ``same_branch_nearest``, share of tasks whose nearest neighbour is among those nearest in the tree.
    """
    distance = symmetrised(distance)
    heights = upper(cophenetic_distances(distance))
    ranks, tree_ranks = squareform(rankdata(upper(distance))), squareform(rankdata(upper(tree)))
    observed = float(np.corrcoef(upper(ranks), upper(tree_ranks))[0, 1])
    rng = np.random.default_rng(seed)
    at_least = 0
    for _ in range(permutations):
        order = rng.permutation(len(tree))
        at_least += np.corrcoef(upper(ranks), upper(tree_ranks[np.ix_(order, order)]))[0, 1] >= observed
    far = np.diag(np.full(len(tree), np.inf))
    nearest = (distance + far).argmin(axis=1)
    closest = (tree + far).min(axis=1)
    return {
        "cophenetic": float(pearsonr(heights, upper(tree)).statistic),
        "cophenetic_own": float(pearsonr(heights, upper(distance)).statistic),
        "pearson": float(pearsonr(upper(distance), upper(tree)).statistic),
        "spearman": observed,
        "p_value": (at_least + 1) / (permutations + 1),
        "same_branch_nearest": float(np.mean(tree[np.arange(len(tree)), nearest] == closest)),
        "same_branch_by_chance": float(np.mean(((tree + far) == closest[:, None]).sum(axis=1) / (len(tree) - 1))),
    }


def matrix_agreement(a: Array, b: Array) -> dict[str, float]:
    """Do two matrices of distances between the same tasks agree: rank correlation, and equal nearest neighbours."""
    far = np.diag(np.full(len(a), np.inf))
    same = (a + far).argmin(axis=1) == (b + far).argmin(axis=1)
    return {
        "spearman": float(spearmanr(upper(symmetrised(a)), upper(symmetrised(b))).statistic),
        "same_nearest": float(same.mean()),
    }


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


def correlations(x: Sequence[float], y: Sequence[float], given: Sequence[float]) -> dict[str, float]:
    """Correlations of two quantities, all also with the ranks of a third one regressed out.

    Returns
    -------
    dict
        ``pearson``, ``spearman`` with its two-sided ``p_value``, and ``spearman_given``.
    """
    rank = spearmanr(x, y)
    a, b, c = (rankdata(values) for values in (x, y, given))
    design = np.column_stack([np.ones(len(c)), c])
    residuals = [values - design @ np.linalg.lstsq(design, values, rcond=None)[0] for values in (a, b)]
    return {
        "pearson": float(pearsonr(x, y).statistic),
        "spearman": float(rank.statistic),
        "p_value": float(rank.pvalue),
        "spearman_given": float(pearsonr(*residuals).statistic),
    }

"""Places in the plane for things of which only the distances are known."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

#: From this many points on a layout keeps neighbours (t-SNE), below it keeps distances (MDS).
LEAST_FOR_TSNE = 12
_PERPLEXITY = 8.0  # about the size of a domain in the shipped index


def lay_out(distances: Array, seed: int = 0) -> tuple[Array, str]:
    """Place n points so that near ones lie near each other.

    Twelve points and more by t-SNE (van der Maaten and Hinton 2008), fewer by metric MDS (SMACOF: de Leeuw 1977). Both
    start from classical scaling (Torgerson 1952) rather than at random. The widest direction becomes the horizontal.

    Parameters
    ----------
    distances
        Shape (n, n), symmetric, ≥ 0, with a diagonal of zeros; n ≥ 2.
    seed
        Seed of what is drawn at random where points coincide.

    Returns
    -------
    positions : ndarray
        Shape (n, 2), about their mean.
    method : str
        ``"tsne"`` or ``"mds"``.
    """
    method = "tsne" if len(distances) >= LEAST_FOR_TSNE else "mds"
    found = _tsne(distances, seed) if method == "tsne" else _mds(distances, seed)
    return _upright(found), method


def euclidean(positions: Array) -> Array:
    """Distances between points, shape (n, 2), in the plane, shape (n, n)."""
    difference = positions[:, None] - positions[None, :]
    return np.asarray(np.sqrt((difference**2).sum(axis=-1)))


def _classical(distances: Array) -> Array:
    n = len(distances)
    centre = np.eye(n) - 1.0 / n
    values, vectors = np.linalg.eigh(-centre @ distances**2 @ centre / 2)
    return np.asarray(vectors[:, :-3:-1] * np.sqrt(np.maximum(values[:-3:-1], 0.0)))


def _mds(distances: Array, seed: int, *, rounds: int = 1000, tolerance: float = 1e-9) -> Array:
    # Where the start lies on a line, or has two points in one place, no round would ever leave it.
    jitter = np.random.default_rng(seed).normal(size=(len(distances), 2))
    positions = _classical(distances) + 1e-3 * distances.mean() * jitter
    before = math.inf
    for _ in range(rounds):
        found = euclidean(positions)
        stress = float(((found - distances) ** 2).sum())
        if before - stress <= tolerance * stress:
            break
        before = stress
        pull = -np.divide(distances, found, out=np.zeros_like(found), where=found > 0)
        np.fill_diagonal(pull, -pull.sum(axis=1))
        positions = pull @ positions / len(distances)
    return positions


def _tsne(distances: Array, seed: int) -> Array:
    from sklearn.manifold import TSNE

    start = _classical(distances)
    spread = float(start[:, 0].std())
    # As small as scikit-learn makes a start by principal components.
    start = start / spread * 1e-4 if spread else np.random.default_rng(seed).normal(0, 1e-4, start.shape)
    perplexity = min(_PERPLEXITY, (len(distances) - 1) / 3)
    model = TSNE(metric="precomputed", init=start, perplexity=perplexity, method="exact", random_state=seed)
    # A copy, for it squares the matrix that it gets.
    return np.asarray(model.fit_transform(distances.copy()), dtype=np.float64)


def _upright(positions: Array) -> Array:
    """Centre, and turn the widest direction to the horizontal, with a fixed sign."""
    centred = positions - positions.mean(axis=0)
    turned = centred @ np.linalg.svd(centred, full_matrices=False)[2].T
    largest = turned[np.abs(turned).argmax(axis=0), range(turned.shape[1])]
    return np.asarray(turned * np.where(largest < 0, -1.0, 1.0))

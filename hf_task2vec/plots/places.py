"""Where labels can stand beside crowded points without covering each other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Directions to try, the most readable first (right, left, above, below, then between), and distances in label heights.
_DIRECTIONS = np.deg2rad([0, 180, 90, 270, 45, 315, 135, 225, 22, 338, 158, 202, 67, 293, 113, 247])
_STEPS = (0.0, 0.7, 1.6, 2.8, 4.2)


def place_labels(
    points: Array, sizes: Array, frame: tuple[float, float], radii: Array, obstacles: Array | None = None
) -> Array:
    """Find a free place for the label of each point.

    Greedy: the points in the thickest crowd choose first, each the nearest place where its label covers no point, no
    label placed before, and does not leave the frame.

    Parameters
    ----------
    points
        Shape (n, 2), in any unit of length.
    sizes
        Shape (n, 2): width and height of each label.
    frame
        Width and height of the picture, whose corner is the origin.
    radii
        Shape (n,): of the marks, which labels keep clear of.
    obstacles
        Shape (m, 4): boxes to keep clear of as well, as left, bottom, right, top.

    Returns
    -------
    ndarray
        Shape (n, 2), the centres of the labels; NaN for those without a free place.
    """
    n = len(points)
    centres = np.full((n, 2), np.nan)
    if n == 0:
        return centres
    reach = 4 * float(np.median(sizes[:, 1]))
    crowd = (np.abs(points[:, None] - points[None, :]).max(axis=-1) < reach).sum(axis=1)
    taken = np.column_stack([points - radii[:, None], points + radii[:, None]])
    if obstacles is not None:
        taken = np.vstack([taken, obstacles])
    for i in np.argsort(-crowd, kind="stable"):
        candidates = _candidates(points[i], sizes[i], float(radii[i]))
        boxes = np.concatenate([candidates - sizes[i] / 2, candidates + sizes[i] / 2], axis=1)
        inside = (boxes[:, :2] >= 0).all(axis=1) & (boxes[:, 2:] <= np.array(frame)).all(axis=1)
        apart = (boxes[:, None, :2] >= taken[None, :, 2:]) | (taken[None, :, :2] >= boxes[:, None, 2:])
        free = np.flatnonzero(inside & np.all(apart.any(axis=-1), axis=1))
        if len(free):
            centres[i] = candidates[free[0]]
            taken = np.vstack([taken, boxes[free[0]]])
    return centres


def anchor(point: Array, centre: Array, size: Array) -> Array:
    """Return where a line from `point` to the label about `centre` ends: the nearest place of the label's box."""
    return np.clip(point, centre - size / 2, centre + size / 2)


def _candidates(point: Array, size: Array, radius: float) -> Array:
    """Centres of the label around `point`, nearest first, so that its box touches a circle in each direction."""
    along = np.column_stack([np.cos(_DIRECTIONS), np.sin(_DIRECTIONS)])
    gaps = np.array(_STEPS) * size[1] + 1.15 * radius + 0.1 * size[1]
    # The box is moved out along its own support in that direction: half a width to the sides, half a height above.
    support = along * size / 2
    return np.asarray((point + gaps[:, None, None] * along + support).reshape(-1, 2))

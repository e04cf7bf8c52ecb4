"""The Pareto front: what nothing beats in both cost and score."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def pareto_front(cost: Array, score: Array) -> NDArray[np.int64]:
    """Return the rows that no row of the same or smaller cost equals in score, the cheapest first.

    Rows of unknown (NaN) or no cost are left out.
    """
    rows = np.flatnonzero(np.isfinite(cost) & (cost > 0))
    rows = rows[np.lexsort((-score[rows], cost[rows]))]
    if not len(rows):
        return rows
    best_before = np.maximum.accumulate(np.concatenate([[-np.inf], score[rows][:-1]]))
    return rows[score[rows] > best_before]

"""Average precision of scored labels, its mean over labels (mAP), and how sure it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_ROWS_AT_ONCE = 256  # of the examples left out in turn, each of which needs as many numbers as there are examples


@dataclass(frozen=True, eq=False)
class LabelScores:
    """Out-of-sample scores of several labels an example.

    Attributes
    ----------
    present
        Shape (N, C), bool: whether an example carries a label.
    scores
        Shape (N, C), float64: the larger, the likelier. Only their order within a label matters.
    """

    present: NDArray[np.bool_]
    scores: Array

    @cached_property
    def average_precisions(self) -> Array:
        """Shape (C,), in (0, 1]; NaN for labels that no example or every example carries."""
        return np.array([average_precision(self.present[:, c], self.scores[:, c]) for c in range(self.scores.shape[1])])

    @property
    def mean_average_precision(self) -> float:
        """Mean over the labels that some examples carry and others do not (macro average); NaN without any."""
        known = self.average_precisions[~np.isnan(self.average_precisions)]
        return min(float(known.mean()), 1.0) if len(known) else float("nan")

    @property
    def std_error(self) -> float:
        """Standard error of the mean average precision: the delete-one jackknife over examples (Efron 1982).

        Never 0: at least that of a share of as many decisions as labels are carried, by the Agresti-Coull rule.
        """
        n = len(self.scores)
        kept = np.flatnonzero(~np.isnan(self.average_precisions))
        columns = np.stack([_left_out(self.present[:, c], self.scores[:, c]) for c in kept], axis=1)
        without = np.nanmean(columns, axis=1)  # a label whose only example is left out is no longer among them
        jackknife = float(np.sqrt((n - 1) / n * np.sum((without - without.mean()) ** 2)))
        decisions = int(self.present[:, kept].sum())
        share = (self.mean_average_precision * decisions + 2.0) / (decisions + 4.0)
        return max(jackknife, float(np.sqrt(share * (1.0 - share) / (decisions + 4.0))))


def average_precision(present: NDArray[np.bool_], scores: Array) -> float:
    """Area under the precision-recall curve as a step function: ``Σ (R_k − R_{k−1}) P_k`` over distinct scores.

    Ties count as one threshold. The same as `sklearn.metrics.average_precision_score`.

    Parameters
    ----------
    present
        Shape (N,), bool.
    scores
        Shape (N,).

    Returns
    -------
    float
        In (0, 1], at random about the share of examples that carry the label; NaN if none or all do.
    """
    if present.all() or not present.any():
        return float("nan")
    hits, last = _sorted(present, scores)
    return float(_of_weighted(hits, last, np.ones((1, len(hits))))[0])


def _left_out(present: NDArray[np.bool_], scores: Array) -> Array:
    """Average precision without each example in turn, shape (N,); NaN where it is then undefined."""
    hits, last = _sorted(present, scores)
    without = np.empty(len(hits))
    without[np.argsort(-scores, kind="stable")] = np.concatenate(
        [_of_weighted(hits, last, weights) for weights in _all_but_one(len(hits))]
    )
    return without


def _all_but_one(n: int) -> Iterator[Array]:
    for start in range(0, n, _ROWS_AT_ONCE):
        out = np.arange(start, min(start + _ROWS_AT_ONCE, n))
        weights = np.ones((len(out), n))
        weights[np.arange(len(out)), out] = 0.0
        yield weights


def _sorted(present: NDArray[np.bool_], scores: Array) -> tuple[Array, NDArray[np.int64]]:
    """Whether examples carry the label, by falling score, and the position of the last of each distinct score."""
    order = np.argsort(-scores, kind="stable")
    falls = np.flatnonzero(np.diff(scores[order]))
    return present[order].astype(np.float64), np.append(falls, len(order) - 1).astype(np.int64)


def _of_weighted(hits: Array, last: NDArray[np.int64], weights: Array) -> Array:
    """Average precision for each row of weights, shape (M, N) to (M,)."""
    found = np.cumsum(weights * hits, axis=1)[:, last]
    seen = np.cumsum(weights, axis=1)[:, last]
    gained = np.diff(found, axis=1, prepend=0.0)
    precision = np.divide(found, seen, out=np.zeros_like(found), where=seen > 0)
    total = found[:, -1]
    area = np.sum(gained * precision, axis=1)
    return np.divide(area, total, out=np.full(len(total), np.nan), where=total > 0)

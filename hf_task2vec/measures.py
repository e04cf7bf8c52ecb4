"""How good is a ranking: measures of predicted against obtained scores of the same checkpoints on one task."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hf_task2vec.errors import EvaluationError

Array = NDArray[np.float64]


def checked(predicted: ArrayLike, obtained: ArrayLike) -> tuple[Array, Array]:
    """Return both as float64 arrays of one length.

    Raises
    ------
    EvaluationError
        They differ in length, are empty, are not one-dimensional, or are not finite.
    """
    p, y = np.asarray(predicted, dtype=np.float64), np.asarray(obtained, dtype=np.float64)
    if p.ndim != 1 or p.shape != y.shape or not len(p):
        raise EvaluationError(
            f"predicted scores of shape {p.shape} and obtained scores of shape {y.shape}: give one of each per "
            "checkpoint, for one task"
        )
    if not (np.isfinite(p).all() and np.isfinite(y).all()):
        raise EvaluationError("predicted and obtained scores must be finite; leave out the checkpoints without a score")
    return p, y


def accuracy_of_pick(predicted: ArrayLike, obtained: ArrayLike) -> float:
    """Obtained score of the checkpoint predicted to be best; the mean over several predicted to be equally good."""
    p, y = checked(predicted, obtained)
    return float(y[p == p.max()].mean())


def regret_at_k(predicted: ArrayLike, obtained: ArrayLike, k: int = 1) -> float:
    """Best obtained score less the best of the `k` checkpoints predicted to be best.

    In the unit of the scores, 0 or more. Where the prediction ties, the mean over all ways to break the tie.

    Raises
    ------
    EvaluationError
        `k` is less than 1, or the scores do not fit together.
    """
    p, y = checked(predicted, obtained)
    if k < 1:
        raise EvaluationError(f"k={k}: give at least 1")
    if k >= len(y):
        return 0.0
    threshold = np.sort(p)[-k]
    sure, tied = y[p > threshold], np.sort(y[p == threshold])[::-1]
    drawn = k - len(sure)
    # Chance that the j-th best of the t tied ones is the best of those drawn: it is, and none before it.
    j, t = np.arange(len(tied) - 1), len(tied)
    chance = drawn / t * np.concatenate([[1.0], np.cumprod((t - j - drawn) / (t - j - 1))])
    return float(y.max() - chance @ np.maximum(tied, sure.max(initial=-np.inf)))


def weighted_kendall_tau(predicted: ArrayLike, obtained: ArrayLike) -> float:
    """Rank correlation that weighs the top most (Vigna 2015), in [-1, 1]; 0 where one side is constant.

    Ranks are those of the obtained scores and of the predicted ones in turn, weighted hyperbolically, as in
    `scipy.stats.weightedtau`.
    """
    from scipy.stats import weightedtau

    p, y = checked(predicted, obtained)
    if np.ptp(p) == 0.0 or np.ptp(y) == 0.0:
        return 0.0
    return float(weightedtau(y, p).statistic)


def relative_accuracy(predicted: ArrayLike, obtained: ArrayLike) -> float:
    """Rel@1: obtained score of the pick over the best obtained score, in [0, 1] for non-negative scores."""
    p, y = checked(predicted, obtained)
    best = float(y.max())
    if best <= 0.0:
        raise EvaluationError(f"the best obtained score is {best}; a relative accuracy needs a positive one")
    return accuracy_of_pick(p, y) / best


def relative_error_increase(picked: ArrayLike | Sequence[float], best: ArrayLike | Sequence[float]) -> float:
    """Mean error of the picks over the mean error of the best, less 1, over tasks (Achille et al. 2019, table 2).

    Parameters
    ----------
    picked, best
        Accuracies in [0, 1] of the pick and of the best checkpoint, one per task.

    Returns
    -------
    float
        0 if every pick is the best; ``inf`` if the best make no error and the picks do.

    Raises
    ------
    EvaluationError
        The accuracies lie outside [0, 1] or do not fit together.
    """
    p, b = checked(picked, best)
    if min(p.min(), b.min()) < 0.0 or max(p.max(), b.max()) > 1.0:
        raise EvaluationError("accuracies must lie in [0, 1]; divide percentages by 100")
    error, least = float((1.0 - p).mean()), float((1.0 - b).mean())
    if least == 0.0:
        return 0.0 if error == 0.0 else float("inf")
    return error / least - 1.0

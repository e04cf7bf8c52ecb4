"""From predictions and scores to a table: which metric picks best, and by how much."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hf_task2vec.errors import EvaluationError
from hf_task2vec.measures import (
    accuracy_of_pick,
    regret_at_k,
    relative_accuracy,
    relative_error_increase,
    weighted_kendall_tau,
)

if TYPE_CHECKING:
    import pandas as pd

    from hf_task2vec.evaluation import Case

Array = NDArray[np.float64]

#: Rules that do not look at the task: what a task-aware metric has to beat.
TARGET_BLIND = ("static", "share_of_wins", "best_imagenet")
_RESAMPLES = 2000


def judge(cases: Sequence[Case], predicted: Mapping[str, Sequence[Array]]) -> pd.DataFrame:
    """Compare predictions with the scores obtained.

    Parameters
    ----------
    cases
        The tasks.
    predicted
        By method: predictions by case.

    Returns
    -------
    pandas.DataFrame
        One row per method and task: ``method, task, n_candidates, pick, accuracy`` (of the pick), ``best, worst``
        (scores), ``regret_1, regret_3, tau, rel_1`` (see :mod:`hf_task2vec.measures`).
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for method, predictions in predicted.items():
        for case, prediction in zip(cases, predictions, strict=True):
            y = case.obtained
            rows.append(
                {
                    "method": method,
                    "task": case.name,
                    "n_candidates": len(y),
                    "pick": case.candidates.ids[int(np.argmax(prediction))],
                    "accuracy": accuracy_of_pick(prediction, y),
                    "best": float(y.max()),
                    "worst": float(y.min()),
                    "regret_1": regret_at_k(prediction, y, 1),
                    "regret_3": regret_at_k(prediction, y, 3),
                    "tau": weighted_kendall_tau(prediction, y),
                    "rel_1": relative_accuracy(prediction, y),
                }
            )
    return pd.DataFrame(rows)


def always(cases: Sequence[Case]) -> tuple[str, list[Array]]:
    """Take one checkpoint for every task: the one that would have been best on average, known only in hindsight.

    Of those that every case has a score of; the name is empty if there is none.
    """
    common = set.intersection(*(set(case.candidates.ids) for case in cases))
    if not common:
        return "", [np.zeros(len(case.obtained)) for case in cases]
    means = {
        name: float(np.mean([case.obtained[case.candidates.ids.index(name)] for case in cases])) for name in common
    }
    best = max(sorted(means), key=means.__getitem__)
    return best, [np.array([float(name == best) for name in case.candidates.ids]) for case in cases]


def summarise(rows: pd.DataFrame, *, ceiling: float | None = None, seed: int = 0) -> pd.DataFrame:
    """Average the rows of :func:`judge` by method.

    Parameters
    ----------
    rows
        Rows of several methods on the same tasks.
    ceiling
        Accuracy of a pick that noise allows, if known (oracle of one half of the examples, scored on the other).
    seed
        Of the bootstrap over tasks.

    Returns
    -------
    pandas.DataFrame
        By method, best first: number of `tasks`; means of the measures; ``error_increase`` (relative error increase
        over the oracle); ``gain`` over the best target-blind rule, `base`, with its 95 % bootstrap interval ``gain_low,
        gain_high``; ``share_of_gap`` (gain over the way from that rule to the ceiling) and ``worst_task`` (largest
        regret).

    Raises
    ------
    EvaluationError
        No rule of `TARGET_BLIND` is among the methods.
    """
    import pandas as pd

    by_task = rows.pivot(index="task", columns="method", values="accuracy")
    blind = [name for name in by_task.columns if name in TARGET_BLIND or name.startswith("always:")]
    if not blind:
        raise EvaluationError(f"give at least one target-blind rule to compare with: {', '.join(TARGET_BLIND)}")
    base = by_task[blind].mean().idxmax()
    found = []
    for method, part in rows.groupby("method", sort=False):
        gain = (by_task[method] - by_task[base]).to_numpy()
        low, high = bootstrap_interval(gain, seed=seed)
        worst = part.loc[part["regret_1"].idxmax()]
        found.append(
            {
                "method": method,
                "tasks": len(part),
                **{name: part[name].mean() for name in ("accuracy", "regret_1", "regret_3", "tau", "rel_1")},
                "error_increase": relative_error_increase(part["accuracy"].clip(0, 1), part["best"].clip(0, 1)),
                "gain": gain.mean(),
                "gain_low": low,
                "gain_high": high,
                "share_of_gap": np.nan if ceiling is None else gain.mean() / (ceiling - by_task[base].mean()),
                "worst_task": f"{worst['task']} ({100 * worst['regret_1']:.1f} points)",
                "base": base,
            }
        )
    return pd.DataFrame(found).sort_values("accuracy", ascending=False, ignore_index=True)


def bootstrap_interval(values: Array, *, level: float = 0.95, seed: int = 0) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of values, shape (n,) with n ≥ 1."""
    values = np.asarray(values, dtype=np.float64)
    draws = np.random.default_rng(seed).integers(len(values), size=(_RESAMPLES, len(values)))
    low, high = np.quantile(values[draws].mean(axis=1), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)

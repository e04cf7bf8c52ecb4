"""Judge metrics by the scores of tasks that they have not seen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hf_task2vec.errors import EvaluationError
from hf_task2vec.metric.observations import REFERENCE_SOURCE, CheckpointFeatures, Observations
from hf_task2vec.metric.ranking_metric import Metric
from hf_task2vec.tasks import each

if TYPE_CHECKING:
    import pandas as pd

    from hf_task2vec.metric.task_space import TaskFeatures
    from hf_task2vec.zoo import ZooIndex

Array = NDArray[np.float64]

_RESAMPLES = 2000


@dataclass(frozen=True, eq=False)
class Case:
    """One task with the scores that its candidates really obtained.

    Attributes
    ----------
    name
        The task.
    task
        Its features, shape (1, ...), under a name that the metric does not know.
    candidates
        The n ≥ 2 checkpoints.
    obtained
        Shape (n,): their scores.
    held_out
        Tasks whose scores must not be used: the task itself and its near duplicates.
    """

    name: str
    task: TaskFeatures
    candidates: CheckpointFeatures
    obtained: Array
    held_out: tuple[str, ...] = ()

    def take(self, rows: NDArray[np.int64]) -> Case:
        """Return the case with the candidates at `rows` only."""
        return replace(self, candidates=self.candidates.take(rows), obtained=self.obtained[rows])


def near_duplicates(index: ZooIndex) -> dict[str, str]:
    """Return the group of near-duplicate tasks that each task of an index belongs to; its own name if to none."""
    return {str(row.task): str(row.near_duplicate_group or row.task) for row in index.tasks.itertuples()}


def leave_one_out_cases(
    index: ZooIndex, data: Observations, source: str = REFERENCE_SOURCE, *, least: int = 3
) -> list[Case]:
    """Make a case of every embedded task with `least` or more scores of one source (``"source/protocol"``).

    Near duplicates in the index are held out together.
    """
    groups = near_duplicates(index)
    names = data.tasks.names
    if source not in data.sources:
        raise EvaluationError(f"the index holds no scores of {source!r}; it has {', '.join(data.sources)}")
    wanted = data.source == data.sources.index(source)
    cases = []
    for t in np.unique(data.task[wanted]):
        rows = np.flatnonzero(wanted & (data.task == t))
        rows = rows[data.group[rows] == data.group[rows[0]]]
        if not data.tasks.embedded[t] or len(rows) < least or not data.score[rows].max() > 0.0:
            continue
        group = groups.get(names[t], names[t])
        cases.append(
            Case(
                names[t],
                replace(data.tasks.take(np.array([t])), names=(f"query:{names[t]}",)),
                data.checkpoints.take(data.checkpoint[rows]),
                data.score[rows],
                tuple(name for name in names if groups.get(name, name) == group),
            )
        )
    if not cases:
        raise EvaluationError(f"no embedded task has scores of {least} checkpoints or more from {source!r}")
    return cases


def without(metric: Metric, held_out: Iterable[str]) -> Metric:
    """Return a metric that does not know the scores of some tasks.

    It still knows their embeddings, which say nothing without scores but are among those that the space is centred on.
    """
    data = metric.data
    held = np.isin(np.array(data.tasks.names)[data.task], list(held_out))
    return replace(metric, data=data.rows(~held))  # type: ignore[type-var]  # every metric is a dataclass


def evaluate_metric(
    metric: Metric, cases: Sequence[Case], *, refit: Callable[[Metric], Metric] | None = None, progress: bool = False
) -> list[Array]:
    """Predict the standings of every case's candidates, from what is not held out, in logits.

    `refit` trains a metric anew on the scores left for a case; by default its parameters stay, so that they have seen
    the held-out scores.
    """
    left: dict[tuple[str, ...], Metric] = {}
    found = []
    for case in each(cases, metric.name, "task", shown=progress):
        if case.held_out not in left:
            part = without(metric, case.held_out) if case.held_out else metric
            left[case.held_out] = refit(part) if refit is not None and case.held_out else part
        found.append(left[case.held_out].predict_features(case.task, case.candidates).mean)
    return found


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


def accuracy_of_pick(predicted: Array, obtained: Array) -> float:
    """Obtained score of the checkpoint predicted to be best; the mean over several predicted to be equally good."""
    return float(obtained[predicted == predicted.max()].mean())


def regret_at_k(predicted: Array, obtained: Array, k: int = 1) -> float:
    """Best obtained score less the best of the `k` checkpoints predicted to be best.

    In the unit of the scores, 0 or more. Where the prediction ties, the mean over all ways to break the tie.
    """
    if k >= len(obtained):
        return 0.0
    threshold = np.sort(predicted)[-k]
    sure, tied = obtained[predicted > threshold], np.sort(obtained[predicted == threshold])[::-1]
    drawn = k - len(sure)
    # Chance that the j-th best of the t tied ones is the best of those drawn: it is, and none before it.
    j, t = np.arange(len(tied) - 1), len(tied)
    chance = drawn / t * np.concatenate([[1.0], np.cumprod((t - j - drawn) / (t - j - 1))])
    return float(obtained.max() - chance @ np.maximum(tied, sure.max(initial=-np.inf)))


def weighted_kendall_tau(predicted: Array, obtained: Array) -> float:
    """Rank correlation that weighs the top most (Vigna 2015), in [-1, 1]; 0 where one side is constant."""
    from scipy.stats import weightedtau

    constant = np.ptp(predicted) == 0.0 or np.ptp(obtained) == 0.0
    return 0.0 if constant else float(weightedtau(obtained, predicted).statistic)


def relative_error_increase(picked: Any, best: Any) -> float:
    """Mean error of the picks over that of the best, less 1 (Achille et al. 2019, table 2); of accuracies by task."""
    error, least = float((1.0 - np.asarray(picked)).mean()), float((1.0 - np.asarray(best)).mean())
    if least == 0.0:
        return 0.0 if error == 0.0 else float("inf")
    return error / least - 1.0


def judge(cases: Sequence[Case], predicted: Mapping[str, Sequence[Array]]) -> pd.DataFrame:
    """Compare predictions, by method and case, with the scores obtained: one row per method and task."""
    import pandas as pd

    return pd.DataFrame(
        {
            "method": method,
            "task": case.name,
            "n_candidates": len(case.obtained),
            "pick": case.candidates.ids[int(np.argmax(prediction))],
            "accuracy": accuracy_of_pick(prediction, case.obtained),
            "best": float(case.obtained.max()),
            "worst": float(case.obtained.min()),
            "regret_1": regret_at_k(prediction, case.obtained, 1),
            "regret_3": regret_at_k(prediction, case.obtained, 3),
            "tau": weighted_kendall_tau(prediction, case.obtained),
            "rel_1": accuracy_of_pick(prediction, case.obtained) / float(case.obtained.max()),
        }
        for method, predictions in predicted.items()
        for case, prediction in zip(cases, predictions, strict=True)
    )


def summarise(
    rows: pd.DataFrame, blind: Sequence[str] = ("static",), *, ceiling: float | None = None, seed: int = 0
) -> pd.DataFrame:
    """Average the rows of :func:`judge` by method, best first.

    Parameters
    ----------
    rows
        Rows of several methods on the same tasks.
    blind
        Methods that do not look at the task, beside those called ``always:…``: the best of them is the `base` that
        `gain` (with a 95 % bootstrap interval over tasks) compares with.
    ceiling
        Accuracy of a pick that noise allows, if known; `share_of_gap` is the gain over the way from `base` to it.
    seed
        Of the bootstrap.
    """
    import pandas as pd

    by_task = rows.pivot(index="task", columns="method", values="accuracy")
    base = by_task[[x for x in by_task.columns if x in blind or x.startswith("always:")]].mean().idxmax()
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
                "error_increase": relative_error_increase(part["accuracy"], part["best"]),
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
    draws = np.random.default_rng(seed).integers(len(values), size=(_RESAMPLES, len(values)))
    low, high = np.quantile(values[draws].mean(axis=1), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)

"""Judge metrics by the scores of tasks that they have not seen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hf_task2vec.errors import EvaluationError
from hf_task2vec.metric.observations import PROTOCOLS, REFERENCE_SOURCE, CheckpointFeatures, Observations
from hf_task2vec.metric.ranking_metric import LEVEL, LINEAR_PROBE, Metric, RankingMetric
from hf_task2vec.metric.task_space import KINDS
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
                # A user's dataset says nothing of its domain.
                replace(data.tasks.take(np.array([t])), names=(f"query:{names[t]}",), kinds=np.zeros((1, len(KINDS)))),
                data.checkpoints.take(data.checkpoint[rows]),
                data.score[rows],
                tuple(name for name in names if groups.get(name, name) == group),
            )
        )
    if not cases:
        raise EvaluationError(f"no embedded task has scores of {least} checkpoints or more from {source!r}")
    return cases


def without(metric: Metric, held_out: Iterable[str], inverse: Array | None = None) -> Metric:
    """Return a metric that does not know the scores of some tasks.

    It still knows their embeddings, which say nothing without scores and kinds but are among those that the space is
    centred on.
    With the `inverse` of the trained metric's covariance nothing is solved again (the scales of groups then stay).
    """
    data = metric.data
    tasks = np.isin(np.array(data.tasks.names), list(held_out))
    held, untold = tasks[data.task], replace(data.tasks, kinds=data.tasks.kinds * ~tasks[:, None])
    changes: dict[str, Any] = {"data": replace(data.rows(~held), tasks=untold)}
    if isinstance(metric, RankingMetric):
        changes["solved"] = None if inverse is None else forget(metric, inverse, held)[~held]
    return replace(metric, **changes)  # type: ignore[type-var]  # every metric is a dataclass


def forget(metric: RankingMetric, inverse: Array, rows: NDArray[np.bool_]) -> Array:
    """Return the weights of the scores without those at `rows`, shape (N,), from the inverse of their covariance."""
    weights = inverse @ metric.y
    if rows.any():
        weights = weights - inverse[:, rows] @ np.linalg.solve(inverse[np.ix_(rows, rows)], weights[rows])
    weights[rows] = 0.0
    return np.asarray(weights)


def inverse_covariance(metric: RankingMetric) -> Array:
    """Return the inverse of the scores' covariance, shape (N, N)."""
    from scipy.linalg.lapack import dpotrf, dpotri

    # Transposed it is the same matrix, in the order that LAPACK works on in place.
    factor, _ = dpotrf(metric.covariance().T, lower=True, overwrite_a=True)
    found, _ = dpotri(factor, lower=True, overwrite_c=True)
    upper = np.triu_indices(len(found), 1)
    found[upper] = found.T[upper]
    return np.asarray(found)


def predict_without(metric: RankingMetric, inverse: Array, blocks: NDArray[np.int64]) -> Array:
    """Predict every score from those of other blocks: exact leave-one-block-out (Rasmussen and Williams 2006, 5.12).

    Parameters
    ----------
    metric, inverse
        The metric, and the inverse of its covariance.
    blocks
        Shape (N,): which scores are forgotten together.

    Returns
    -------
    ndarray
        Shape (N,): standings in units of the groups' scales; what the level of a group says is not among them.
    """
    data, found = metric.data, np.empty(len(metric.y))
    for block in np.unique(blocks):
        rows = blocks == block
        left = forget(metric, inverse, rows)
        # The covariance times the weights left, where its rows are those forgotten: the level's share is taken off.
        level = LEVEL * np.bincount(data.group, left, minlength=len(data.first))[data.group[rows]]
        removed = np.linalg.solve(inverse[np.ix_(rows, rows)], inverse[rows] @ metric.y)
        found[rows] = metric.y[rows] - removed - level
    return found


#: Rules of thumb that a trained metric has to beat, by the column of ``checkpoints.csv`` that they sort by.
RULES = {"ImageNet accuracy": "in1k_top1", "parameters": "params_m", "multiply-adds": "gmacs"}
#: Limits on parameters, in millions, within which orders are judged as well.
LIMITS = (np.inf, 100.0, 30.0)


def cold_start(metric: RankingMetric, index: ZooIndex, *, least: int = 8) -> pd.DataFrame:
    """Judge how checkpoints are ranked when all scores of each one, of its family or of the laboratory are forgotten.

    Parameters
    ----------
    metric
        The metric, with all its scores. Its variances and lengths have seen them; loadings, which checkpoints have for
        their own scores, are left out.
    index
        Where its checkpoints' facts are.
    least
        Candidates that a group needs within a limit to be counted.

    Returns
    -------
    pandas.DataFrame
        A row for each question, method, limit and group: Kendall's tau between the order and that of the scores.
    """
    import pandas as pd
    from scipy.stats import kendalltau

    metric = replace(metric, parameters=replace(metric.parameters, loadings={}), solved=None)
    inverse, data = inverse_covariance(metric), metric.data
    facts = index.checkpoints.set_index("hub_id").loc[list(data.checkpoints.ids)]
    family = np.unique(data.checkpoints.family, return_inverse=True)[1]
    predicted = {
        "new checkpoint": predict_without(metric, inverse, data.checkpoint),
        "new family": predict_without(metric, inverse, family[data.checkpoint]),
        "new laboratory": predict_without(metric, inverse, data.laboratories[data.source]),
    }
    size = facts["params_m"].to_numpy(dtype=np.float64, na_value=np.inf)[data.checkpoint]
    rules = {name: facts[column].to_numpy(dtype=np.float64, na_value=np.nan) for name, column in RULES.items()}
    # What has no accuracy is taken for an average one.
    orders = {name: np.where(np.isnan(x), np.nanmedian(x), x)[data.checkpoint] for name, x in rules.items()}
    methods = [(question, "trained", values) for question, values in predicted.items()]
    methods += [(question, name, values) for question in predicted for name, values in orders.items()]
    found = []
    for limit in LIMITS:
        for group in range(len(data.first)):
            rows = np.flatnonzero((data.group == group) & (size <= limit))
            if len(rows) < least:
                continue
            source = data.sources[data.source[rows[0]]]
            for question, name, values in methods:
                tau = kendalltau(values[rows].round(9), data.y[rows]).statistic
                found.append(
                    {
                        "question": question,
                        "method": name,
                        "limit": limit,
                        "protocol": PROTOCOLS[0] if data.groups.tuned[group] else PROTOCOLS[1],
                        "source": source,
                        "task": data.tasks.names[data.task[rows[0]]],
                        "n": len(rows),
                        "tau": 0.0 if np.isnan(tau) else float(tau),
                    }
                )
    return pd.DataFrame(found, columns=["question", "method", "limit", "protocol", "source", "task", "n", "tau"])


def evaluate_metric(
    metric: Metric,
    cases: Sequence[Case],
    *,
    protocol: str = LINEAR_PROBE,
    inverse: Array | None = None,
    progress: bool = False,
) -> list[Array]:
    """Predict the standings of every case's candidates, from what is not held out, in logits.

    Parameters
    ----------
    metric, cases
        What is judged, and by what. The metric's parameters have seen the held-out scores.
    protocol
        Of the scores that the cases hold.
    inverse
        Of a trained metric's covariance, so that no fold is solved anew.
    progress
        Show a progress bar on stderr.
    """
    left: dict[tuple[str, ...], Metric] = {}
    found = []
    for case in each(cases, metric.name, "task", shown=progress):
        if case.held_out not in left:
            left[case.held_out] = without(metric, case.held_out, inverse) if case.held_out else metric
        found.append(left[case.held_out].predict_features(case.task, case.candidates, protocol=protocol).mean)
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

"""Does the similarity of tasks follow how checkpoints transfer to them? Part of ``relations.py``.

The empirical similarity of two tasks is the correlation, over checkpoints, of the logits of their accuracies in the
measured matrix (results/matrix.csv, column ``linear``; without checkpoints that have seen the task's images), after
each checkpoint's mean over all tasks is taken away: do the same checkpoints do better here than they do elsewhere?
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from properties_statistics import symmetrised
from properties_tasks import ROOT
from scipy.stats import rankdata
from tqdm import tqdm

from benchmarks.index.matrix import with_matrix
from hf_task2vec.embedding.distance import DISTANCES, pairwise
from hf_task2vec.metric.covariance import MetricParameters, task_kernel
from hf_task2vec.metric.evaluation import near_duplicates
from hf_task2vec.metric.observations import REFERENCE_SOURCE, Observations
from hf_task2vec.metric.ranking_metric import RankingMetric
from hf_task2vec.metric.training import fit_parameters
from hf_task2vec.zoo.index import ZooIndex

Array = NDArray[np.float64]

#: Checkpoints that both tasks of a pair need scores of.
LEAST_CHECKPOINTS = 8
PERMUTATIONS, RESAMPLES, SPLITS = 1999, 1000, 100


@dataclass(frozen=True, eq=False)
class Measured:
    """Tasks of the measured matrix.

    Attributes
    ----------
    position
        Shape (T,): where the tasks stand in the observations.
    residual
        Shape (T, C): logits without each checkpoint's mean, NaN where there is no score.
    group
        Shape (T,): near duplicates share one.
    """

    position: NDArray[np.int64]
    residual: Array
    group: NDArray[np.int64]

    def similarity(self, checkpoints: NDArray[np.int64] | None = None) -> Array:
        """Correlations of the tasks' rows, shape (T, T), over some checkpoints; NaN with too few in common."""
        rows = self.residual if checkpoints is None else self.residual[:, checkpoints]
        least = LEAST_CHECKPOINTS if checkpoints is None else LEAST_CHECKPOINTS // 2
        found = np.full((len(rows), len(rows)), np.nan)
        for i, j in combinations(range(len(rows)), 2):
            both = ~np.isnan(rows[i]) & ~np.isnan(rows[j])
            if both.sum() >= least:
                found[i, j] = found[j, i] = np.corrcoef(rows[i, both], rows[j, both])[0, 1]
        return found

    @property
    def pairs(self) -> NDArray[np.bool_]:
        """Pairs i < j that are no near duplicates, shape (T, T)."""
        return np.triu(self.group[:, None] != self.group[None, :], 1)


def measured(index: ZooIndex, data: Observations) -> Measured:
    """Arrange the measured scores, leaving out tasks with too few."""
    own = data.source == data.sources.index(REFERENCE_SOURCE)
    logits = np.full((len(data.tasks.names), len(data.checkpoints.ids)), np.nan)
    logits[data.task[own], data.checkpoint[own]] = data.y[own]
    tasks = np.flatnonzero((~np.isnan(logits)).sum(axis=1) >= LEAST_CHECKPOINTS)
    logits = logits[tasks][:, (~np.isnan(logits[tasks])).any(axis=0)]
    logits -= np.nanmean(logits, axis=1, keepdims=True)
    groups = near_duplicates(index)
    _, group = np.unique([groups[data.tasks.names[i]] for i in tasks], return_inverse=True)
    return Measured(tasks, logits - np.nanmean(logits, axis=0), group)


def correlations(a: Array, b: Array) -> dict[str, float]:
    """Pearson and Spearman correlation of two vectors."""
    return {
        "pearson": float(np.corrcoef(a, b)[0, 1]),
        "spearman": float(np.corrcoef(rankdata(a), rankdata(b))[0, 1]),
    }


def agreement(similarity: Array, empirical: Array, pairs: NDArray[np.bool_], *, seed: int = 0) -> dict[str, Any]:
    """Correlations over pairs, with p-values by permuting the tasks (Mantel) and intervals by resampling them."""
    rng = np.random.default_rng(seed)
    n = len(similarity)
    observed = correlations(similarity[pairs], empirical[pairs])
    at_least = dict.fromkeys(observed, 0)
    for _ in range(PERMUTATIONS):
        order = rng.permutation(n)
        found = correlations(similarity[np.ix_(order, order)][pairs], empirical[pairs])
        for kind, value in found.items():
            at_least[kind] += value >= observed[kind]
    either = pairs | pairs.T
    drawn: dict[str, list[float]] = {kind: [] for kind in observed}
    for _ in range(RESAMPLES):
        rows = rng.integers(n, size=n)
        grid = np.ix_(rows, rows)
        kept = np.triu(either[grid], 1)  # a task drawn twice is no pair with itself
        for kind, value in correlations(similarity[grid][kept], empirical[grid][kept]).items():
            drawn[kind].append(value)
    return {
        kind: {
            "value": value,
            "interval_95": np.percentile(drawn[kind], [2.5, 97.5]).tolist(),
            "p_value": (at_least[kind] + 1) / (PERMUTATIONS + 1),
        }
        for kind, value in observed.items()
    }


def similarities(metric: RankingMetric, index: ZooIndex, tasks: NDArray[np.int64]) -> dict[str, Array]:
    """Task similarities by name, each of shape (T, T)."""
    table = index.embeddings
    known = metric.data.tasks.take(tasks)
    embeddings = [table[name] for name in known.names]
    found = {f"minus {kind}": -symmetrised(pairwise(embeddings, kind)) for kind in DISTANCES}
    found["centred Fisher profiles"] = known.profiles @ known.profiles.T
    found["feature moments"] = known.moments @ known.moments.T
    found["descriptors"] = -np.sum((known.descriptors[:, None] - known.descriptors[None]) ** 2, axis=-1)
    return found


def learned(parameters: MetricParameters, data: Observations, tasks: NDArray[np.int64]) -> Array:
    """Logarithm of the trained metric's task similarity, shape (T, T)."""
    known = data.tasks.take(tasks)
    different = np.zeros((len(tasks), len(tasks)), dtype=bool)
    aligned = parameters.aligned(data.sources, data.checkpoints.ids)
    return np.log(np.maximum(task_kernel(aligned, known, known, different), 1e-300))


def unseen(data: Observations, table: Measured, others: dict[str, Array], *, splits: int, seed: int = 0) -> Any:
    """Learn the metric from one half of the groups of tasks and correlate among the other half; means over splits."""
    rng = np.random.default_rng(seed)
    empirical = table.similarity()
    own = data.source == data.sources.index(REFERENCE_SOURCE)
    found: dict[str, list[dict[str, float]]] = {"trained metric": [], **{name: [] for name in others}}
    for _ in tqdm(range(splits), desc="half of the tasks", leave=False):
        side = rng.permutation(table.group.max() + 1)[table.group] % 2
        for k in (0, 1):
            seen = np.isin(data.task, table.position[side == k])
            parameters, _ = fit_parameters(data.rows(own & seen), max_iterations=40)
            pairs = table.pairs & (side[:, None] != k) & (side[None, :] != k)
            for name, matrix in {"trained metric": learned(parameters, data, table.position), **others}.items():
                found[name].append(correlations(matrix[pairs], empirical[pairs]))
    return {
        name: {kind: float(np.mean([row[kind] for row in rows])) for kind in rows[0]} for name, rows in found.items()
    }


def reliability(table: Measured, *, seed: int = 0) -> dict[str, float]:
    """Correlation of the empirical similarities by two random halves of the checkpoints, and what it lets expect.

    ``reliability`` is the Spearman-Brown estimate for all checkpoints, and its root the correlation that the true
    similarity would have with the measured one.
    """
    rng = np.random.default_rng(seed)
    n = table.residual.shape[1]
    halves = []
    for _ in range(SPLITS):
        order = rng.permutation(n)
        a, b = (table.similarity(part) for part in (order[: n // 2], order[n // 2 :]))
        halves.append(correlations(a[table.pairs], b[table.pairs])["pearson"])
    half = float(np.mean(halves))
    full = 2 * half / (1 + half)
    return {"of_halves": half, "reliability": full, "best_possible": float(np.sqrt(max(full, 0.0)))}


def similarity_study(splits: int = 5) -> dict[str, Any]:
    """Correlate every similarity with the empirical one."""
    index = with_matrix(ZooIndex.load(ROOT / "zoo_index"))
    metric = RankingMetric.from_index(index)
    table = measured(index, metric.data)
    empirical = table.similarity()
    known = similarities(metric, index, table.position)
    shipped = learned(metric.parameters, metric.data, table.position)
    everything = {**known, "trained metric, on these very scores": shipped}
    bar = tqdm(everything.items(), desc="similarities", leave=False)
    return {
        "n_tasks": len(table.position),
        "n_checkpoints": table.residual.shape[1],
        "n_pairs": int(table.pairs.sum()),
        "agreement": {name: agreement(matrix, empirical, table.pairs) for name, matrix in bar},
        "of_tasks_not_learned_from": unseen(metric.data, table, known, splits=splits),
        "empirical": reliability(table),
    }

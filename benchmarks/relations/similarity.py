"""Does the similarity of tasks follow how checkpoints transfer to them?

    python -m benchmarks.relations.similarity [--splits 5]

The empirical similarity of two tasks is the correlation, over checkpoints, of the logits of their accuracies in the
measured matrix (without checkpoints that have seen the task's images), after each checkpoint's mean over all tasks is
taken away: do the same checkpoints do better here than they do elsewhere?

Reported: Pearson and Spearman correlations with it of minus the distances and of the trained metric's similarity
(logarithm), over pairs of tasks that are no near duplicates, with 95 % intervals by resampling the tasks; and the same
among one half of the tasks of a metric trained on the other, means over `--splits` splits. Raw output:
results/similarity.json; with other than the defaults nothing is written.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import pearsonr, spearmanr
from tqdm import tqdm

from benchmarks.common import parser, write
from benchmarks.index.matrix import with_matrix
from benchmarks.properties.distances import Array, symmetrised
from hf_task2vec import ZooIndex
from hf_task2vec.embedding.distance import DISTANCES, pairwise
from hf_task2vec.embedding.embed import library_versions
from hf_task2vec.metric.covariance import MetricParameters, task_kernel
from hf_task2vec.metric.evaluation import near_duplicates
from hf_task2vec.metric.observations import REFERENCE_SOURCE, Observations
from hf_task2vec.metric.ranking_metric import RankingMetric
from hf_task2vec.metric.training import fit_parameters

#: Checkpoints that both tasks of a pair need scores of.
LEAST_CHECKPOINTS = 8
RESAMPLES = 1000


@dataclass(frozen=True, eq=False)
class Measured:
    """T tasks of the measured matrix.

    Attributes
    ----------
    position
        Shape (T,): where the tasks stand in the observations.
    similarity
        Shape (T, T): correlations of their rows; NaN with too few checkpoints in common.
    group
        Shape (T,): near duplicates share one.
    """

    position: NDArray[np.int64]
    similarity: Array
    group: NDArray[np.int64]

    @classmethod
    def of(cls, index: ZooIndex, data: Observations) -> Measured:
        """Arrange the measured scores, leaving out tasks with too few."""
        import pandas as pd

        own = data.source == data.sources.index(REFERENCE_SOURCE)
        logits = np.full((len(data.tasks.names), len(data.checkpoints.ids)), np.nan)
        logits[data.task[own], data.checkpoint[own]] = data.y[own]
        tasks = np.flatnonzero((~np.isnan(logits)).sum(axis=1) >= LEAST_CHECKPOINTS)
        table = pd.DataFrame(logits[tasks].T)
        table -= table.mean()
        similarity = table.sub(table.mean(axis=1), axis=0).corr(min_periods=LEAST_CHECKPOINTS).to_numpy()
        groups = near_duplicates(index)
        _, group = np.unique([groups[data.tasks.names[i]] for i in tasks], return_inverse=True)
        return cls(tasks, similarity, group)

    @property
    def pairs(self) -> NDArray[np.bool_]:
        """Pairs i < j that are no near duplicates, shape (T, T)."""
        return np.triu(self.group[:, None] != self.group[None, :], 1)


def correlations(a: Array, b: Array) -> dict[str, float]:
    """Pearson and Spearman correlation of two vectors."""
    return {"pearson": float(pearsonr(a, b).statistic), "spearman": float(spearmanr(a, b).statistic)}


def agreement(similarity: Array, measured: Measured, *, seed: int = 0) -> dict[str, Any]:
    """Correlations over pairs, with intervals by resampling the tasks."""
    rng, n = np.random.default_rng(seed), len(similarity)
    either = measured.pairs | measured.pairs.T
    drawn = []
    for _ in range(RESAMPLES):
        rows = rng.integers(n, size=n)
        grid = np.ix_(rows, rows)
        kept = np.triu(either[grid], 1)  # a task drawn twice is no pair with itself
        drawn.append(correlations(similarity[grid][kept], measured.similarity[grid][kept]))
    observed = correlations(similarity[measured.pairs], measured.similarity[measured.pairs])
    return {
        kind: {"value": value, "interval_95": np.percentile([found[kind] for found in drawn], [2.5, 97.5]).tolist()}
        for kind, value in observed.items()
    }


def learned(parameters: MetricParameters, data: Observations, tasks: NDArray[np.int64]) -> Array:
    """Logarithm of the trained metric's task similarity, shape (T, T)."""
    known = data.tasks.take(tasks)
    different = np.zeros((len(tasks), len(tasks)), dtype=bool)
    return np.log(np.maximum(task_kernel(parameters, known, known, different), 1e-300))


def unseen(data: Observations, measured: Measured, distance: Array, splits: int) -> dict[str, dict[str, float]]:
    """Learn the metric from one half of the groups of tasks and correlate among the other half; means over splits."""
    rng = np.random.default_rng(0)
    own = data.source == data.sources.index(REFERENCE_SOURCE)
    found: dict[str, list[dict[str, float]]] = {"trained metric": [], "minus log_correlation": []}
    for _ in tqdm(range(splits), desc="half of the tasks", leave=False):
        side = rng.permutation(measured.group.max() + 1)[measured.group] % 2
        for k in (0, 1):
            seen = np.isin(data.task, measured.position[side == k])
            parameters, _ = fit_parameters(data.rows(own & seen), steps=40)
            pairs = measured.pairs & (side[:, None] != k) & (side[None, :] != k)
            for rows, similarity in zip(
                found.values(), (learned(parameters, data, measured.position), -distance), strict=True
            ):
                rows.append(correlations(similarity[pairs], measured.similarity[pairs]))
    return {
        name: {kind: float(np.mean([row[kind] for row in rows])) for kind in rows[0]} for name, rows in found.items()
    }


def main() -> None:
    """Correlate every similarity with the empirical one, and write the raw output."""
    arguments = parser(__doc__)
    arguments.add_argument("--splits", type=int, default=5)
    args = arguments.parse_args()
    index = with_matrix(ZooIndex.load())
    metric = RankingMetric.from_index(index)
    measured = Measured.of(index, metric.data)
    embeddings = [index.embeddings[metric.data.tasks.names[i]] for i in measured.position]
    distances = {kind: symmetrised(pairwise(embeddings, kind)) for kind in DISTANCES}
    similarities = {f"minus {kind}": -matrix for kind, matrix in distances.items()}
    shipped = learned(metric.parameters, metric.data, measured.position)
    similarities["trained metric, on these very scores"] = shipped
    document = {
        "n_tasks": len(measured.position),
        "n_pairs": int(measured.pairs.sum()),
        "agreement": {name: agreement(matrix, measured) for name, matrix in similarities.items()},
        "of_tasks_not_learned_from": unseen(metric.data, measured, distances["log_correlation"], args.splits),
        "versions": library_versions(),
    }
    for name, found in document["agreement"].items():
        print(f"{name:40} " + "  ".join(f"{kind} {row['value']:.2f}" for kind, row in found.items()))
    print(document["of_tasks_not_learned_from"])
    if args == arguments.parse_args([]):
        write("similarity", document)


if __name__ == "__main__":
    main()

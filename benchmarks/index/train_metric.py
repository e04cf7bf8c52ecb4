"""Learn the metric's parameters and put them into the index: ``metric.json``, and the solved ``metric.safetensors``.

    python -m benchmarks.index.train_metric [--index zoo_index] [--steps 100]

Besides the index's own scores it learns from the measured matrix (results/matrix.csv), which also holds checkpoints
that are on no Hub: those never reach the index, but they say how far tasks and facts matter. Variances, lengths and
noises by marginal likelihood. The index's own scores then give scales and levels of the protocols, and `spreads`, so
that 80 % intervals of tasks left out hold 80 %, and those of differences between fine-tuned checkpoints in laboratories
left out. Deterministic for a number of threads (others differ in the ninth digit). Raw output:
results/metric_training.json.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.common import ROOT, parser, read_matrix, write
from benchmarks.index.matrix import index_name, with_matrix
from hf_task2vec import RankingMetric, ZooIndex
from hf_task2vec.metric.evaluation import Case, forget, inverse_covariance, leave_one_out_cases, without
from hf_task2vec.metric.observations import CHECKPOINT_FACTS, checkpoint_features, logit
from hf_task2vec.metric.prediction import Prediction
from hf_task2vec.metric.ranking_metric import FINE_TUNE, LINEAR_PROBE, evidence
from hf_task2vec.metric.training import calibrate, fit_parameters
from hf_task2vec.probes.scores import Score

PROBE = "timm/tf_efficientnet_lite0.in1k"
HALF_WIDTH_80 = 1.2816
#: Spreads to choose from.
SPREADS = np.geomspace(0.1, 10.0, 47)


def calibrated_spread(own: RankingMetric, index: ZooIndex) -> tuple[float, float]:
    """Return the spread with which 80 % intervals of tasks left out hold 80 %, and what they hold with it."""
    inverse = inverse_covariance(own)
    cases = [case for case in leave_one_out_cases(index, own.data) if PROBE in case.candidates.ids]
    predictions = [without(own, case.held_out, inverse).predict_features(case.task, case.candidates) for case in cases]
    covered = [coverage(cases, predictions, float(spread)) for spread in SPREADS]
    best = int(np.argmin(np.abs(np.array(covered) - 0.8)))
    return float(SPREADS[best]), covered[best]


def coverage(cases: list[Case], predictions: list[Prediction], spread: float) -> float:
    """Share of the measured accuracies that the 80 % intervals hold, given the probe's own on the task left out.

    `predictions` state variances of spread 1.
    """
    inside, counts = [], {task: row["n"] for (task, name), row in read_matrix().items() if index_name(name) == PROBE}
    for case, before in zip(cases, predictions, strict=True):
        anchor = case.candidates.ids.index(PROBE)
        known = {PROBE: Score.of_share(float(case.obtained[anchor]), counts[case.name])}
        assert before.posterior is not None
        posterior = replace(before.posterior, spread=spread)
        prediction = replace(before, noise=spread * before.noise, posterior=posterior).given(known)
        off = np.abs(logit(np.clip(case.obtained, 0.004, 0.996)) - prediction.mean)
        inside += np.delete(off <= HALF_WIDTH_80 * np.sqrt(prediction.variance()), anchor).tolist()
    return float(np.mean(inside))


def calibrated_between_laboratories(own: RankingMetric) -> tuple[float, float]:
    """Return the same for intervals of differences between fine-tuned checkpoints in laboratories left out.

    On tasks without an embedding, of which nothing is known then; each laboratory counts as one.
    """
    data, inverse = own.data, inverse_covariance(own)
    ratios: list[np.ndarray] = []  # by laboratory: squares of differences over their variances
    for laboratory in np.unique(data.laboratories[data.source[data.groups.tuned[data.group]]]):
        left = data.laboratories[data.source] == laboratory
        rest = RankingMetric(own.parameters, own.space, data.rows(~left), forget(own, inverse, left)[~left])
        found = []
        for group in np.unique(data.group[left & data.groups.tuned[data.group]]):
            rows = np.flatnonzero(data.group == group)
            if data.tasks.embedded[data.task[rows[0]]]:
                continue
            task, candidates = data.tasks.take(data.task[rows[:1]]), data.checkpoints.take(data.checkpoint[rows])
            prediction = rest.predict_features(task, candidates, protocol=FINE_TUNE)
            off = prediction.unit * own.y[rows] - prediction.mean
            for i in range(len(rows)):
                variance = prediction.variance_of_differences(i, np.arange(len(rows)))
                found.append(np.delete((off - off[i]) ** 2 / variance, i))
        if found:
            ratios.append(np.concatenate(found))
    covered = [float(np.mean([np.mean(r <= s * HALF_WIDTH_80**2) for r in ratios])) for s in SPREADS]
    best = int(np.argmin(np.abs(np.array(covered) - 0.8)))
    return float(SPREADS[best]), covered[best]


def typical_accuracy(index: ZooIndex) -> list[float]:
    """Ridge regression of known ImageNet accuracies on the other numeric facts: what `TYPICAL_ACCURACY` rounds."""
    known = index.checkpoints[index.checkpoints["in1k_top1"].notna()]
    numbers = checkpoint_features(known).numbers[:, : CHECKPOINT_FACTS.index("year") + 1]
    x, y = np.column_stack([np.ones(len(numbers)), numbers[:, 1:]]), numbers[:, 0]
    return [round(v, 3) for v in np.linalg.solve(x.T @ x + np.eye(x.shape[1]), x.T @ y).tolist()]


def main() -> None:
    """Train and save."""
    arguments = parser(__doc__)
    arguments.add_argument("--index", type=Path, default=ROOT / "zoo_index")
    arguments.add_argument("--steps", type=int, default=100)
    args = arguments.parse_args()
    index = ZooIndex.load(args.index)
    parameters, report = fit_parameters(evidence(with_matrix(index))[1], steps=args.steps)
    known = set(index.checkpoints["hub_id"])
    loadings = {name: values for name, values in parameters.loadings.items() if name in known}
    own = RankingMetric(replace(parameters, loadings=loadings), *evidence(index))
    parameters = calibrate(own)
    own = replace(own, parameters=parameters, solved=own.weights)
    spread, covered = calibrated_spread(own, index)
    of_tuned, covered_tuned = calibrated_between_laboratories(own)
    parameters = replace(parameters, spreads={FINE_TUNE: of_tuned, LINEAR_PROBE: spread})
    report |= {
        "coverage": covered,
        "coverage_of_differences_fine_tuned": covered_tuned,
        "typical_accuracy": typical_accuracy(index),
    }
    write("metric_training", {**report, "parameters": json.loads(parameters.to_json())["parameters"]})
    kept = {key: report[key] for key in ("n_scores", "n_tasks", "n_checkpoints", "objective_before", "objective_after")}
    index.with_attachments(replace(own, parameters=parameters).files(kept)).save(args.index)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()

"""Do the recommendations beat "just take the best model"? Leave-one-task-out on the measured matrix.

    python -m benchmarks.selection.leave_one_out [--only methods cold_start ...] [--steps 40]

The matrix (results/matrix.csv) holds the leave-one-out accuracy of frozen features for every measured checkpoint on
the shared tasks. A checkpoint is no candidate for tasks that it was trained on, and tasks that most were trained on
(those of ImageNet) are left out. Each task is predicted from all scores of the index but its own and those of its near
duplicates (same group in tasks.csv). For the first picks (`methods`) the metric's parameters are learned anew on the
embedded tasks that are left (`--steps` from those of all, its loadings from nothing). The part `cold_start` asks the
other question: how are checkpoints ranked that nobody has measured?

Reported for every method: accuracy of the pick, relative error increase over the oracle, regret@1 and @3, weighted
Kendall tau, Rel@1, the gain over the best rule that does not look at the task (mean standing, share of wins, best
ImageNet, or always the same checkpoint, chosen in hindsight) with a bootstrap interval over tasks, and the share of the
gap between that rule and the noise ceiling (the best checkpoint on one random half of a task's images, judged by the
other half). Raw output: results/selection.json.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from benchmarks.common import RESULTS, ROOT, parser, read, read_matrix, records, write
from benchmarks.index.matrix import matrix_name, with_matrix
from benchmarks.selection.baselines import ALL_METRICS, TARGET_BLIND
from benchmarks.selection.published import run_cold_start, run_domains, run_kinds, run_new_tasks, run_published
from hf_task2vec import RankingMetric, ZooIndex
from hf_task2vec.embedding.embed import library_versions
from hf_task2vec.metric.covariance import METRIC_FILE, MetricParameters
from hf_task2vec.metric.evaluation import (
    Case,
    always,
    evaluate_metric,
    inverse_covariance,
    judge,
    leave_one_out_cases,
    summarise,
    without,
)
from hf_task2vec.metric.observations import REFERENCE_SOURCE, Observations
from hf_task2vec.metric.ranking_metric import Metric, evidence
from hf_task2vec.metric.training import calibrate, fit_parameters
from hf_task2vec.probes.scores import Score
from hf_task2vec.selection.refinement import next_candidate

PROBE = "timm/tf_efficientnet_lite0.in1k"
SPLITS = 10
LEAST = 8  # candidates of a task
#: What of a task's representation is made alike for all tasks, so that the rest is left.
ABLATIONS = {
    "fisher": ("moments", "descriptors"),
    "moments": ("profiles", "descriptors"),
    "descriptors": ("profiles", "moments"),
    "fisher+moments": ("descriptors",),
    "fisher+descriptors": ("moments",),
    "moments+descriptors": ("profiles",),
    "all": (),
}


class Matrix:
    """The measured matrix: cases, all evidence, the shipped metric, and which images are classified rightly."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        index = ZooIndex.load(ROOT / "zoo_index")
        self.index = with_matrix(index)
        self.space, self.everything = evidence(self.index)
        self.cases = leave_one_out_cases(self.index, self.everything, least=LEAST)
        measured = self.everything.source == self.everything.sources.index(REFERENCE_SOURCE)
        self.data = self.everything.rows(measured)
        parameters = MetricParameters.from_json(index.attachments[METRIC_FILE])
        metric = RankingMetric(parameters, self.space, self.everything)
        # These small networks differ by more than those that the shipped scales are of.
        self.metric = replace(metric, parameters=replace(parameters, scales=calibrate(metric).scales))
        self._folds: dict[tuple[str, ...], Metric] = {}
        packed, counts = np.load(RESULTS / "matrix_correct.npz"), read_matrix()
        self.correct: dict[str, np.ndarray] = {}
        for case in self.cases:
            rows = []
            for name in map(matrix_name, case.candidates.ids):
                right = np.unpackbits(packed[f"{name.replace('/', '--')}:{case.name}"])
                rows.append(right[: counts[case.name, name]["n"]])
            self.correct[case.name] = np.array(rows, dtype=np.float64)

    @cached_property
    def inverse(self) -> np.ndarray:
        """Inverse of the covariance of all scores."""
        return inverse_covariance(self.metric)

    def fold(self, case: Case) -> Metric:
        """The metric that knows nothing of the scores of a case's task and its near duplicates."""
        if case.held_out not in self._folds:
            data = without(self.metric, case.held_out).data
            embedded = data.rows(data.tasks.embedded[data.task])
            start = replace(self.metric.parameters, loadings={})
            parameters, _ = fit_parameters(embedded, start, steps=self.steps)
            self._folds[case.held_out] = RankingMetric(parameters, self.space, data)
        return self._folds[case.held_out]

    def predicted(self, name: str) -> list[np.ndarray]:
        """What a method without parameters of its own predicts."""
        return evaluate_metric(ALL_METRICS[name](self.space, self.data), self.cases)

    def halves(self, case: Case, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Accuracies of the candidates on two random halves of a task's images."""
        correct = self.correct[case.name]
        order = np.random.default_rng(seed).permutation(correct.shape[1])
        half = correct.shape[1] // 2
        return correct[:, order[:half]].mean(axis=1), correct[:, order[half:]].mean(axis=1)

    @cached_property
    def ceiling(self) -> float:
        """Accuracy of the best checkpoint of one half, judged by the other."""
        found = []
        for case in self.cases:
            for seed in range(SPLITS):
                a, b = self.halves(case, seed)
                found += [y[x == x.max()].mean() for x, y in ((a, b), (b, a))]
        return float(np.mean(found))

    def share_of_gap(self, accuracy: float) -> float:
        """How far an accuracy lies on the way from always the same checkpoint to the ceiling."""
        blind = pick_accuracy(self.cases, always(self.cases)[1])
        return (accuracy - blind) / (self.ceiling - blind)


def pick_accuracy(cases: Sequence[Case], predicted: Sequence[np.ndarray]) -> float:
    """Mean accuracy of the picks."""
    return float(np.mean([case.obtained[p.argmax()] for case, p in zip(cases, predicted, strict=True)]))


def with_tasks(cases: Sequence[Case], data: Observations) -> list[Case]:
    """Replace the cases' task features by those in `data`."""
    at = {name: np.array([i]) for i, name in enumerate(data.tasks.names)}
    return [replace(c, task=replace(data.tasks.take(at[c.name]), names=c.task.names)) for c in cases]


def of_other_tasks(matrix: Matrix, data: Observations) -> list[np.ndarray]:
    """What the metric predicts from measured scores where `data` has other features of the tasks."""
    metric = RankingMetric(matrix.metric.parameters, matrix.space, data)
    return evaluate_metric(metric, with_tasks(matrix.cases, data), inverse=inverse_covariance(metric))


def permuted(data: Observations, seed: int) -> Observations:
    """Give every embedded task the embedding of another."""
    rows = np.arange(len(data.tasks.names))
    embedded = np.flatnonzero(data.tasks.embedded)
    rows[embedded] = np.random.default_rng(seed).permutation(embedded)
    return replace(data, tasks=replace(data.tasks.take(rows), names=data.tasks.names))


def blanked(data: Observations, parts: Sequence[str]) -> Observations:
    """Make all tasks alike in some respects (``profiles, moments, descriptors``)."""
    changes: dict[str, Any] = {}
    for name in parts:
        same = np.zeros_like(getattr(data.tasks, name))
        if name != "descriptors":
            same[:, 0] = 1.0  # a unit vector, so that all distances are 0
        changes[name] = same
    return replace(data, tasks=replace(data.tasks, **changes))


def run_methods(matrix: Matrix) -> dict[str, Any]:
    """Every named method, and controls whose embeddings are permuted."""
    predicted = {name: matrix.predicted(name) for name, kind in ALL_METRICS.items() if kind is not RankingMetric}
    predicted["trained"] = [matrix.fold(c).predict_features(c.task, c.candidates).mean for c in matrix.cases]
    for seed in range(3):
        predicted[f"permuted_{seed}"] = of_other_tasks(matrix, permuted(matrix.data, seed))
    constant, picks = always(matrix.cases)
    rows = judge(matrix.cases, {**predicted, f"always:{constant}": picks})
    return {"summary": records(summarise(rows, TARGET_BLIND, ceiling=matrix.ceiling)), "rows": records(rows)}


def run_ablations(matrix: Matrix) -> dict[str, Any]:
    """What each part of a task's representation contributes."""
    constant, picks = always(matrix.cases)
    predicted = {"static": matrix.predicted("static"), f"always:{constant}": picks}
    for name, parts in ABLATIONS.items():
        predicted[name] = of_other_tasks(matrix, blanked(matrix.data, parts))
    rows = judge(matrix.cases, predicted)
    return {"summary": records(summarise(rows, TARGET_BLIND, ceiling=matrix.ceiling))}


def run_refine(matrix: Matrix) -> dict[str, Any]:
    """Measure k candidates on one half of the images, each chosen in the light of those before; judge by the other.

    The scores of the task and its near duplicates are forgotten; variances and lengths have seen them.
    """
    counts = (0, 1, 3, 5, 10)
    picked: dict[int, list[float]] = {k: [] for k in counts}
    best_measured: dict[int, list[float]] = {k: [] for k in counts}
    for case in matrix.cases:
        ids, n = case.candidates.ids, matrix.correct[case.name].shape[1] // 2
        fold = without(matrix.metric, case.held_out, matrix.inverse)
        picks: dict[int, list[float]] = {k: [] for k in counts}
        tops: dict[int, list[float]] = {k: [] for k in counts}
        halves = (matrix.halves(case, seed) for seed in range(SPLITS))
        for half, other in (pair for a, b in halves for pair in ((a, b), (b, a))):
            measured = {name: Score.of_share(share, n) for name, share in zip(ids, half, strict=True)}
            known = {PROBE: measured[PROBE]} if PROBE in ids else {}
            chosen: list[str] = []
            for k in range(max(counts) + 1):
                prediction = fold.predict_features(case.task, case.candidates, known)
                if k in counts:
                    picks[k].append(float(other[int(np.argmax(prediction.mean))]))
                    if at := [ids.index(name) for name in chosen]:
                        tops[k].append(float(other[max(at, key=lambda i: half[i])]))
                name = next_candidate(prediction, known, set(ids) - set(chosen))
                if name is None:
                    break
                chosen.append(name)
                known = known | {name: measured[name]}
        for found, values in ((picked, picks), (best_measured, tops)):
            for k, by_task in found.items():
                by_task.append(float(np.mean(values[k])) if values[k] else np.nan)
    rows = []
    for k in counts:
        mean = float(np.nanmean(picked[k]))
        rows.append({"k": k, "accuracy": mean, "share_of_gap": matrix.share_of_gap(mean)})
        if k:
            rows[-1]["best_of_those_measured"] = float(np.nanmean(best_measured[k]))
    return {"shared_error": shared_error(matrix), "rows": rows}


def shared_error(matrix: Matrix, best: int = 6) -> float:
    """Mean correlation of right answers on the same images, among the best checkpoints of each task."""
    found = []
    for correct in matrix.correct.values():
        top = np.argsort(-correct.mean(axis=1), kind="stable")[:best]
        varied = correct[top][correct[top].std(axis=1) > 0.0]  # none where all images are classified rightly
        if len(varied) > 1:
            found.append(np.corrcoef(varied)[np.triu_indices(len(varied), 1)].mean())
    return float(np.mean(found))


def run_coverage(matrix: Matrix) -> dict[str, Any]:
    """How often the 80 % interval holds the measured accuracy, given the probe's own; of checkpoints on the Hub."""
    inside, widths = {}, []
    index = ZooIndex.load(ROOT / "zoo_index")
    metric = RankingMetric.from_index(index)
    inverse, cases = inverse_covariance(metric), leave_one_out_cases(index, metric.data)
    for case in (case for case in cases if PROBE in case.candidates.ids):
        anchor = case.candidates.ids.index(PROBE)
        n = matrix.correct[case.name].shape[1]
        known = {PROBE: Score.of_share(float(case.obtained[anchor]), n)}
        prediction = without(metric, case.held_out, inverse).predict_features(case.task, case.candidates, known)
        half = 1.2816 * np.sqrt(prediction.variance())
        smoothed = (case.obtained * n + 0.5) / (n + 1.0)
        others = np.arange(len(half)) != anchor
        inside[case.name] = (np.abs(np.log(smoothed / (1.0 - smoothed)) - prediction.mean) <= half)[others]
        low, high = (1.0 / (1.0 + np.exp(-(prediction.mean + side * half))) for side in (-1.0, 1.0))
        widths.append(np.median((high - low)[others]))
    lowest = sorted((float(values.mean()), name) for name, values in inside.items())[:5]
    return {
        "coverage": float(np.concatenate(list(inside.values())).mean()),
        "median_width": float(np.median(widths)),
        "lowest": {name: rate for rate, name in lowest},
    }


PARTS: dict[str, Callable[[Matrix], Any]] = {
    "methods": run_methods,
    "cold_start": lambda _: run_cold_start(ZooIndex.load(ROOT / "zoo_index")),
    "new_tasks": lambda _: run_new_tasks(ZooIndex.load(ROOT / "zoo_index")),
    "kinds": lambda _: run_kinds(ZooIndex.load(ROOT / "zoo_index")),
    "domains": lambda _: run_domains(ZooIndex.load(ROOT / "zoo_index")),
    "ablations": run_ablations,
    "refine": run_refine,
    "coverage": run_coverage,
    "published": lambda matrix: run_published(matrix.index, matrix.metric, matrix.inverse),
}


def main() -> None:
    """Run the parts asked for and merge them into the raw output."""
    arguments = parser(__doc__)
    arguments.add_argument("--steps", type=int, default=40)
    arguments.add_argument("--only", nargs="*", choices=PARTS, default=list(PARTS))
    args = arguments.parse_args()
    matrix = Matrix(args.steps)
    document = read("selection") | {
        "n_tasks": len(matrix.cases),
        "n_checkpoints": len({name for case in matrix.cases for name in case.candidates.ids}),
        "oracle": float(np.mean([case.obtained.max() for case in matrix.cases])),
        "ceiling": matrix.ceiling,
        "steps": args.steps,
        "versions": library_versions(),
    }
    for name in args.only:
        document[name] = PARTS[name](matrix)
        write("selection", document)
        print(name, json.dumps(document[name], indent=1)[:4000], flush=True)


if __name__ == "__main__":
    main()

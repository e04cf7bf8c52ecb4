"""Do the recommendations beat "just take the best model"? Leave-one-task-out on the measured matrix.

    python -m benchmarks.selection.leave_one_out [--only methods ranks ...] [--iterations 15]

The matrix (results/matrix.csv) holds the leave-one-out accuracy of frozen features for 16 checkpoints on the shared
tasks, of which those are used that no checkpoint was trained on. Each task is predicted from the others; near
duplicates (same group in tasks.csv) are left out together, and the metric's parameters are trained anew on what is left
(`--iterations` steps from the optimum of all).

Reported for every method: accuracy of the pick, relative error increase over the oracle, regret@1 and @3, weighted
Kendall tau, Rel@1, the gain over the best rule that does not look at the task (mean standing, share of wins, best
ImageNet, or always the same checkpoint, chosen in hindsight) with a bootstrap interval over tasks, and the share of the
gap between that rule and the noise ceiling (the best checkpoint on one random half of a task's images, judged by the
other half). Raw output: results/selection.json.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import RESULTS, read_matrix
from benchmarks.index.matrix import matrix_name, with_matrix
from benchmarks.selection.baselines import ALL_METRICS, TARGET_BLIND
from benchmarks.selection.published import records, run_published
from hf_task2vec.embedding.embed import library_versions
from hf_task2vec.files import write_json
from hf_task2vec.metric.covariance import MetricParameters
from hf_task2vec.metric.evaluation import Case, always, evaluate_metric, judge, leave_one_out_cases, summarise, without
from hf_task2vec.metric.observations import REFERENCE_SOURCE, Observations, TaskSpace
from hf_task2vec.metric.ranking_metric import Metric, RankingMetric, evidence
from hf_task2vec.metric.training import fit_parameters
from hf_task2vec.probes.scores import Score
from hf_task2vec.selection.refinement import next_candidate
from hf_task2vec.zoo.index import ZooIndex

ROOT = Path(__file__).resolve().parents[2]
PROBE = "timm/tf_efficientnet_lite0.in1k"
PARTS = ("methods", "ranks", "budgets", "ablations", "refine", "coverage", "published")
SPLITS = 10


class Matrix:
    """The measured matrix: cases, evidence of it alone, and which images each checkpoint classifies rightly."""

    def __init__(self, index: ZooIndex) -> None:
        self.index = index
        self.space, self.all = evidence(index)
        self.cases = leave_one_out_cases(index, self.all)
        self.data = self.all.rows(self.all.source == self.all.sources.index(REFERENCE_SOURCE))
        packed = np.load(RESULTS / "matrix_correct.npz")
        counts = {(task, checkpoint): int(row["n"]) for (task, checkpoint), row in read_matrix().items()}
        self.correct: dict[str, np.ndarray] = {}
        for case in self.cases:
            rows = []
            for name in case.candidates.ids:
                known = matrix_name(name)
                key = f"{known.replace('/', '--')}:{case.name}"
                rows.append(np.unpackbits(packed[key])[: counts[case.name, known]])
            self.correct[case.name] = np.array(rows, dtype=np.float64)

    def halves(self, case: Case, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Accuracies of the candidates on two random halves of a task's images."""
        correct = self.correct[case.name]
        order = np.random.default_rng(seed).permutation(correct.shape[1])
        half = correct.shape[1] // 2
        return correct[:, order[:half]].mean(axis=1), correct[:, order[half:]].mean(axis=1)

    def ceiling(self) -> float:
        """Accuracy of the best checkpoint of one half, judged by the other."""
        found = []
        for case in self.cases:
            for seed in range(SPLITS):
                a, b = self.halves(case, seed)
                found += [y[x == x.max()].mean() for x, y in ((a, b), (b, a))]
        return float(np.mean(found))


def refitted(iterations: int) -> Callable[[Metric], Metric]:
    """Train the metric's parameters anew on what a fold leaves."""

    def refit(metric: Metric) -> Metric:
        assert isinstance(metric, RankingMetric)
        parameters, _ = fit_parameters(metric.data, metric.parameters, max_iterations=iterations)
        return replace(metric, parameters=parameters)

    return refit


def trained(space: TaskSpace, data: Observations, start: MetricParameters | None = None) -> RankingMetric:
    """The metric trained on all of `data`."""
    parameters, _ = fit_parameters(data, start, max_iterations=60)
    return RankingMetric(parameters, space, data)


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
        values = getattr(data.tasks, name)
        same = np.zeros_like(values)
        if name != "descriptors":
            same[:, 0] = 1.0  # a unit vector, so that all distances are 0
        changes[name] = same
    return replace(data, tasks=replace(data.tasks, **changes))


def with_tasks(cases: Sequence[Case], data: Observations) -> list[Case]:
    """Replace the cases' task features by those in `data`."""
    position = {name: i for i, name in enumerate(data.tasks.names)}
    return [
        replace(case, task=replace(data.tasks.take(np.array([position[case.name]])), names=case.task.names))
        for case in cases
    ]


def run_methods(matrix: Matrix, iterations: int, ceiling: float) -> dict[str, Any]:
    """Every named method, and controls whose embeddings are permuted."""
    metric = trained(matrix.space, matrix.data)
    predicted = {
        name: evaluate_metric(kind(matrix.space, matrix.data), matrix.cases)
        for name, kind in ALL_METRICS.items()
        if kind is not RankingMetric
    }
    predicted["trained"] = evaluate_metric(metric, matrix.cases, refit=refitted(iterations), progress=True)
    for seed in range(3):
        data = permuted(matrix.data, seed)
        control = trained(matrix.space, data)
        cases = with_tasks(matrix.cases, data)
        predicted[f"permuted_{seed}"] = evaluate_metric(control, cases, refit=refitted(iterations), progress=True)
    constant, picks = always(matrix.cases)
    predicted[f"always:{constant}"] = picks
    rows = judge(matrix.cases, predicted)
    return {
        "summary": records(summarise(rows, TARGET_BLIND, ceiling=ceiling)),
        "rows": records(rows),
        "parameters": scalars(metric),
    }


def run_ranks(matrix: Matrix, ceiling: float) -> list[dict[str, Any]]:
    """How much hangs on the number of factors; parameters trained once on all tasks, held-out scores forgotten."""
    blind, found = accuracy(matrix.cases, always(matrix.cases)[1]), []
    for rank in (0, 1, 2, 3, 4, 6):
        parameters, report = fit_parameters(matrix.data, max_iterations=60, rank=rank)
        picked = accuracy(
            matrix.cases, evaluate_metric(RankingMetric(parameters, matrix.space, matrix.data), matrix.cases)
        )
        found.append(
            {
                "rank": rank,
                "accuracy": round(picked, 5),
                "share_of_gap": round((picked - blind) / (ceiling - blind), 5),
                "negative_log_posterior": report["objective_after"],
            }
        )
    return found


def accuracy(cases: Sequence[Case], predicted: Sequence[np.ndarray]) -> float:
    """Mean accuracy of the picks."""
    return float(np.mean([case.obtained[p.argmax()] for case, p in zip(cases, predicted, strict=True)]))


def run_budgets(matrix: Matrix, iterations: int) -> dict[str, Any]:
    """The main methods when only small checkpoints may be picked."""
    facts = matrix.index.checkpoints.set_index("hub_id")["params_m"]
    metric = trained(matrix.space, matrix.data)
    fits = {
        case.name: p
        for case, p in zip(matrix.cases, evaluate_metric(metric, matrix.cases, refit=refitted(iterations)), strict=True)
    }
    found = {}
    for limit in (2.0, 4.0, 5.0):
        small = [np.flatnonzero([facts[name] <= limit for name in case.candidates.ids]) for case in matrix.cases]
        cases = [case.take(rows) for case, rows in zip(matrix.cases, small, strict=True)]
        predicted = {
            name: [
                p[rows]
                for p, rows in zip(
                    evaluate_metric(ALL_METRICS[name](matrix.space, matrix.data), matrix.cases), small, strict=True
                )
            ]
            for name in ("static", "share_of_wins", "best_imagenet", "nearest_symmetric", "nearest_asymmetric")
        }
        predicted["trained"] = [fits[case.name][rows] for case, rows in zip(matrix.cases, small, strict=True)]
        constant, picks = always(cases)
        predicted[f"always:{constant}"] = picks
        found[f"{limit:g}M"] = {
            "n_checkpoints": len(small[0]),
            "summary": records(summarise(judge(cases, predicted), TARGET_BLIND)),
        }
    return found


def run_ablations(matrix: Matrix, iterations: int, ceiling: float) -> dict[str, Any]:
    """What each part of a task's representation contributes."""
    kept = {
        "fisher": ("moments", "descriptors"),
        "moments": ("profiles", "descriptors"),
        "descriptors": ("profiles", "moments"),
        "fisher+moments": ("descriptors",),
        "fisher+descriptors": ("moments",),
        "moments+descriptors": ("profiles",),
        "all": (),
    }
    predicted = {
        "static": evaluate_metric(ALL_METRICS["static"](matrix.space, matrix.data), matrix.cases),
    }
    constant, picks = always(matrix.cases)
    predicted[f"always:{constant}"] = picks
    objectives = {}
    for name, parts in kept.items():
        data = blanked(matrix.data, parts)
        parameters, report = fit_parameters(data, max_iterations=60)
        objectives[name] = report["objective_after"]
        metric = RankingMetric(parameters, matrix.space, data)
        predicted[name] = evaluate_metric(
            metric, with_tasks(matrix.cases, data), refit=refitted(iterations), progress=True
        )
    return {
        "summary": records(summarise(judge(matrix.cases, predicted), TARGET_BLIND, ceiling=ceiling)),
        "negative_log_posterior": objectives,
    }


def run_refine(matrix: Matrix, iterations: int, ceiling: float) -> dict[str, Any]:
    """Measure k candidates on one half of the images, each chosen in the light of those before; judge by the other."""
    metric, refit = trained(matrix.space, matrix.data), refitted(iterations)
    left: dict[tuple[str, ...], Metric] = {}
    accuracy: dict[int, list[list[float]]] = {k: [] for k in (0, 1, 3, 5, 10)}
    best_measured: dict[int, list[list[float]]] = {k: [] for k in accuracy if k}
    for case in matrix.cases:
        if case.held_out not in left:
            left[case.held_out] = refit(without(metric, case.held_out))
        fold = left[case.held_out]
        n = matrix.correct[case.name].shape[1] // 2
        picks: dict[int, list[float]] = {k: [] for k in accuracy}
        tops: dict[int, list[float]] = {k: [] for k in best_measured}
        for seed in range(SPLITS):
            for half, other in (matrix.halves(case, seed), matrix.halves(case, seed)[::-1]):
                known = {}
                if PROBE in case.candidates.ids:
                    known[PROBE] = Score.of_share(half[case.candidates.ids.index(PROBE)], n)
                chosen: list[str] = []
                for k in range(max(accuracy) + 1):
                    prediction = fold.predict_features(case.task, case.candidates, known)
                    if k in picks:
                        picks[k].append(float(other[int(np.argmax(prediction.mean))]))
                    if k in tops:
                        at = [case.candidates.ids.index(name) for name in chosen]
                        tops[k].append(float(other[max(at, key=lambda i: half[i])]))
                    name = next_candidate(prediction, known, set(case.candidates.ids) - set(chosen))
                    if name is None:
                        break
                    chosen.append(name)
                    known[name] = Score.of_share(half[case.candidates.ids.index(name)], n)
        for found, values in ((accuracy, picks), (best_measured, tops)):
            for k, by_task in found.items():
                by_task.append(values[k] or [np.nan])
    blind = accuracy(matrix.cases, always(matrix.cases)[1])
    rows = []
    for k, values in accuracy.items():
        mean = float(np.mean([np.mean(v) for v in values]))
        row = {"k": k, "accuracy": mean, "share_of_gap": (mean - blind) / (ceiling - blind)}
        if k:
            row["best_of_those_measured"] = float(np.mean([np.mean(v) for v in best_measured[k]]))
        rows.append(row)
    return {"always": blind, "ceiling": ceiling, "shared_error": shared_error(matrix), "rows": rows}


def shared_error(matrix: Matrix, best: int = 6) -> float:
    """Mean correlation of right answers on the same images, among the best checkpoints of each task."""
    found = []
    for case in matrix.cases:
        correct = matrix.correct[case.name]
        top = np.argsort(-correct.mean(axis=1), kind="stable")[:best]
        found.append(np.corrcoef(correct[top])[np.triu_indices(best, 1)].mean())
    return float(np.mean(found))


def run_coverage(matrix: Matrix, iterations: int) -> dict[str, Any]:
    """How often the 80 % interval holds the measured accuracy, given the probe's own."""
    metric, refit = trained(matrix.space, matrix.data), refitted(iterations)
    left: dict[tuple[str, ...], Metric] = {}
    inside, widths, tasks = [], [], []
    for case in matrix.cases:
        if PROBE not in case.candidates.ids:
            continue
        if case.held_out not in left:
            left[case.held_out] = refit(without(metric, case.held_out))
        anchor = case.candidates.ids.index(PROBE)
        n = matrix.correct[case.name].shape[1]
        prediction = left[case.held_out].predict_features(
            case.task, case.candidates, {PROBE: Score.of_share(float(case.obtained[anchor]), n)}
        )
        sd = np.sqrt(prediction.variance())
        smoothed = (case.obtained * n + 0.5) / (n + 1.0)
        z = (np.log(smoothed / (1.0 - smoothed)) - prediction.mean) / sd
        others = np.arange(len(z)) != anchor
        inside.append(np.abs(z[others]) <= 1.2816)
        low, high = (1.0 / (1.0 + np.exp(-(prediction.mean + s * 1.2816 * sd))) for s in (-1.0, 1.0))
        widths.append(np.median((high - low)[others]))
        tasks.append(case.name)
    rates = np.array([values.mean() for values in inside])
    return {
        "coverage": float(np.concatenate(inside).mean()),
        "median_width": float(np.median(widths)),
        "lowest": {tasks[i]: float(rates[i]) for i in np.argsort(rates, kind="stable")[:5]},
    }


def scalars(metric: RankingMetric) -> dict[str, Any]:
    """The trained parameters without the loadings."""
    return {**metric.parameters.scalars(), "lengths": dict(metric.parameters.lengths)}


def main() -> None:
    """Run the parts asked for and merge them into the raw output."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=PARTS, default=PARTS)
    parser.add_argument("--iterations", type=int, default=15)
    args = parser.parse_args()
    index = with_matrix(ZooIndex.load(ROOT / "zoo_index"))
    matrix = Matrix(index)
    ceiling = matrix.ceiling()
    path = RESULTS / "selection.json"
    document = json.loads(path.read_text()) if path.exists() else {}
    document.update(
        n_tasks=len(matrix.cases),
        n_checkpoints=len({name for case in matrix.cases for name in case.candidates.ids}),
        oracle=float(np.mean([case.obtained.max() for case in matrix.cases])),
        ceiling=ceiling,
        iterations=args.iterations,
        versions=library_versions(),
    )
    parts: dict[str, Callable[[], Any]] = {
        "methods": lambda: run_methods(matrix, args.iterations, ceiling),
        "ranks": lambda: run_ranks(matrix, ceiling),
        "budgets": lambda: run_budgets(matrix, args.iterations),
        "ablations": lambda: run_ablations(matrix, args.iterations, ceiling),
        "refine": lambda: run_refine(matrix, args.iterations, ceiling),
        "coverage": lambda: run_coverage(matrix, args.iterations),
        "published": lambda: run_published(index, max(1, args.iterations // 5)),
    }
    for name in args.only:
        document[name] = parts[name]()
        write_json(path, document)
        print(
            name,
            json.dumps(
                document[name]
                if name in ("refine", "ranks")
                else {k: v for k, v in document[name].items() if k != "rows"},
                indent=1,
            )[:4000],
            flush=True,
        )


if __name__ == "__main__":
    main()

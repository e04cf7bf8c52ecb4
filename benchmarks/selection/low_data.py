"""How many images does a recommendation need? Picks from 16 to 450 labelled images, against trying everything on them.

    python -m benchmarks.selection.low_data --matrix-cache DIR --cache DIR [--sizes 16 32 64 128 256 450]

DIR of ``--matrix-cache`` is that of build_matrix.py, which keeps all features. For every task that no checkpoint was
trained on, n images are drawn from its train split as `select` draws them. They are all that a method sees of it:

* ``static``: the mean standing over the other tasks, no image needed,
* ``always``: the one checkpoint that is best over all tasks, known in hindsight,
* ``trained``: the metric, trained without the task and its near duplicates, on the embedding of the n images and the
  probe's own accuracy on them,
* ``refine_3``: the same after three measurements of a linear probe (leave-one-out on the n images),
* ``everything``: the leave-one-out accuracy of all 16 checkpoints on the n images; equals go to the better static one,
* ``trained+everything``: the metric, given all of these accuracies.

The pick is judged by what a user would get with her n images, the accuracy on all others of a linear probe trained on
the n (``obtained``), and by the accuracy that the measured matrix holds (``full``). Raw output: results/low_data.json.
Resumable: embeddings are kept in ``--cache``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file
from tqdm import tqdm

from benchmarks.common import RESULTS, TASKS
from benchmarks.index.matrix import matrix_cells, matrix_name, with_matrix
from benchmarks.selection.leave_one_out import PROBE, Matrix, refitted, trained
from hf_task2vec.embedding.embed import embed_task, library_versions
from hf_task2vec.embedding.task_embedding import TaskEmbedding
from hf_task2vec.evidence.cells import CellStore
from hf_task2vec.files import write_json
from hf_task2vec.metric.evaluation import Case, always, evaluate_metric, without
from hf_task2vec.metric.ranking_metric import METRICS, Metric
from hf_task2vec.probes.probe import Probe
from hf_task2vec.probes.scores import RIDGE_GRID, Score, ridge_leave_one_out
from hf_task2vec.selection.refinement import next_candidate
from hf_task2vec.tasks.task import Task
from hf_task2vec.zoo.index import ZooIndex

ROOT = Path(__file__).resolve().parents[2]
SIZES = (16, 32, 64, 128, 256, 450)
#: Small samples differ more, so more of them are drawn.
DRAWS = {16: 2, 32: 2}
METHODS = ("static", "always", "trained", "refine_3", "everything", "trained+everything")


def embedding_of(task: Task, probe: Probe, path: Path) -> TaskEmbedding:
    """Embed a sample, or read its embedding."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        embed_task(task, probe).save(path)
    return TaskEmbedding.load(path)


def ridge_test(x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray) -> float:
    """Accuracy of the ridge regression of least leave-one-out error, trained on `x`, on other images."""
    mean, n = x.mean(axis=0), len(x)
    values, q = np.linalg.eigh((x - mean) @ (x - mean).T)
    values = np.maximum(values, 0.0)
    scale = float(values.sum()) / max(1, min(n - 1, x.shape[1])) or 1.0
    classes = np.unique(y)
    centred = (y[:, None] == classes) - (y[:, None] == classes).mean(axis=0)
    projected, squares = q.T @ centred, q**2
    errors = []
    for penalty in RIDGE_GRID:
        shrink = values / (values + penalty * scale)
        left = 1.0 - np.minimum(squares @ shrink + 1.0 / n, 1.0 - 1e-9)
        errors.append(np.mean(((centred - q @ (shrink[:, None] * projected)) / left[:, None]) ** 2))
    penalty = RIDGE_GRID[int(np.argmin(errors))] * scale
    dual = q @ (projected / (values + penalty)[:, None])
    scores = (x_test - mean) @ ((x - mean).T @ dual) + (y[:, None] == classes).mean(axis=0)
    return float(np.mean(classes[scores.argmax(axis=1)] == y_test))


def picks_of(fold: Metric, case: Case, query: Any, known: np.ndarray, n: int, static: np.ndarray) -> dict[str, int]:
    """What each method picks among the candidates; `known` are their accuracies on the n images."""
    ids = case.candidates.ids
    seen = {PROBE: Score.of_share(float(known[ids.index(PROBE)]), n)} if PROBE in ids else {}
    found = {
        "static": int(static.argmax()),
        "everything": int(np.lexsort((static, known))[-1]),
        "trained": int(fold.predict_features(query, case.candidates, seen).mean.argmax()),
    }
    every = {name: Score.of_share(float(value), n) for name, value in zip(ids, known, strict=True)}
    found["trained+everything"] = int(fold.predict_features(query, case.candidates, every).mean.argmax())
    chosen: list[str] = []
    for _ in range(3):
        prediction = fold.predict_features(query, case.candidates, seen)
        name = next_candidate(prediction, seen, set(ids) - set(chosen))
        if name is None:
            break
        chosen.append(name)
        seen = seen | {name: every[name]}
    found["refine_3"] = int(fold.predict_features(query, case.candidates, seen).mean.argmax())
    return found


def evaluate(matrix: Matrix, features: Any, cache: Path, sizes: list[int], iterations: int) -> list[dict[str, Any]]:
    """One row for every task, size and draw."""
    probe = Probe.default()
    metric, refit = trained(matrix.space, matrix.data), refitted(iterations)
    statics = evaluate_metric(METRICS["static"](matrix.space, matrix.data), matrix.cases)
    constants = always(matrix.cases)[1]
    folds: dict[tuple[str, ...], Metric] = {}
    rows = []
    for case, static, constant in zip(tqdm(matrix.cases, unit="task"), statics, constants, strict=True):
        if case.held_out not in folds:
            folds[case.held_out] = refit(without(metric, case.held_out))
        rows_of = Task.from_dataset(TASKS / case.name, split="train", max_samples=None).indices
        tables = [features(name, case.name) for name in case.candidates.ids]
        labels, n_train = tables[0]["labels"], int(tables[0]["n_train"][0])
        for n in sizes:
            for seed in range(DRAWS.get(n, 1)):
                if n > n_train:
                    continue
                task = Task.from_dataset(TASKS / case.name, split="train", max_samples=n, seed=seed)
                at = np.flatnonzero(np.isin(rows_of, task.indices))
                rest = np.setdiff1d(np.arange(len(labels)), at)
                embedding = embedding_of(task, probe, cache / f"{case.name}-{n}-{seed}.safetensors")
                x = [table["features"].astype(np.float64) for table in tables]
                known = np.array([ridge_leave_one_out(z[at], labels[at]).mean() for z in x])
                obtained = np.array([ridge_test(z[at], labels[at], z[rest], labels[rest]) for z in x])
                query = matrix.space.of_embedding(embedding)
                picks = picks_of(folds[case.held_out], case, query, known, n, static)
                picks["always"] = int(constant.argmax())
                rows.append(
                    {
                        "task": case.name,
                        "n": n,
                        "draw": seed,
                        "oracle": {"obtained": float(obtained.max()), "full": float(case.obtained.max())},
                        "picks": {
                            name: {
                                "checkpoint": case.candidates.ids[i],
                                "obtained": float(obtained[i]),
                                "full": float(case.obtained[i]),
                            }
                            for name, i in picks.items()
                        },
                    }
                )
    return rows


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means over tasks, by size and method; gains over ``static`` with bootstrap intervals over tasks."""
    rng = np.random.default_rng(0)
    found = []
    for n in sorted({row["n"] for row in rows}):
        tasks = sorted({row["task"] for row in rows if row["n"] == n})
        samples = rng.integers(0, len(tasks), (2000, len(tasks)))
        for judge in ("obtained", "full"):

            def by_task(name: str | None, judge: str = judge, n: int = n, tasks: list[str] = tasks) -> np.ndarray:
                return np.array(
                    [
                        np.mean(
                            [
                                row["oracle"][judge] if name is None else row["picks"][name][judge]
                                for row in rows
                                if row["n"] == n and row["task"] == task
                            ]
                        )
                        for task in tasks
                    ]
                )

            best, base = by_task(None), by_task("static")
            for name in METHODS:
                values = by_task(name)
                gain = (values - base)[samples].mean(axis=1)
                found.append(
                    {
                        "n": n,
                        "judged_by": judge,
                        "method": name,
                        "tasks": len(tasks),
                        "accuracy": round(float(values.mean()), 5),
                        "regret": round(float((best - values).mean()), 5),
                        "gain_over_static": round(float((values - base).mean()), 5),
                        "gain_low": round(float(np.quantile(gain, 0.025)), 5),
                        "gain_high": round(float(np.quantile(gain, 0.975)), 5),
                    }
                )
    return found


def main() -> None:
    """Embed, pick, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--matrix-cache", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--sizes", type=int, nargs="*", default=list(SIZES))
    parser.add_argument("--iterations", type=int, default=15)
    parser.add_argument("--tasks", nargs="*", default=None)
    args = parser.parse_args()
    store = CellStore(args.matrix_cache)
    cells = {(matrix_name(cell.checkpoint.name), cell.task.name): cell for cell in matrix_cells()}

    def features(hub_id: str, task: str) -> dict[str, np.ndarray]:
        cell = cells[matrix_name(hub_id), task]
        if (document := store.document(cell)) is None:
            raise SystemExit(f"no features of {hub_id} on {task}; run build_matrix.py --cache {args.matrix_cache}")
        return {**load_file(store.payload_path(cell)), "n_train": np.array([document["sample"]["n_train"]])}

    matrix = Matrix(with_matrix(ZooIndex.load(ROOT / "zoo_index")))
    if args.tasks:
        matrix.cases = [case for case in matrix.cases if case.name in args.tasks]
    rows = evaluate(matrix, features, args.cache, args.sizes, args.iterations)
    document = {"summary": summary(rows), "rows": rows, "versions": library_versions()}
    if not args.tasks:
        write_json(RESULTS / "low_data.json", document)
    print(json.dumps(document["summary"], indent=1))


if __name__ == "__main__":
    main()

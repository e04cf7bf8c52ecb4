"""How many images does a recommendation need? Picks from 16 to 450 labelled images, against trying everything on them.

    python -m benchmarks.selection.low_data --matrix-cache DIR --cache DIR [--sizes 16 ...] [--tasks aid ...]

DIR of ``--matrix-cache`` is that of benchmarks/index/matrix.py, which keeps all features. For every task that no
checkpoint was trained on, n images are drawn from its train split as `select` draws them. They are all that a method
sees of it:

* ``static``: the mean standing over the other tasks, no image needed,
* ``always``: the one checkpoint that is best over all tasks, known in hindsight,
* ``trained``: the metric, trained without the task and its near duplicates, on the embedding of the n images and the
  probe's own accuracy on them,
* ``refine_3``: the same after three measurements of a linear probe (leave-one-out on the n images),
* ``everything``: the leave-one-out accuracy of all 16 checkpoints on the n images; equals go to the better static one,
* ``trained+everything``: the metric, given all of these accuracies.

The pick is judged by what a user would get with her n images, the accuracy on all others of a linear probe trained on
the n (``obtained``), and by the accuracy that the measured matrix holds (``full``). Raw output: results/low_data.json
(not written with ``--tasks``). Resumable: embeddings are kept in ``--cache``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors.numpy import load_file
from sklearn.linear_model import RidgeCV
from tqdm import tqdm

from benchmarks.common import TASKS, parser, records, write
from benchmarks.index.matrix import matrix_cells, matrix_name
from benchmarks.selection.leave_one_out import PROBE, Matrix
from hf_task2vec import Probe, Task, TaskEmbedding, embed_task
from hf_task2vec.embedding.embed import library_versions
from hf_task2vec.evidence.cells import CellStore
from hf_task2vec.metric.evaluation import Case, always, bootstrap_interval
from hf_task2vec.metric.ranking_metric import Metric
from hf_task2vec.probes.scores import RIDGE_GRID, Score, ridge_leave_one_out
from hf_task2vec.selection.refinement import next_candidate

SIZES = (16, 32, 64, 128, 256, 450)
#: Small samples differ more, so more of them are drawn.
DRAWS = {16: 2, 32: 2}
METHODS = ("static", "always", "trained", "refine_3", "everything", "trained+everything")

Features = Callable[[str, str], dict[str, np.ndarray]]


def stored_features(cache: Path) -> Features:
    """Return what gives the features of a checkpoint on all images of a task, their labels, and ``n_train``."""
    store = CellStore(cache)
    cells = {(matrix_name(cell.checkpoint.name), cell.task.name): cell for cell in matrix_cells()}

    def features(hub_id: str, task: str) -> dict[str, np.ndarray]:
        cell = cells[matrix_name(hub_id), task]
        if (document := store.document(cell)) is None:
            raise SystemExit(f"no features of {hub_id} on {task}: python -m benchmarks.index.matrix --cache {cache}")
        return {**load_file(store.payload_path(cell)), "n_train": np.array([document["sample"]["n_train"]])}

    return features


def embedding_of(task: Task, probe: Probe, path: Path) -> TaskEmbedding:
    """Embed a sample, or read its embedding."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        embed_task(task, probe).save(path)
    return TaskEmbedding.load(path)


def ridge_test(x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray) -> float:
    """Accuracy of the ridge regression of least leave-one-out error, trained on `x`, on other images."""
    classes, at = np.unique(y, return_inverse=True)
    scale = float(np.square(x - x.mean(axis=0)).sum()) / max(1, min(len(x) - 1, x.shape[1])) or 1.0
    ridge = RidgeCV([penalty * scale for penalty in RIDGE_GRID]).fit(x, np.eye(len(classes))[at])
    return float(np.mean(classes[ridge.predict(x_test).argmax(axis=1)] == y_test))


def picks_of(fold: Metric, case: Case, query: Any, known: np.ndarray, n: int, static: np.ndarray) -> dict[str, int]:
    """What each method picks among the candidates; `known` are their accuracies on the n images."""
    ids = case.candidates.ids
    every = {name: Score.of_share(float(value), n) for name, value in zip(ids, known, strict=True)}

    def pick(seen: dict[str, Score]) -> int:
        return int(fold.predict_features(query, case.candidates, seen).mean.argmax())

    seen = {PROBE: every[PROBE]} if PROBE in ids else {}
    found = {
        "static": int(static.argmax()),
        "everything": int(np.lexsort((static, known))[-1]),
        "trained": pick(seen),
        "trained+everything": pick(every),
    }
    chosen: list[str] = []
    for _ in range(3):
        name = next_candidate(fold.predict_features(query, case.candidates, seen), seen, set(ids) - set(chosen))
        if name is None:
            break
        chosen.append(name)
        seen = seen | {name: every[name]}
    return found | {"refine_3": pick(seen)}


def evaluate(matrix: Matrix, features: Features, cache: Path, sizes: list[int]) -> Iterator[dict[str, Any]]:
    """One row for every task, size and draw."""
    probe = Probe.default()
    statics, constants = matrix.predicted("static"), always(matrix.cases)[1]
    for case, static, constant in zip(tqdm(matrix.cases, unit="task"), statics, constants, strict=True):
        order = Task.from_dataset(TASKS / case.name, split="train", max_samples=None).indices
        tables = [features(name, case.name) for name in case.candidates.ids]
        x = [table["features"].astype(np.float64) for table in tables]
        labels, n_train = tables[0]["labels"], int(tables[0]["n_train"][0])
        draws = [(size, seed) for size in sizes if size <= n_train for seed in range(DRAWS.get(size, 1))]
        for n, seed in draws:
            task = Task.from_dataset(TASKS / case.name, split="train", max_samples=n, seed=seed)
            at = np.flatnonzero(np.isin(order, task.indices))
            rest = np.setdiff1d(np.arange(len(labels)), at)
            embedding = embedding_of(task, probe, cache / f"{case.name}-{n}-{seed}.safetensors")
            known = np.array([ridge_leave_one_out(z[at], labels[at]).mean() for z in x])
            obtained = np.array([ridge_test(z[at], labels[at], z[rest], labels[rest]) for z in x])
            picks = picks_of(matrix.fold(case), case, matrix.space.of_embedding(embedding), known, n, static)
            picks["always"] = int(constant.argmax())
            yield {
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


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means over tasks, by size and method; gains over ``static`` with bootstrap intervals over tasks."""
    found = []
    for judge in ("obtained", "full"):
        flat = [
            {"task": row["task"], "n": row["n"], "oracle": row["oracle"][judge]}
            | {name: row["picks"][name][judge] for name in METHODS}
            for row in rows
        ]
        for n, by_task in pd.DataFrame(flat).groupby(["n", "task"]).mean().groupby("n"):
            for name in METHODS:
                gain = (by_task[name] - by_task["static"]).to_numpy()
                low, high = bootstrap_interval(gain)
                found.append(
                    {
                        "n": n,
                        "judged_by": judge,
                        "method": name,
                        "tasks": len(by_task),
                        "accuracy": by_task[name].mean(),
                        "regret": (by_task["oracle"] - by_task[name]).mean(),
                        "gain_over_static": gain.mean(),
                        "gain_low": low,
                        "gain_high": high,
                    }
                )
    return records(pd.DataFrame(found))  # type: ignore[no-any-return]


def main() -> None:
    """Embed, pick, judge."""
    arguments = parser(__doc__)
    arguments.add_argument("--matrix-cache", type=Path, required=True)
    arguments.add_argument("--cache", type=Path, required=True)
    arguments.add_argument("--sizes", type=int, nargs="*", default=list(SIZES))
    arguments.add_argument("--tasks", nargs="*", default=None)
    args = arguments.parse_args()
    matrix = Matrix()
    if args.tasks:
        matrix.cases = [case for case in matrix.cases if case.name in args.tasks]
    rows = list(evaluate(matrix, stored_features(args.matrix_cache), args.cache, args.sizes))
    document = {"summary": summary(rows), "rows": rows, "versions": library_versions()}
    if not args.tasks:
        write("low_data", document)
    print(json.dumps(document["summary"], indent=1))


if __name__ == "__main__":
    main()

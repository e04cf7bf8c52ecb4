"""What ranking a million checkpoints costs, with a thousand reference tasks.

    python -m benchmarks.speed.scale [--checkpoints 1000000] [--tasks 1000]

The index is made up: facts drawn around those of the shipped one, random embeddings of the default probe's size, and
4,000 scores of 100 checkpoints. Timed, in one thread, after the metric is conditioned on the scores and the facts are
read: predicting all checkpoints for one task, and the ten best with their intervals. Also the load of the shipped
index. Seconds are those of the processor, which other processes disturb less. Raw output: results/scale.json.
"""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.common import ROOT, parser, write
from hf_task2vec import RankingMetric, ZooIndex
from hf_task2vec.embedding.embed import library_versions
from hf_task2vec.metric.observations import CheckpointFeatures, Observations, checkpoint_features
from hf_task2vec.metric.task_space import TaskFeatures

SCORED, SCORES, ROUNDS = 100, 4000, 7


def made_up(index: ZooIndex, checkpoints: int, tasks: int) -> tuple[RankingMetric, CheckpointFeatures, TaskFeatures]:
    """A metric over made-up scores, all candidates, and one task to rank for."""
    rng = np.random.default_rng(0)
    shipped = RankingMetric.from_index(index)
    real = checkpoint_features(index.checkpoints)
    rows = rng.integers(len(real.ids), size=checkpoints)
    candidates = CheckpointFeatures(
        tuple(f"org/model-{i}" for i in range(checkpoints)),
        real.numbers[rows] + rng.normal(0.0, 0.1, (checkpoints, real.numbers.shape[1])),
        real.family[rows],
        real.home[rows],
    )

    def unit(columns: int) -> np.ndarray:
        values = rng.standard_normal((tasks + 1, columns)) + rng.standard_normal(columns)
        return values / np.linalg.norm(values, axis=1, keepdims=True)

    like = shipped.data.tasks
    known = TaskFeatures(
        tuple(f"task-{i}" for i in range(tasks + 1)),
        profiles=unit(like.profiles.shape[1]),
        moments=unit(like.moments.shape[1]),
        descriptors=rng.standard_normal((tasks + 1, like.descriptors.shape[1])),
        embedded=np.ones(tasks + 1, dtype=bool),
        values=np.ones((tasks + 1, 1), dtype=np.float32),
        kinds=np.eye(like.kinds.shape[1])[rng.integers(like.kinds.shape[1], size=tasks + 1)],
    )
    task = rng.integers(tasks, size=SCORES)
    data = Observations(
        tasks=known.take(np.arange(tasks)),
        checkpoints=candidates.take(np.arange(SCORED)),
        task=task,
        checkpoint=rng.integers(SCORED, size=SCORES),
        group=task,
        y=rng.standard_normal(SCORES),
        error=np.full(SCORES, 0.01),
        source=np.zeros(SCORES, dtype=np.int64),
        sources=(shipped.data.sources[0],),
        score=np.full(SCORES, 0.5),
        part=np.zeros(SCORES, dtype=bool),
    )
    query = replace(known.take(np.array([tasks])), names=("query",))
    return replace(shipped, data=data, solved=None), candidates, query


def seconds(run: Callable[[], object], rounds: int = ROUNDS) -> dict[str, float]:
    """Median and range of the processor seconds of a call."""
    times = []
    for _ in range(rounds):
        started = time.process_time()
        run()
        times.append(time.process_time() - started)
    return {"median": float(np.median(times)), "least": min(times), "most": max(times)}


def main() -> None:
    """Measure and write."""
    arguments = parser(__doc__)
    arguments.add_argument("--checkpoints", type=int, default=1_000_000)
    arguments.add_argument("--tasks", type=int, default=1000)
    args = arguments.parse_args()
    index = ZooIndex.load(ROOT / "zoo_index")
    metric, candidates, query = made_up(index, args.checkpoints, args.tasks)

    def rank() -> None:
        prediction = metric.predict_features(query, candidates)
        prediction.variance(np.argpartition(-prediction.mean, 10)[:10])

    with threadpool_limits(1):
        document = {
            "checkpoints": args.checkpoints,
            "tasks": args.tasks,
            "scores": SCORES,
            # The first prediction conditions the metric on the scores.
            "condition_s": seconds(lambda: metric.predict_features(query, candidates.take(np.arange(10))), 1)["median"],
            "rank_s": seconds(rank),
            "load_shipped_index_s": seconds(lambda: ZooIndex.load(ROOT / "zoo_index")),
            "peak_memory_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
            "versions": library_versions(),
        }
    write("scale", document)
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()

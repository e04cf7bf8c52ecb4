"""What ranking a million checkpoints costs, with a thousand reference tasks.

    python benchmarks/scale.py [--checkpoints 1000000] [--tasks 1000]

The index is made up: facts drawn around those of the shipped one, random embeddings of the default probe's size, and
4,000 scores of 100 checkpoints. Timed, in one thread, after the metric is conditioned on the scores and the facts are
read ("load"): predicting all checkpoints for one task, and the ten best with their intervals. Also the load of the
shipped index. Seconds are those of the processor, which other processes disturb less. Raw output: results/scale.json.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from hf_task2vec.embedding.embed import library_versions
from hf_task2vec.files import write_json
from hf_task2vec.metric.observations import CheckpointFeatures, Observations, checkpoint_features
from hf_task2vec.metric.ranking_metric import RankingMetric
from hf_task2vec.metric.task_space import TaskFeatures
from hf_task2vec.zoo.index import ZooIndex

ROOT = Path(__file__).resolve().parents[1]
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
        real.pretraining[rows],
        real.family[rows],
    )
    size, width = shipped.data.tasks.profiles.shape[1], shipped.data.tasks.moments.shape[1]

    def unit(columns: int) -> np.ndarray:
        values = rng.standard_normal((tasks + 1, columns)) + rng.standard_normal(columns)
        return values / np.linalg.norm(values, axis=1, keepdims=True)

    known = TaskFeatures(
        tuple(f"task-{i}" for i in range(tasks + 1)),
        profiles=unit(size),
        moments=unit(width),
        descriptors=rng.standard_normal((tasks + 1, shipped.data.tasks.descriptors.shape[1])),
        embedded=np.ones(tasks + 1, dtype=bool),
        values=np.ones((tasks + 1, 1), dtype=np.float32),
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
    )
    query = replace(known.take(np.array([tasks])), names=("query",))
    return replace(shipped, data=data), candidates, query


def peak_gib() -> float:
    """Most memory that the process held, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoints", type=int, default=1_000_000)
    parser.add_argument("--tasks", type=int, default=1000)
    args = parser.parse_args()
    threadpool_limits(1)
    loads = []
    for _ in range(ROUNDS):
        started = time.process_time()
        index = ZooIndex.load(ROOT / "zoo_index")
        loads.append(time.process_time() - started)
    metric, candidates, query = made_up(index, args.checkpoints, args.tasks)
    started = time.process_time()
    metric.predict_features(query, candidates.take(np.arange(10)))  # conditions it on the scores
    conditioned = time.process_time() - started
    seconds = []
    for _ in range(ROUNDS):
        started = time.process_time()
        prediction = metric.predict_features(query, candidates)
        best = np.argpartition(-prediction.mean, 10)[:10]
        prediction.variance(best)
        seconds.append(time.process_time() - started)
    document = {
        "checkpoints": args.checkpoints,
        "tasks": args.tasks,
        "scores": SCORES,
        "rank_s": {"median": float(np.median(seconds)), "least": min(seconds), "most": max(seconds)},
        "condition_s": conditioned,
        "load_shipped_index_s": {"median": float(np.median(loads)), "least": min(loads), "most": max(loads)},
        "peak_memory_gib": peak_gib(),
        "versions": library_versions(),
    }
    write_json(ROOT / "benchmarks" / "results" / "scale.json", document)
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()

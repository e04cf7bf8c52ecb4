"""Made-up scores as a metric sees them: features of tasks and checkpoints, and observations of both."""

from __future__ import annotations

from typing import Any

import numpy as np

from hf_task2vec.metric.covariance import MetricParameters
from hf_task2vec.metric.observations import REFERENCE_SOURCE, CheckpointFeatures, Observations
from hf_task2vec.metric.task_space import TASK_DESCRIPTORS, TaskFeatures, TaskSpace

LAYERS = (4, 6)
PUBLISHED = "paper/fine_tuning"


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def space(layers: tuple[int, ...] = LAYERS) -> TaskSpace:
    n = sum(layers)
    return TaskSpace("ab" * 32, np.array(layers), np.zeros(n), np.zeros(4), np.ones(4))


def tasks(n: int, seed: int = 0, *, unknown: int = 0, prefix: str = "task", layers: tuple[int, ...] = LAYERS) -> Any:
    """Return `n` tasks, the last `unknown` of them without an embedding."""
    rng = np.random.default_rng(seed)
    embedded = np.arange(n) < n - unknown
    keep = embedded[:, None]
    return TaskFeatures(
        tuple(f"{prefix}{i}" for i in range(n)),
        unit(rng.normal(size=(n, 5))) * keep,
        unit(rng.normal(size=(n, 4))) * keep,
        rng.normal(size=(n, len(TASK_DESCRIPTORS))) * keep,
        embedded,
        (rng.lognormal(size=(n, sum(layers))) * keep).astype(np.float32),
    )


def checkpoints(n: int, seed: int = 0, *, first: int = 0) -> CheckpointFeatures:
    """Return `n` checkpoints; two kinds of pretraining, three families."""
    rng = np.random.default_rng(seed + 1000)
    ids = tuple(f"org/net{first + i}" for i in range(n))
    return CheckpointFeatures(ids, rng.normal(size=(n, 4)), rng.integers(2, size=n), rng.integers(3, size=n))


def observations(
    known: TaskFeatures, scored: CheckpointFeatures, seed: int = 0, *, share: float = 1.0, y: Any = None
) -> Observations:
    """Return a score of each checkpoint on each task, or of a random share of them; every third task is published.

    `y` holds the logits, shape (T, C); random by default.
    """
    rng = np.random.default_rng(seed + 2000)
    shape = (len(known.names), len(scored.ids))
    task, checkpoint = np.nonzero(rng.random(shape) < share)
    values = (rng.normal(size=shape) if y is None else np.asarray(y))[task, checkpoint]
    return Observations(
        tasks=known,
        checkpoints=scored,
        task=task,
        checkpoint=checkpoint,
        group=task.copy(),
        y=values,
        error=rng.uniform(0.0, 0.05, len(task)),
        source=(task % 3 == 2).astype(np.int64),
        sources=(REFERENCE_SOURCE, PUBLISHED),
        score=1.0 / (1.0 + np.exp(-values)),
    )


def parameters(seed: int = 0, names: tuple[str, ...] = (), **changes: Any) -> MetricParameters:
    """Return random parameters, with three factors for the checkpoints `names`."""
    rng = np.random.default_rng(seed + 3000)
    values: dict[str, Any] = {name: float(value * rng.uniform(0.5, 1.5)) for name, value in SCALARS.items()}
    values["lengths"] = {name: float(rng.uniform(2.0, 6.0)) for name in TASK_DESCRIPTORS[1:]}
    values["factors"] = {name: tuple(rng.normal(0.0, 0.3, 3).tolist()) for name in names}
    values["slopes"] = {REFERENCE_SOURCE: 1.0}
    values["noises"] = {REFERENCE_SOURCE: 0.02}
    return MetricParameters(**{**values, **changes})


SCALARS = {**MetricParameters().scalars(), "pretraining_shared": 0.4, "family_shared": 0.6}

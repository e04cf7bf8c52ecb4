"""Made-up scores as a metric sees them: features of tasks and checkpoints, and observations of both."""

from __future__ import annotations

from typing import Any

import numpy as np

from hf_task2vec.metric.covariance import CHECKPOINT_KERNELS, SHARED_WITH, Level, MetricParameters
from hf_task2vec.metric.observations import CHECKPOINT_FACTS, REFERENCE_SOURCE, CheckpointFeatures, Observations
from hf_task2vec.metric.task_space import KINDS, TASK_DESCRIPTORS, TaskFeatures, TaskSpace

LAYERS = (4, 6)
PUBLISHED = "paper/full_finetune"


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def space(layers: tuple[int, ...] = LAYERS) -> TaskSpace:
    n = sum(layers)
    return TaskSpace("ab" * 32, np.array(layers), np.zeros(n), np.zeros(4), np.ones(4), np.zeros(len(TASK_DESCRIPTORS)))


def tasks(n: int, seed: int = 0, *, unknown: int = 0, prefix: str = "task", layers: tuple[int, ...] = LAYERS) -> Any:
    """Return `n` tasks of three kinds or of none, the last `unknown` of them without an embedding."""
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
        np.eye(4, len(KINDS))[rng.integers(4, size=n)] * (np.arange(n) % 4 < 3)[:, None],
    )


def checkpoints(n: int, seed: int = 0, *, first: int = 0) -> CheckpointFeatures:
    """Return `n` checkpoints; three families, every third one at home on one kind of tasks."""
    rng = np.random.default_rng(seed + 1000)
    ids = tuple(f"org/net{first + i}" for i in range(n))
    home = np.eye(4, len(KINDS))[rng.integers(4, size=n)] * (np.arange(n) % 3 == 1)[:, None]
    return CheckpointFeatures(ids, rng.normal(size=(n, len(CHECKPOINT_FACTS))), rng.integers(3, size=n), home)


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
        part=np.zeros(len(task), dtype=bool),
    )


def parameters(seed: int = 0, **changes: Any) -> MetricParameters:
    """Return random parameters."""
    rng = np.random.default_rng(seed + 3000)
    values: dict[str, Any] = {k: float(v * rng.uniform(0.5, 1.5)) for k, v in MetricParameters().scalars().items()}
    values["variances"] = {k: {s: float(rng.uniform(0.01, 0.2)) for s in SHARED_WITH} for k in CHECKPOINT_KERNELS}
    values["lengths"] = {name: float(rng.uniform(2.0, 6.0)) for name in TASK_DESCRIPTORS[1:]}
    values["loadings"] = {f"org/net{i}": tuple(rng.normal(0.0, 0.5, 2).tolist()) for i in range(0, 8, 2)}
    values["noises"] = {REFERENCE_SOURCE: 0.02}
    values["spreads"] = {"fine-tune": 0.6, "linear-probe": 1.4}
    values["scales"] = {"fine-tune": 0.7, "linear-probe": 0.4}
    values["levels"] = {"fine-tune": Level(0.5, 0.8, 0.3)}
    return MetricParameters(**{**values, **changes})
